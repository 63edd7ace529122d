"""Opens reports in headless Chromium; everything here is left out where there is none, or no Playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..reports import synthetic, synthetic_beside

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
if os.geteuid() == 0:
    FLAGS.append("--no-sandbox")  # root may not have one

Opened = Callable[..., Any]


def until(page: Any, condition: str, patience_s: float = 10) -> None:
    """Waits until an expression of the page is true. Playwright's own wait_for_function compiles the expression in the
    page once it has to ask twice, and the page's content policy rightly forbids that."""
    give_up = time.monotonic() + patience_s
    while not page.evaluate(condition):
        assert time.monotonic() < give_up, f"never true: {condition}"
        page.wait_for_timeout(20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests: each opens a context of its own, with nothing left of the one before."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="make test-browser installs Playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium to open the page with; on Debian and Ubuntu: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Opens a page file and waits until all is drawn. At the end nothing was fetched and nothing was complained of."""
    contexts, requests, complaints = [], [], []

    def open_page(path: Path, address: str = "", width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.resolve().as_uri() + address)
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == len(contexts), "the page fetched another file"
    assert complaints == []


@pytest.fixture(scope="session")
def report(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep with decoding and budgets, of trained tasks, of variants inside a model and of claims."""
    from attnbench.reports.report import write

    folder = tmp_path_factory.mktemp("runs")
    records = synthetic.sweep() + synthetic.decoded() + synthetic.budgets()
    sweep = synthetic.write(folder / "sweep", records)
    tops = (("sdpa", 0.99), ("linear_elu", 0.6), ("performer", 0.4))
    tasks = [synthetic.task(name, seed=seed, top=top - 0.02 * seed) for name, top in tops for seed in (0, 1, 2)]
    beside = [
        synthetic.write_tasks(folder / "tasks", tasks),
        synthetic_beside.write_dropins(folder / "dropin", synthetic_beside.some_dropins()),
        synthetic_beside.write_claims(folder / "claims", synthetic_beside.some_claims()),
    ]
    return write([sweep, *beside]).html
