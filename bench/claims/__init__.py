"""Published claims, a file for each subject, found by being there; files of users' own beside them.

A file holds one or more `Claim`s at its top level: source, setting, published values with their tolerance, and a
function that measures them anew. No file imports torch before its function is called, so that listing claims is quick.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ...results.record import digest
from ...variants.errors import suggest
from ..errors import BenchError
from .claim import Claim

NOT_CLAIMS = ("claim", "verdict", "timing")
"""Modules of this folder that hold no claims."""


def all_claims(files: Sequence[str | Path] = ()) -> dict[str, Claim]:
    """Every claim by its name, cheapest first; those of `files` too. Raises BenchError for a broken file or a name
    that is taken."""
    found: dict[str, Claim] = {}
    origin: dict[str, str] = {}
    for module, where in [*_ours(), *((load_file(file), str(file)) for file in files)]:
        claims = claims_of(module)
        if not claims:
            raise BenchError(f"{where} holds no claim; assign one to a name: MINE = Claim(…)")
        for claim in claims:
            if claim.name in found:
                raise BenchError(f"{where}: the claim {claim.name!r} is in {origin[claim.name]} already; rename it")
            found[claim.name], origin[claim.name] = claim, where
    return dict(sorted(found.items(), key=lambda item: (item[1].cost_s, item[0])))


def choose(names: Sequence[str], files: Sequence[str | Path] = ()) -> list[Claim]:
    """The claims of these names, all where none is given, cheapest first. Raises BenchError for an unknown one."""
    known = all_claims(files)
    for name in names:
        if name not in known:
            raise BenchError(f"unknown claim {name!r}; {suggest(name, known)}")
    return [claim for name, claim in known.items() if not names or name in names]


def claims_of(module: ModuleType) -> list[Claim]:
    """The claims that a module defines, in the order of their names there."""
    return [value for value in vars(module).values() if isinstance(value, Claim)]


def load_file(path: str | Path) -> ModuleType:
    """A user's file of claims as a module; the same one each time. Raises BenchError where it cannot be imported."""
    path = Path(path)
    try:
        resolved = path.resolve()
        there = resolved.is_file()
    except (ValueError, OSError):  # a null byte, a name too long
        there = False
    if not there:
        raise BenchError(f"the file of claims {path} does not exist or is not a file")
    name = f"attnbench_claims_{digest({'path': str(resolved)})}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise BenchError(f"the file of claims {path} must be a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BenchError(f"the file of claims {path} raised {type(error).__name__} at import: {error}") from error
    return module


def _ours() -> list[tuple[ModuleType, str]]:
    stems = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py") if path.stem not in NOT_CLAIMS)
    return [(importlib.import_module(f"{__name__}.{stem}"), f"bench/claims/{stem}.py") for stem in stems]


__all__ = ["Claim", "all_claims", "choose", "claims_of", "load_file"]
