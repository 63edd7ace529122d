"""The first call of a fresh process is as exact as the second: MKL's functions were called before, on one thread."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from attnbench.bench import first_calls, peer
from attnbench.bench.case import Case
from attnbench.bench.process import isolated

PROCESSES = 40
"""Without the calls of `preload`, a tenth of all processes differ: as many miss that twice in a hundred runs."""

NAMES = ("exp", "log", "tanh", "sin", "cos", "erf", "expm1", "log1p")

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


def test_a_process_that_measures_a_revision_makes_them_before_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the revision is: one that lacks them here, and looks at what was called before it was asked."""
    called: list[tuple[str, torch.dtype, int]] = []
    for name in NAMES:
        own = getattr(torch, name)

        def spy(x: torch.Tensor, name: str = name, own: object = own) -> object:
            called.append((name, x.dtype, x.numel()))
            return own(x)  # type: ignore[operator]

        monkeypatch.setattr(torch, name, spy)
    seen: list[set[tuple[str, torch.dtype, int]]] = []

    class Revision:
        family = kind = "none"

        def reasons_against(self, case: SimpleNamespace) -> list[str]:
            seen.append(set(called))
            return ["it is asked no more"]

    api = ModuleType("attnbench_revision.variants.api")
    api.get = lambda spec: Revision()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "attnbench_revision.variants.api", api)
    monkeypatch.setattr(peer, "THEIRS", "attnbench_revision")
    monkeypatch.setattr(peer, "OURS", "attnbench")
    case = Case("any", {}, "forward", True, 1, 1, 1, 8, 8, 8, "float32", "cpu", threads=2, inputs="gaussian", seed=0)
    answer = peer.set_up({}, {"spec": "any", "case": case.identity()})
    assert answer["reasons"] == ["it is asked no more"]
    (before,) = seen
    dtypes = (torch.float32, torch.float64)
    assert before == {(name, dtype, first_calls.LENGTH) for name in NAMES for dtype in dtypes}
