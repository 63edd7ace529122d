"""What a sparse variant keeps of softmax attention, beside a window and the oracle of the same size."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import attnbench
from attnbench.bench import fidelity_nulls
from attnbench.bench.contract.sizes import SMALL
from attnbench.bench.distributions import draw
from attnbench.bench.distributions.realise import Drawn
from attnbench.bench.distributions.shape import Shape
from attnbench.bench.fidelity import fidelity, relative_error
from attnbench.bench.fidelity_nulls import Kept, as_fields, chooses_keys, highest, kept, nearest, window_size
from attnbench.variants.api import Variant, VariantError, make_extras

N = 192
CHOOSING = [name for name in attnbench.names() if chooses_keys(attnbench.get(name))]


def inputs(name: str = "structured", n: int = N, causal: bool = True, n_q: int | None = None) -> Drawn:
    return draw(name, Shape(1, 4, 2, n if n_q is None else n_q, n, 16, causal, 0))


def small(name: str) -> Variant:
    attn = attnbench.get(name)
    sizes = {size: value for size, value in SMALL.items() if hasattr(attn, size) and size not in attn.tuning}
    return dataclasses.replace(attn, **sizes)  # type: ignore[type-var]


def measure(attn: Variant, drawn: Drawn, causal: bool = True, rows: torch.Tensor | None = None) -> Kept:
    q, k, v = drawn.q, drawn.k, drawn.v
    rows = torch.arange(q.shape[2]) if rows is None else rows
    return kept(attn, q, k, v, causal=causal, rows=rows, extras=make_extras(attn, q, k, v))


def test_which_variants_choose() -> None:
    assert {"sliding_window", "topk", "moba", "quest", "dsa", "longformer", "bigbird", "block_local"} <= set(CHOOSING)
    assert not {"naive", "sdpa", "performer", "linformer", "nystrom", "delta", "linear_elu"} & set(CHOOSING)
    with pytest.raises(ValueError, match="performer does not choose keys"):
        measure(attnbench.get("performer"), inputs())


@pytest.mark.parametrize("name", ["structured", "local", "topics", "needle", "gaussian"])
@pytest.mark.parametrize("variant", CHOOSING)
def test_nothing_recalls_more_than_the_oracle(variant: str, name: str) -> None:
    attn = small(variant)
    causal = attn.supports.causal
    found = measure(attn, inputs(name, causal=causal), causal)
    assert 0 < found.mass <= found.mass_oracle + 1e-12 <= 1 + 1e-9
    assert found.mass_window <= found.mass_oracle + 1e-12
    assert 1 <= found.keys <= N


def test_a_window_is_the_window_of_its_size() -> None:
    for causal in (True, False):
        attn, drawn = attnbench.get("sliding_window", window_size=20), inputs(causal=causal)
        # without a mask, a window is narrower at the ends, where the null's goes on at the other side
        rows = torch.arange(N) if causal else torch.arange(20, N - 20)
        found = measure(attn, drawn, causal, rows)
        assert found.mass == pytest.approx(found.mass_window, abs=1e-12)
        out = attn.definition(drawn.q, drawn.k, drawn.v, causal=causal, rows=rows)
        error = fidelity(out, drawn.q, drawn.k, drawn.v, causal=causal, rows=rows).error
        assert found.error_window == pytest.approx(error, rel=1e-9)


def test_topk_is_the_oracle_of_its_size() -> None:
    attn, drawn = attnbench.get("topk", top_k=12), inputs()
    found = measure(attn, drawn)
    assert found.keys == pytest.approx(sum(min(12, i + 1) for i in range(N)) / N)
    # it chooses by scores that are rounded to float32
    assert found.mass == pytest.approx(found.mass_oracle, abs=1e-6)
    exact, out = (a.definition(drawn.q, drawn.k, drawn.v, causal=True) for a in (attnbench.get("naive"), attn))
    assert found.error_oracle == pytest.approx(relative_error(out, exact), rel=1e-4)


@pytest.mark.parametrize("variant", ["sink_window", "quest", "moba", "strided", "dsa"])
def test_mass_by_hand(variant: str) -> None:
    attn, drawn = small(variant), inputs("topics")
    q, k, v = drawn.q, drawn.k, drawn.v
    unit = torch.eye(N).expand(1, 2, -1, -1)
    extras = make_extras(attn, q, k, v)
    chosen = attn.definition(q, k, unit, causal=True, **extras) != 0  # type: ignore[arg-type]
    p = attnbench.get("naive").definition(q, k, unit, causal=True)
    found = measure(attn, drawn)
    assert found.mass == pytest.approx(float((p * chosen).sum(-1).mean()), abs=1e-12)
    assert found.keys == pytest.approx(float(chosen.sum(-1).double().mean()))


def test_a_window_recalls_more_of_local_input_than_of_gaussian() -> None:
    attn = attnbench.get("sliding_window", window_size=64)
    local, even = (measure(attn, inputs(name, 1024)).mass for name in ("local", "gaussian"))
    assert local > even + 0.3


def test_a_sink_pays_on_structured_input_and_not_on_local() -> None:
    window, sink = attnbench.get("sliding_window(window_size=64)"), attnbench.get("sink_window(window_size=60)")
    structured, local = inputs("structured", 1024), inputs("local", 1024)
    assert measure(sink, structured).mass > measure(window, structured).mass + 0.2
    assert measure(sink, local).mass < measure(window, local).mass + 0.02


def test_a_budget_of_all_keys_is_softmax() -> None:
    found = measure(attnbench.get("sliding_window", window_size=N), inputs())
    assert found.mass == pytest.approx(1)
    assert found.error_window == found.error_oracle == pytest.approx(0, abs=1e-12)
    assert found.keys == (N + 1) / 2


@pytest.mark.parametrize("n_q", [1, 50, N])
def test_fewer_queries_than_keys(n_q: int) -> None:
    found = measure(attnbench.get("sliding_window", window_size=30), inputs(n_q=n_q))
    assert found.mass == pytest.approx(found.mass_window, abs=1e-12)
    if n_q < N - 30:
        assert found.keys == 30


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(attnbench.get("topk", top_k=12), inputs())
    monkeypatch.setattr(fidelity_nulls, "ENTRIES", 5000)
    parts = measure(attnbench.get("topk", top_k=12), inputs())
    assert dataclasses.astuple(parts) == pytest.approx(dataclasses.astuple(whole), rel=1e-9)


def test_nearest_keys_by_hand() -> None:
    j = torch.arange(9)[None]
    i = torch.arange(9)[:, None]
    for count in range(10):
        wanted = torch.full((1, 1, 9, 1), count)
        both = nearest(wanted, i, j, causal=False)[0, 0]
        for row in range(9):
            places = both[row].nonzero()[:, 0].tolist()
            assert len(places) == count
            due = sorted(range(9), key=lambda key: (abs(key - row), key))[:count]
            assert sorted(abs(key - row) for key in places) == sorted(abs(key - row) for key in due)
        if count <= 5:
            past = nearest(wanted[:, :, 4:], i[4:], j, causal=True)[0, 0]
            assert all(past[row].nonzero()[:, 0].tolist() == list(range(row + 5 - count, row + 5)) for row in range(5))


@pytest.mark.parametrize("causal", [True, False])
def test_the_window_of_as_many_keys_is_found(causal: bool) -> None:
    """By counting what the variant itself keeps, over all queries and over some: no smaller one, as a budget gives."""
    drawn = inputs(n=48)
    for rows in (torch.arange(48), torch.tensor([0, 5, 20, 47])):
        for size in (1, 7, 16, 40):
            keys = measure(attnbench.get("sliding_window", window_size=size), drawn, causal, rows).keys
            assert window_size(keys, rows, 48, causal=causal) == size
    everything = torch.arange(48)
    assert window_size(1000, everything, 48, causal=causal) == 48
    assert window_size(0, everything, 48, causal=causal) == 1


def test_highest_keys_are_those_of_a_stable_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randint(0, 6, (2, 3, 40, 17), generator=generator).double()  # many are equal
    count = torch.randint(0, 18, (2, 3, 40, 1), generator=generator)
    order = p.argsort(dim=-1, descending=True, stable=True)
    sorted_ = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, order, torch.arange(17) < count)
    assert {0, 17} < set(count.flatten().tolist())
    assert torch.equal(highest(count, p), sorted_)
    assert not highest(torch.zeros_like(count), p).any()


def test_highest_keys_by_hand() -> None:
    p = torch.tensor([[[[0.1, 0.4, 0.1, 0.4], [0.7, 0.1, 0.1, 0.1]]]])
    counts = torch.tensor([[[[1], [3]]]])
    assert highest(counts, p).int().tolist() == [[[[0, 1, 0, 0], [1, 1, 1, 0]]]]


def test_a_call_that_is_wrong_is_refused() -> None:
    drawn = inputs()
    with pytest.raises(VariantError, match="takes the extra inputs"):
        kept(small("dsa"), drawn.q, drawn.k, drawn.v, causal=True, rows=torch.arange(4))


def test_fields_carry_the_prefix_of_their_kind() -> None:
    fields = as_fields(Kept(3.0, 0.5, 0.4, 0.6, 1.2, 0.8))
    assert all(name.startswith("fidelity_") for name in fields)
    assert not set(fields) & {"fidelity_error", "fidelity_cosine", "fidelity_error_uniform"}
