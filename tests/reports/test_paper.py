"""Figures for papers: the right points at the right size, in fonts that are embedded, and a sentence where none is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from attnbench.bench.cli import main
from attnbench.bench.cli_plot import FIGURES
from attnbench.reports import plots, plots_over_length
from attnbench.reports.choice import Choice, settings_of
from attnbench.reports.load import load_runs
from attnbench.reports.palette import LIGHT
from attnbench.reports.paper import RC, WIDTHS
from attnbench.reports.plots import KINDS, plot
from attnbench.results.record import Record

from . import synthetic

LENGTHS = (256, 1024, 8192)


def complete(records: list[Record]) -> list[Record]:
    """With the fields that the plots of budget, recall and the roofline need."""
    found = []
    for r in records:
        more: dict[str, Any] = {"recall_32": 1.0, "recall_64": 0.8, "recall_128": 0.5, "recall_256": 0.2}
        if r.status == "ok":
            more |= {"flops_needed": 4 * r.heads * r.n_k**2 * r.head_dim, "tokens_per_s": r.n_k / (r.time_s or 1.0)}
            if r.kind == "approximate" and r.fidelity_error:
                more |= {"fidelity_keys": 128.5, "fidelity_error_window": 0.5, "fidelity_error_oracle": 0.1}
        found.append(r.model_copy(update=more))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = complete([r for r in synthetic.sweep() if r.n_k in LENGTHS])
    for n in (1024, 4096):
        for name, seconds in (("sdpa", 1e-7 * n), ("linear_elu", 2e-4)):
            state = 2048 * n if name == "sdpa" else 70_000
            records.append(
                synthetic.timed(
                    name, n, seconds, baseline="sdpa", base_s=1e-7 * n, mode="decode", n_q=1, state_bytes=state
                )
            )
    return synthetic.write(tmp_path_factory.mktemp("runs") / "one", records)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they are written, to look into."""
    from attnbench.reports import paper

    figures: list[Figure] = []

    def keep(figure: Figure, path: Path, title: str) -> Path:
        figures.append(figure)
        return path

    monkeypatch.setattr(paper, "write_figure", keep)
    return figures


def test_the_command_line_has_every_kind() -> None:
    assert set(FIGURES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(folder: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"{kind}.png"
    done = CliRunner().invoke(main, ["plot", kind, str(folder), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["panels"] >= 1
    with Image.open(out) as image:
        assert image.width == round(WIDTHS["two"] * 300)
        assert len(image.convert("L").getcolors(256) or []) > 20, "something is on it"


def test_lines_are_the_records_times(folder: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    plot("time", [folder], tmp_path / "time.pdf", choice=Choice(mode="forward", causal=True, variants=("sdpa",)))
    (axes,) = drawn[0].axes
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == len(LENGTHS)]
    records = [json.loads(text) for text in (folder / "results.jsonl").read_text("utf-8").splitlines()]
    own = {
        r["n_k"]: r["time_s"] * 1e3
        for r in records
        if (r["variant"], r["mode"], r["causal"]) == ("sdpa", "forward", True)
    }
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == pytest.approx(own)
    assert line.get_color() == LIGHT["full"]


def test_the_roof_is_what_the_ceiling_share_divides_by(folder: Path, tmp_path: Path, drawn: list[Figure]) -> None:
    plot("roofline", [folder], tmp_path / "r.pdf", choice=Choice(mode="forward", causal=True, variants=("sdpa",)))
    roof, spot = drawn[0].axes[0].lines[:2]
    assert max(roof.get_ydata()) == pytest.approx(1.4e11 / 1e9)
    needed = 4 * 4 * 8192**2 * 64
    record = next(r for r in load_runs([folder])[0].records if (r.variant, r.n_k, r.mode) == ("sdpa", 8192, "forward"))
    moved = 64 * (2 * 4 * 8192 + 2 * 4 * 8192) * 4
    assert spot.get_xdata()[0] == pytest.approx(needed / moved)
    assert spot.get_ydata()[0] == pytest.approx(needed / (record.time_s or 1.0) / 1e9)


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        ("time", "one"),
        ("crossovers", "two"),
        ("recall", "one"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("ratio", "one"), ("scaling", "two"), ("time", "two"))
        ),
    ],
)
def test_no_text_lies_on_another_or_off_the_page(
    folder: Path, tmp_path: Path, drawn: list[Figure], kind: str, width: str
) -> None:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    plot(kind, [folder], tmp_path / "f.pdf", width, Choice(causal=True))
    (figure,) = drawn
    with mpl.rc_context(RC):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        texts = list(figure.texts)
        for axes in figure.axes:
            texts += axes.texts
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                texts += [axis.label, *(label for tick in ticks for label in (tick.label1, tick.label2))]
        shown = [text for text in texts if text.get_text() and text.get_visible()]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown]
    page = figure.bbox
    for text, box in boxes:
        assert box.x0 >= -1, f"{text!r} starts left of the page"
        assert box.x1 <= page.width + 1, f"{text!r} ends right of the page"
        assert box.y0 >= -1, f"{text!r} is below the page"
        assert box.y1 <= page.height + 1, f"{text!r} is above the page"
    slack = 0.35 * 6 / 72 * figure.dpi  # of a line's height: boxes hold the room for letters that go below the line
    for i, (text, box) in enumerate(boxes):
        for other, beside in boxes[i + 1 :]:
            across = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            up = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            assert across <= 1 or up <= slack, f"{text!r} lies on {other!r}"


def test_fonts_are_embedded_as_truetype(folder: Path, tmp_path: Path) -> None:
    out = plot("time", [folder], tmp_path / "t.pdf", "one").path.read_bytes()
    assert b"/CIDFontType2" in out
    assert b"/Type3" not in out


def test_the_same_records_give_the_same_file(folder: Path, tmp_path: Path) -> None:
    few = Choice(mode="forward", causal=True)
    for name in ("t.svg", "t.pdf"):
        first, second = (plot("time", [folder], tmp_path / name, choice=few).path.read_bytes() for _ in range(2))
        assert first == second


def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = "$\\frac{<script>alert(1)</script>"
    records = [synthetic.timed(name, n, 1e-3, baseline=name, base_s=1e-3, kind="exact") for n in (256, 512)]
    run = synthetic.write(tmp_path / "run", records)
    text = plot("time", [run], tmp_path / "t.svg").path.read_text("utf-8")
    assert "<script" not in text


def test_more_panels_than_a_figure_holds_are_said_to_be_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = plots_over_length.time(settings_of(load_runs([folder]), Choice(mode="decode")))
    every = plots.Kind("Time", "", "", lambda settings: [one] * 8)
    monkeypatch.setitem(KINDS, "time", every)
    drawn = plot("time", [folder], tmp_path / "s.png")
    assert drawn.panels == 6
    assert "; 2 more panels left out" in drawn.caption


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["time", "--out", "x.gif"], "x.gif must end with .png, .svg, .pdf"),
        (["time", "--width", "three"], "--width is one or two, not 'three'"),
        (["time", "--variants", "nobody"], "there is nothing to draw: no record of these runs"),
        (["decode", "--mode", "train"], "no record that was chosen is of mode decode"),
        (["time", "--out", "/nowhere/at/all.pdf"], "cannot write /nowhere/at/all.pdf"),
    ],
)
def test_a_wrong_request_gets_a_sentence(folder: Path, arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(main, ["plot", arguments[0], str(folder), *arguments[1:]])
    assert done.exit_code == 2
    assert re.sub(r"\s+", " ", sentence) in re.sub(r"\s+", " ", done.output)
