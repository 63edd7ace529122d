"""README, CONTRIBUTING and VARIANTS say what is so: the table of variants, the commands, the example.

`python tests/test_readme.py` writes the table of variants.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
README, VARIANTS = ROOT / "README.md", ROOT / "VARIANTS.md"
BEGIN, END = "<!-- variants: written by tests/test_readme.py -->", "<!-- /variants -->"


def variants_table() -> str:
    """All variants of this package (no plugins) as a Markdown table."""
    from attnbench.variants.registry import names, variant_class

    rows = ["| variant | family | kind | computes | cost | paper |", "|---|---|---|---|---|---|"]
    for name in names():
        cls = variant_class(name)
        if cls.__module__.startswith("attnbench.variants."):
            cells = (f"`{name}`", cls.family, cls.kind, cls.formula, cls.complexity.text, cls.paper)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def split_page() -> tuple[str, str, str]:
    before, rest = VARIANTS.read_text(encoding="utf-8").split(BEGIN)
    table, after = rest.split(END)
    return before, table.strip(), after


def code_block(path: Path) -> str:
    found = re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert found, f"{path.name} has no Python example"
    return str(found[0])


def test_the_table_names_every_variant_as_it_is() -> None:
    _, table, _ = split_page()
    assert table == variants_table(), "the table of variants is out of date: run python tests/test_readme.py"


def test_the_readme_names_every_variant_in_its_family() -> None:
    from attnbench.variants.registry import names, variant_class

    section = README.read_text(encoding="utf-8").split("## Variants")[1].split("\n## ")[0]
    listed = {
        family: set(re.findall(r"`(\w+)`", text))
        for family, text in re.findall(r"\*\*(\w+)\*\*:((?:.|\n(?!-))*)", section)
    }
    there: dict[str, set[str]] = {}
    for name in names():
        if variant_class(name).__module__.startswith("attnbench.variants."):
            there.setdefault(variant_class(name).family, set()).add(name)
    assert listed == there


def test_the_first_screen_names_the_two_commands() -> None:
    first_screen = README.read_text(encoding="utf-8").splitlines()[:20]
    for command in ("make sweep", "make test"):
        assert any(line.startswith(f"    {command} ") for line in first_screen)
        assert re.search(rf"^{command.removeprefix('make ')}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_commands_and_options_that_the_docs_name_exist() -> None:
    from attnbench.bench.cli import main

    text = README.read_text(encoding="utf-8") + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    attnbench (\w+)([^#\n]*)", text, flags=re.MULTILINE)
    assert {command for command, _ in lines} >= {"list", "show", "run", "report", "capture"}
    for command, rest in lines:
        assert command in main.commands, f"there is no command {command}"
        found = main.commands[command]
        if isinstance(found, click.Group):  # plot pattern …
            found = found.commands[rest.split()[0]]
        known = {option for parameter in found.params for option in parameter.opts}
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in known or option == "--no-causal", f"attnbench {command} has no {option}"


def test_the_python_example_of_the_readme_runs_but_for_the_sweep() -> None:
    example = "\n".join(line for line in code_block(README).splitlines() if not line.startswith(("folder", "frame")))
    code = (
        "import torch; torch.manual_seed(0); q, k, v = torch.randn(3, 1, 2, 40, 8).unbind(0)\n"
        f"{example}\n"
        "assert out.shape == (1, 2, 40, 8)\n"
        "torch.testing.assert_close(out.double(), attn.definition(q, k, v, causal=True), rtol=1e-4, atol=1e-5)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    before, _, after = split_page()
    VARIANTS.write_text(f"{before}{BEGIN}\n{variants_table()}\n{END}{after}", encoding="utf-8")
