"""The page in a browser: filters, sorting, hover, keys, search, zoom, addresses, accessibility, hostile names."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from attnbench.results.derived import amdahl
from attnbench.results.statistics import Interval

from ..reports import synthetic
from ..reports.test_report import HOSTILE, hostile_run
from .conftest import Opened, until

AXE = Path(os.environ.get("ATTNBENCH_AXE", f"{sys.prefix}/axe-core/axe.min.js"))
KINDS = """
time memory throughput trade fidelity budget recall exponents memory-exponents crossovers memory-crossovers
naive-crossovers naive-memory-crossovers gain decode state
curves task-state roofline error
""".split()  # noqa: SIM905


def labels(page: Any, kind: str = "time") -> set[str]:
    """The variants that the charts of a kind draw."""
    return set(page.eval_on_selector_all(f"#chart-{kind} .series", "all => all.map((one) => one.dataset.label)"))


def found(page: Any) -> int:
    """How many records the table has."""
    return int(page.inner_text("#found").split()[0].replace(",", ""))


def column(page: Any, number: int) -> list[str]:
    cells = page.eval_on_selector_all(
        f"table.records tbody tr > :nth-child({number})", "all => all.map((c) => c.innerText)"
    )
    return [str(cell) for cell in cells]


def test_every_kind_of_chart_is_drawn(opened: Opened, report: Path) -> None:
    page = opened(report)
    shown = page.eval_on_selector_all("section.kind:not([hidden])", "all => all.map((one) => one.id.slice(6))")
    assert shown == KINDS
    for kind in KINDS:
        assert page.locator(f"#chart-{kind} svg .sign").count() > 1, kind
    assert page.locator("svg [d*=NaN], svg [transform*=NaN], svg [y*=NaN], svg [x*=NaN]").count() == 0
    assert int(page.evaluate("document.documentElement.dataset.firstChartMs")) > 0


def test_filters_hold_for_charts_and_table_and_stand_in_the_address(opened: Opened, report: Path) -> None:
    page = opened(report)
    assert {"sdpa", "linear_elu"} <= labels(page)
    everything = found(page)
    page.check("input[name=family][value=linear]")
    until(page, "!document.querySelector('#chart-time [data-label=sdpa]')")
    assert labels(page) == {"linear_elu", "performer", "nystrom"}
    assert 0 < found(page) < everything
    assert "family=linear" in page.url
    page.check("input[name=mode][value=train]")
    until(page, "document.querySelectorAll('#chart-time figure').length === 1")
    assert set(column(page, 3)) == {"train"}
    other = opened(report, page.url[page.url.index("#") :])  # whoever is sent the address sees the same
    assert other.is_checked("input[name=family][value=linear]")
    assert labels(other) == labels(page)
    assert found(other) == found(page)
    page.click("#reset")
    until(page, "document.querySelector('#chart-time [data-label=sdpa]')")
    assert found(page) == everything


def test_table_sorts_both_ways_with_empty_cells_last(opened: Opened, report: Path) -> None:
    page = opened(report)
    head = [text.split()[0] for text in page.locator("table.records thead th").all_inner_texts()]
    place = head.index("time_s") + 1
    page.click("table.records button[data-sort=time_s]")
    up = [float(text) for text in column(page, place)]
    assert up == sorted(up)
    assert page.get_attribute("table.records th:has(button[data-sort=time_s])", "aria-sort") == "ascending"
    page.click("table.records button[data-sort=time_s]")
    down = [float(text) for text in column(page, place)]
    assert down == sorted(down, reverse=True)
    assert down[0] > up[-1]
    page.click("#pages button:has-text('Last')")
    assert column(page, place)[-1] == ""


def test_search_pages_and_one_record(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.fill("#search", "sink_window train 2048")
    assert found(page) == 1
    assert "q=sink_window" in page.url
    page.click("table.records tbody a")
    assert "record=1-" in page.url
    text = page.inner_text("#record")
    assert "sink_window" in text
    assert "window_size=512" in text
    page.fill("#search", "no such thing")
    assert found(page) == 0


def test_evidence_leads_to_its_record(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.click(".answer > li:first-child summary")
    page.click(".answer > li:first-child tbody a")
    assert page.is_visible("#record")
    assert "sdpa" in page.inner_text("#record")
    assert page.evaluate("document.activeElement.textContent").startswith("Record ")
    again = opened(report, page.url[page.url.index("#") :])
    assert again.inner_text("#record") == page.inner_text("#record")


def test_hover_tells_and_points_out_in_all_charts(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.locator("#plot-time-1").scroll_into_view_if_needed()
    page.locator("#plot-time-1 [data-label=naive] .sign").last.hover()
    tip = page.inner_text(".tip")
    assert tip.startswith("naive")
    assert "8,192" in tip
    assert "over sdpa" in tip
    dimmed = "document.querySelector('#chart-memory [data-label=sdpa]').classList.contains('dim')"
    assert page.evaluate(dimmed)
    page.mouse.move(2, 2)
    assert page.is_hidden(".tip")
    assert not page.evaluate(dimmed)
    page.locator("#plot-time-1 [data-label=naive] .sign").last.click()
    assert "pin=naive" in page.url
    page.mouse.move(2, 2)
    assert page.evaluate(dimmed)  # a pinned variant stays pointed out


def test_keys_step_through_points_and_lead_to_the_record(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.focus("#plot-time-1")
    page.keyboard.press("ArrowRight")
    first = page.inner_text("#chart-time .readout >> nth=0")
    page.keyboard.press("ArrowRight")
    second = page.inner_text("#chart-time .readout >> nth=0")
    assert first != second
    assert "length 512" in second
    page.keyboard.press("Enter")
    assert page.is_visible("#record")


def test_pulling_along_lengths_zooms_all_charts_and_the_table(opened: Opened, report: Path) -> None:
    page = opened(report)
    place = page.locator("#plot-time-1")
    place.scroll_into_view_if_needed()
    marks = page.locator("#plot-time-1 [data-label=naive] .sign")
    ends = [marks.nth(number).bounding_box() for number in (2, 4)]
    box = place.bounding_box()
    page.mouse.move(ends[0]["x"] - 12, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(ends[1]["x"] + 14, box["y"] + 206, steps=4)
    page.mouse.up()
    until(page, "location.hash.includes('n=1024-4096')")
    until(page, "document.querySelectorAll('#plot-memory-1 [data-label=naive] .sign').length === 3")
    assert {int(text) for text in column(page, 5)} <= {1024, 2048, 4096}
    place.dblclick(position={"x": 120, "y": 30})
    until(page, "!location.hash.includes('n=')")


def test_records_are_saved_and_copied(opened: Opened, report: Path, tmp_path: Path) -> None:
    page = opened(report, "#family=linear&q=decode", permissions=["clipboard-read", "clipboard-write"])
    with page.expect_download() as saved:
        page.click("#save")
    saved.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {r.case_id: r for r in synthetic.decoded() if r.family == "linear"}
    assert {row["case_id"] for row in rows} == set(wanted)
    for row in rows:
        assert float(row["time_s"]) == pytest.approx(wanted[row["case_id"]].time_s, rel=1e-5)
        assert int(row["state_bytes"]) == wanted[row["case_id"]].state_bytes
    page.click("#copy")
    until(page, "document.getElementById('found').textContent.includes('copied')")
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(lines) == 1 + len(wanted)


def test_time_as_a_ratio(opened: Opened, report: Path) -> None:
    page = opened(report)
    page.select_option("#axis", "ratio")
    until(page, "document.querySelector('#plot-time-1').textContent.includes('the fastest exact')")
    assert "y=ratio" in page.url


def test_the_gain_of_a_whole_model_follows_the_chosen_share(opened: Opened, report: Path) -> None:
    page = opened(report)
    assert page.inner_text("#chart-gain output") == "50 %"
    page.focus("#share-of-attention")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert "share=70" in page.url
    assert page.inner_text("#chart-gain output") == "70 %"
    assert "at most 3.33" in page.locator("#plot-gain-1").text_content()
    wanted = {
        r.variant: r for r in synthetic.sweep() if (r.mode, r.causal, r.n_k) == ("forward", True, 8192) and r.ratio
    }
    page.locator("#plot-gain-1 [data-label=performer] .sign").hover()
    told = page.inner_text(".tip")
    of = wanted["performer"]
    assert of.ratio is not None
    assert of.ratio_low is not None
    assert of.ratio_high is not None
    gain = amdahl(Interval(of.ratio, of.ratio_low, of.ratio_high), 0.7)
    assert f"{gain.value:.2f} times as fast ({gain.low:.2f} to {gain.high:.2f})" in told
    again = opened(report, page.url[page.url.index("#") :])
    assert again.input_value("#share-of-attention") == "70"
    assert again.locator("#plot-gain-1").text_content() == page.locator("#plot-gain-1").text_content()
    again.click("#reset")
    until(again, "document.querySelector('#chart-gain output').textContent === '50 %'")
    assert "share" not in again.url
    for nonsense in ("0", "100", "-3", "x", "1e99", "<b>"):
        odd = opened(report, f"#share={nonsense}")
        assert odd.inner_text("#chart-gain output") == "50 %"


def test_a_claim_in_the_table_leads_to_what_it_says(opened: Opened, report: Path) -> None:
    page = opened(report)
    assert page.locator("#claims dd").first.is_hidden()
    page.click("#claims table a:has-text('slow_features')")
    assert page.is_visible("#claims dd:has-text('the range over 4 seeds')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_bars_anyone(opened: Opened, report: Path, width: int, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip(f"no {AXE}: make test-browser fetches it")
    page = opened(report, width=width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => one.setAttribute('open', ''))")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    seen = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert len(seen["passes"]) > 20
    told = [f"{v['id']}: {v['help']}: {[n['html'][:200] for n in v['nodes'][:4]]}" for v in seen["violations"]]
    assert told == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing reaches past a phone's edge


def test_hostile_names_and_addresses_stay_text(opened: Opened, tmp_path: Path) -> None:
    from attnbench.reports.report import write

    turned = "\u202egnol" + "x" * 3000
    records = [synthetic.timed(turned, n, 0.05, baseline=turned, base_s=0.1, kind="exact") for n in (256, 512)]
    formula = '=HYPERLINK("http://x")'
    records += [synthetic.timed(formula, n, 0.2, baseline=turned, base_s=0.1, kind="own") for n in (256, 512)]
    runs = [hostile_run(tmp_path / "one"), synthetic.write(tmp_path / "two", records)]
    html = write(runs, tmp_path / "report").html
    page = opened(
        html, "#pin=<img src=x onerror=alert(1)>&q=<b>&at=<i>&sort=__proto__&record=constructor&family=</script>"
    )
    page.evaluate("location.hash = ''")
    until(page, "document.querySelectorAll('table.records tbody tr').length > 3")
    assert HOSTILE in page.inner_text("#table")
    assert page.locator("main img, main b:has-text('note'), main i").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    names = page.locator("#chart-time .end .name").all_text_contents()
    assert any(HOSTILE[:6] in name for name in names)
    page.locator("#plot-time-1 .sign").first.hover()
    assert page.locator(".tip script").count() == 0
    with page.expect_download() as saved:
        page.click("#save")
    saved.value.save_as(tmp_path / "saved.csv")
    with (tmp_path / "saved.csv").open(encoding="utf-8-sig", newline="") as file:
        assert f"'{formula}" in {row["variant"] for row in csv.DictReader(file)}


def test_ten_thousand_records(opened: Opened, tmp_path: Path) -> None:
    from attnbench.reports.report import write

    records = synthetic.many(10_000)
    assert len(records) == 10_000
    html = write([synthetic.write(tmp_path / "run", records)]).html
    assert html.stat().st_size < 6_000_000
    page = opened(html)
    assert found(page) == 10_000
    assert page.locator("table.records tbody tr").count() == 50
    assert page.evaluate("performance.getEntriesByName('attnbench-first-chart').length") == 1
    page.fill("#search", "performer")
    assert found(page) == sum(record.variant == "performer" for record in records)


def test_without_scripts_the_answer_tables_and_figures_are_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.resolve().as_uri())
    assert page.locator(".answer .said").count() == 4
    assert page.is_visible("#tables table")
    assert page.locator("noscript img").count() == 3
    assert page.is_hidden("#compare")
    context.close()
