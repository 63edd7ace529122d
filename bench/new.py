"""Writes the file of a new variant from the template of its family."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

from ..variants import registry
from ..variants.errors import VariantError, suggest

HOME = Path(registry.__file__).parent


def write(name: str, family: str, out: Path | None = None, *, in_tree: bool = False) -> tuple[Path, str]:
    """Writes the file; returns its path and the spec to run it by.

    `out` is NAME.py in the current folder by default; `in_tree` puts it into the package's own variants/<family>/.
    Raises VariantError for a name that is taken or not lower_snake_case, an unknown family, a file that exists or
    cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise VariantError(f"{name!r} is no name for a variant: write it in lower_snake_case, e.g. my_attention")
    if family not in registry.FOLDERS:
        raise VariantError(f"unknown family {family!r}; {suggest(family, registry.FOLDERS)}")
    if name in registry.names():
        raise VariantError(f"there is a variant {name!r} already; choose another name, or change that one")
    if in_tree and out is not None:
        raise VariantError("--in-tree says where the file goes; leave out --out")
    path = HOME / family / f"{name}.py" if in_tree else out or Path(f"{name}.py")
    if path.suffix != ".py":
        raise VariantError(f"{path} must end in .py")
    text = resources.files(__package__).joinpath("templates", f"{family}.py.txt").read_text("utf-8")
    filled = Template(text).substitute(
        name=name,
        class_name="".join(part.capitalize() for part in name.split("_")),
        package=".." if in_tree else "attnbench.variants.",
        check=name if in_tree else path,
    )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(filled)
    except FileExistsError:
        raise VariantError(f"{path} exists already; name another with --out, or remove it") from None
    except OSError as error:
        raise VariantError(f"cannot write {path}: {error.strerror or error}; choose another place with --out") from None
    return path, name
