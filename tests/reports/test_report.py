"""The report as a whole: what is in its files, that it is safe to open, and what is said of runs that went wrong."""

from __future__ import annotations

import ast
import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import attnbench
from attnbench.reports.errors import ReportsError
from attnbench.reports.load import load_runs
from attnbench.reports.report import Report, write
from attnbench.results.errors import ResultsError

from . import synthetic

HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would see of a page: its elements with attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write([synthetic.write(tmp_path_factory.mktemp("runs") / "sweep", synthetic.sweep())])


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.html.read_text(encoding="utf-8"))


def test_it_lies_in_the_first_run_by_default(report: Report) -> None:
    assert report.folder.name == "report"
    assert report.folder.parent.name == "sweep"
    assert report.html.is_file()
    assert report.markdown.is_file()


def stored(report: Report) -> dict[str, Any]:
    """What the page embeds."""
    source = report.html.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="store">(.*?)</script>', source, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_sentences_stand_at_the_top_of_both(report: Report, page: Page) -> None:
    assert len(report.sentences) == 4
    for sentence in report.sentences:
        assert sentence in page.text
    lines = report.markdown.read_text(encoding="utf-8").splitlines()
    assert [line[:3] for line in lines if line][1:5] == ["1. ", "2. ", "3. ", "4. "]


def test_every_reason_appears(report: Report, page: Page) -> None:
    missing = [record for record in synthetic.sweep() if record.status != "ok"]
    assert len({record.status for record in missing}) >= 5
    part = page.text[page.text.index("What was not measured, and why") :]
    for record in missing:
        for reason in record.reasons:
            assert reason in part
    cases = {status: sum(r.status == status for r in missing) for status in {r.status for r in missing}}
    for status, number in cases.items():
        assert f"{status}: {number} case" in part


def test_every_record_is_in_the_store_and_every_link_leads_to_one_or_to_a_part(report: Report, page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    held = {f"record=1-{case}" for case in stored(report)["columns"]["case_id"]["values"]}
    assert held == {f"record=1-{record.case_id}" for record in synthetic.sweep()}
    targets = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert targets
    assert all(target is not None and target[0] == "#" and target[1:] in {*ids, *held} for target in targets)


def test_page_refers_to_nothing_outside(report: Report, page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("srcset", "data", "action", "poster"):
            assert name not in attributes
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    source = report.html.read_text(encoding="utf-8")
    assert not re.search(r"url\(\s*['\"]?(?!#)[a-z]*:?//", source)
    assert "@import" not in source
    assert not re.search(r"\bimport\s*\(|\bfrom\s*['\"]https?:", source)


def test_policy_forbids_the_network_and_all_other_scripts(page: Page) -> None:
    (policy,) = [
        attributes["content"]
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert "default-src 'none'" in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert re.fullmatch(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", scripts)


def test_page_is_of_a_size_that_can_be_mailed(report: Report) -> None:
    assert report.html.stat().st_size < 3_000_000


def test_figures_are_there_and_not_blank(report: Report) -> None:
    import matplotlib.image

    names = {path.name for path in report.figures}
    assert {"time.svg", "time.png", "memory.svg", "error.svg", "fidelity.svg", "accuracy_time.png"} <= names
    for path in report.figures:
        assert path.is_file()
        if path.suffix == ".png":
            pixels = matplotlib.image.imread(path)
            assert pixels.shape[0] > 400
            assert (pixels[..., :3].min(axis=2) < 0.5).mean() > 0.005
        else:
            assert path.read_text(encoding="utf-8").count("<path") > 50


def test_figures_of_the_same_records_are_the_same(tmp_path: Path) -> None:
    records = [synthetic.timed("sdpa", n, 0.1, baseline="sdpa", base_s=0.1) for n in (256, 512)]
    run = synthetic.write(tmp_path / "run", records)
    first, second = write([run], tmp_path / "a"), write([run], tmp_path / "b")
    for one, other in zip(first.figures, second.figures, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_markdown_shows_tables_and_figures(report: Report) -> None:
    text = report.markdown.read_text(encoding="utf-8")
    assert "![figures/time.png](<figures/time.png>)" in text
    rows = [line for line in text.splitlines() if line.startswith("| linear\\_elu (chunk")]
    assert rows
    head = next(line for line in text.splitlines() if line.startswith("| Variant |"))
    assert rows[0].count("|") == head.count("|")


def hostile_run(path: Path) -> Path:
    """Names and reasons that would run, break out or be drawn as mathematics if nobody escaped them."""
    name, other = f"{HOSTILE}$\\frac$", "</script><!--\"'{{ 7*7 }}|`datum.v`"
    base = {"baseline": name, "base_s": 0.1, "error": 1e-7, "error_allowed": 1e-6, "fidelity_error_uniform": 1.0}
    reasons = ["<img src=x onerror=alert(2)>"]
    records = [
        synthetic.timed(variant, length, time, **base, kind=kind, reasons=reasons, fidelity_error=0.3)
        for length in (256, 512)
        for variant, kind, time in ((name, "exact", 0.1), (other, "approximate", 0.02))
    ]
    records.append(synthetic.record("sdpa", 256, status="crashed", reasons=["</p><script>alert(3)</script>"]))
    notes = ["<b>note</b>"]
    return synthetic.write(path, records, command="attnbench run '<x>'", notes=notes, cpu="<i>CPU</i>")


def test_hostile_names_are_text(tmp_path: Path) -> None:
    report = write([hostile_run(tmp_path / "run")])
    source = report.html.read_text(encoding="utf-8")
    seen = Page(source)
    assert HOSTILE in seen.text
    assert "<img src=x onerror=alert(2)>" in seen.text
    assert "</p><script>alert(3)</script>" in seen.text
    assert not [tag for tag, attributes in seen.elements if tag in ("i", "x") or "onerror" in attributes]
    assert len([tag for tag, _ in seen.elements if tag == "script"]) == 2  # data, ours
    assert "<script>alert" not in source
    assert "{{ 7*7 }}" in html.unescape(seen.text)
    markdown = report.markdown.read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert all(line.count("|") - line.count("\\|") >= 3 for line in markdown.splitlines() if line.startswith("|"))


# -- runs that went wrong -------------------------------------------------------------------------------------------


def test_torn_line_is_warned_of_and_the_rest_reported(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep()[:40], cases=41)
    with (run / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"case_id": "torn')
    report = write([run])
    assert any("line 41 skipped" in warning for warning in report.warnings)
    text = Page(report.html.read_text(encoding="utf-8")).text
    assert "line 41 skipped" in text
    assert "line 41 skipped" in report.markdown.read_text(encoding="utf-8")


def test_interrupted_run_says_how_far_it_came(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep()[:30], cases=187, finished_at=None)
    report = write([run])
    (warning,) = report.warnings
    assert "was interrupted, or still runs, with 30 of its 187 cases; 157 have no record" in warning
    text = Page(report.html.read_text(encoding="utf-8")).text
    assert "157 cases of 187 have no record, since the run was interrupted" in text


def test_run_without_a_record_is_one_clear_error(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", [], cases=5)
    with pytest.raises(ReportsError, match=r"holds no record yet, so there is nothing to report; go on with"):
        write([run])
    (run / "results.jsonl").write_text("{torn\n", encoding="utf-8")
    with pytest.raises(ReportsError, match=r"no record yet \(1 line could not be read\)"):
        write([run])


def test_no_run_and_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(ReportsError, match="name at least one run folder"):
        write([])
    with pytest.raises(ResultsError, match="is not a run"):
        write([tmp_path / "nowhere"])


def test_a_folder_of_another_kind_is_named_for_what_it_holds(tmp_path: Path) -> None:
    """A folder of drop-ins has an empty file of a sweep too; going on with a sweep would be bad advice."""
    dropins = synthetic.write(tmp_path / "dropins", [], cases=5)
    (dropins / "dropin.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(ReportsError, match=r"holds variants inside a model, and no record of a sweep; name a folder"):
        load_runs([dropins])
    tasks = synthetic.write(tmp_path / "tasks", [], cases=5)
    (tasks / "results.jsonl").rename(tasks / "tasks.jsonl")
    with pytest.raises(ResultsError, match=r"holds trained tasks, and has no results.jsonl; name a folder that"):
        load_runs([tasks])


def test_unusable_output_folder(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep()[:9])
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(ReportsError, match="is a file, not a folder; choose another --out"):
        write([run], tmp_path / "taken")
    with pytest.raises(ReportsError, match="choose another --out"):
        write([run], tmp_path / "taken" / "below")


def test_a_report_is_replaced_and_leaves_no_stale_figure(tmp_path: Path) -> None:
    full = write([synthetic.write(tmp_path / "a", synthetic.sweep())], tmp_path / "out")
    few = write([synthetic.write(tmp_path / "b", [synthetic.record("sdpa", 256, time_s=0.1)])], tmp_path / "out")
    left = sorted(path for path in (few.folder / "figures").iterdir())
    assert left == sorted(few.figures)
    assert len(left) < len(full.figures)


def test_unlike_machines_are_told_and_not_mixed(tmp_path: Path) -> None:
    base = {"baseline": "sdpa", "base_s": 0.1}
    first = [synthetic.timed("sdpa", n, 0.1, **base, machine="aaaa" * 4) for n in (256, 512)]
    second = [synthetic.timed("sdpa", n, 0.3, **base, machine="bbbb" * 4) for n in (256, 512)]
    runs = [
        synthetic.write(tmp_path / "one", first, fingerprint="aaaa" * 4),
        synthetic.write(tmp_path / "two", second, fingerprint="bbbb" * 4),
    ]
    report = write(runs)
    assert any("2 unlike machines" in warning for warning in report.warnings)
    text = Page(report.html.read_text(encoding="utf-8")).text
    assert text.count("machine aaaaaaaa") >= 1
    assert "run one" in report.sentences[0] or "run two" in report.sentences[0]
    assert report.html.read_text(encoding="utf-8").count('<details class="setting"') == 2


def test_an_unsteady_machine_is_told(tmp_path: Path) -> None:
    calm = [synthetic.timed("sdpa", n, 0.1, baseline="sdpa", base_s=0.1) for n in range(100, 110)]
    wild = [synthetic.timed("naive", n, 0.1, baseline="sdpa", base_s=0.1, time_s_high=0.2) for n in (100, 101)]
    assert write([synthetic.write(tmp_path / "calm", calm)]).warnings == []
    (warning,) = write([synthetic.write(tmp_path / "wild", calm + wild)]).warnings
    assert "in 2 of 12 timed cases the 95 % interval reaches more than 10 % from the median" in warning


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep()[:12])
    report = write([run, run / ".." / "run"])
    assert "2 unlike" not in " ".join(report.warnings)
    assert report.html.read_text(encoding="utf-8").count("<h3>Run ") == 1


# -- what it is made of ---------------------------------------------------------------------------------------------


def test_it_is_made_without_torch_and_variants(tmp_path: Path) -> None:
    run = synthetic.write(tmp_path / "run", synthetic.sweep()[:44])
    code = f"""
import sys
for name in ("torch", "attnbench.variants", "attnbench.bench"):
    sys.modules[name] = None
from attnbench.reports.report import write
print(write([{str(run)!r}]).html)
loaded = [name for name, module in sys.modules.items() if module is not None]
assert not [name for name in loaded if name.split(".")[0] == "torch"], "torch came in"
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_file()


def test_reports_import_results_only() -> None:
    folder = Path(attnbench.__path__[0]) / "reports"
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 8
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = node.level > 1
                assert not above or (node.module or "").split(".")[0] == "results", f"{file.name}: {ast.unparse(node)}"
                names = [] if node.level else [node.module or ""]
            assert not {name.split(".")[0] for name in names} & {"torch", "attnbench"}, f"{file.name}: {names}"
