"""The first call of a fresh process is as exact as the second: MKL's functions were called once before its fork."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnbench.bench.process import isolated

PROCESSES = 40
"""Without the calls of `preload`, a tenth of all processes differ: as many miss that twice in a hundred runs."""

FIRST = """
def off(state):
    import torch

    torch.set_num_threads(2)
    x = torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(0)) * 3 - 4
    first, second = x.exp(), x.exp()
    return float(((first - second).abs().max() / second.max()))
"""


def test_the_first_exponentials_of_a_process_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "attnbench_first_call.py").write_text(FIRST, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import attnbench_first_call

    assert [isolated(attnbench_first_call.off) for _ in range(PROCESSES)] == [0.0] * PROCESSES
