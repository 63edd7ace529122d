"""How much others use the shared cache, read by an instrument."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnbench.bench import shared_cache, timing
from attnbench.bench.shared_cache import FURTHER, TABLE_BYTES, SharedCache


class Passes:
    """A clock, and a table whose readings take as told."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.left = 0.0, list(seconds)

    def max(self) -> None:
        self.now += self.left.pop(0)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("later", "read"),
    [
        ([(1.0, 1.2)], 1.1),
        ([(9.0, 1.1), (1.0, 1.0), (1.1, 1.1)], 1.1),  # one that was interrupted
        ([(1.5, 1.5), (1.8, 1.8), (1.1, 1.1)], 1.5),
    ],
)
def test_a_reading_is_the_later_passes_over_the_quickest_at_once(
    monkeypatch: pytest.MonkeyPatch, later: list[tuple[float, float]], read: float
) -> None:
    parts = [[9.0, 5.0, 2.0, 1.0, first, 3.0, 1.5, second] for first, second in later]  # two fills, then twice three
    passes = Passes(*(seconds for part in parts for seconds in part))
    monkeypatch.setattr(shared_cache, "time", passes)
    cache = SharedCache()
    cache.table = passes  # type: ignore[assignment]
    assert cache.read() == pytest.approx(read)
    assert passes.left == []
    assert passes.now == pytest.approx(sum(map(sum, parts)) + 2 * len(parts) * shared_cache.REUSE_S)
    assert len(later) in (1, 1 + FURTHER)


def test_others_who_are_expected_need_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SharedCache()
    readings = iter([1.5, 1.4, 1.0, 1.5, 1.4, 1.6])
    monkeypatch.setattr(cache, "_one", lambda: next(readings))
    assert [cache.read(), cache.read(expected=True), cache.read(expected=True)] == [1.4, 1.5, 1.4]
    assert list(readings) == [1.6]


def test_it_is_read_after_a_turn_where_asked_for_and_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    watch = timing.Stopwatch(lambda: calls.append("call"), "cpu")
    monkeypatch.setattr(SharedCache, "read", lambda self, expected: calls.append("read") or 1.5)  # type: ignore[func-returns-value]
    watch.sample()
    assert (set(calls), watch.eviction, watch.shared_cache) == ({"call"}, None, None)
    watch.sample(cache=True)
    assert (calls.count("read"), calls[-1], watch.eviction) == (1, "read", 1.5)
    watch.sample()
    assert watch.eviction is None


def test_it_reads_a_table_that_is_there() -> None:
    cache = SharedCache()
    assert cache.table.nbytes == TABLE_BYTES
    assert cache.table.min() == 1  # pages of zeros would be one page
    assert cache.read() > 0


@pytest.mark.parametrize(
    ("sizes", "there"),
    [
        (["48K", "1024K", "32768K"], True),
        (["32K", "16M"], True),
        (["32K", "8192K"], False),
        (["odd"], False),
        ([], False),
    ],
)
def test_where_no_cache_has_room_nothing_is_told(tmp_path: Path, sizes: list[str], there: bool) -> None:
    for index, size in enumerate(sizes):
        home = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        home.mkdir(parents=True)
        (home / "size").write_text(size + "\n")
    assert shared_cache.is_there(tmp_path) is there
