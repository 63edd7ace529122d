"""Which keys the patterned variants show: their masks entry by entry, and the paths that the battery cannot force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape, draw, gradients
from attnbench.bench.flops import count
from attnbench.variants import merged
from attnbench.variants.api import Variant, VariantError
from attnbench.variants.sparse.bigbird import BigBird

LENGTHS = ((1, 1), (5, 5), (16, 16), (53, 53), (64, 64), (7, 53), (53, 7), (1, 40), (40, 1), (33, 50), (50, 48))

SPECS = [
    "dilated_window(window_size=4, dilation=3, block_size=2)",
    "dilated_window(window_size=1, dilation=7)",
    "dilated_window(window_size=30, dilation=100)",
    "dilated_window(window_size=3, dilation=11, block_size=1)",
    "longformer(window_size=4, num_globals=3, block_size=2)",
    "longformer(window_size=1, num_globals=7)",
    "longformer(window_size=3, num_globals=0, block_size=7)",
    "longformer(window_size=2, num_globals=30, block_size=8)",
    "longformer(window_size=30, num_globals=100)",
    "strided(stride=1)",
    "strided(stride=4)",
    "strided(stride=7)",
    "strided(stride=52)",
    "strided(stride=100)",
    "bigbird(block_size=4)",
    "bigbird(block_size=1, seed=3)",
    "bigbird(block_size=4, num_global_blocks=0)",
    "bigbird(block_size=4, num_global_blocks=1, num_window_blocks=1)",
    "bigbird(block_size=8, num_random_blocks=0)",
    "bigbird(block_size=3, num_random_blocks=5, num_global_blocks=3, num_window_blocks=5)",
    "bigbird(block_size=2, num_random_blocks=100, num_global_blocks=0)",
]


def cases(attn: Variant) -> list[Shape]:
    sides = [causal for causal, has in ((True, attn.supports.causal), (False, attn.supports.noncausal)) if has]
    lengths = LENGTHS if attn.supports.cross else [(n_q, n_k) for n_q, n_k in LENGTHS if n_q == n_k]
    return [Shape(n_q, n_k, causal, heads=4) for n_q, n_k in lengths for causal in sides]


def mask(attn: Variant, n_q: int, n_k: int, causal: bool, heads: int = 1) -> Tensor:
    ones = torch.ones(1, heads, n_q, 4), torch.ones(1, heads, n_k, 4)
    return attn.weights(*ones, causal=causal, scale=1.0, rows=torch.arange(n_q))[0] > 0


def same_as_definition(attn: Variant, shape: Shape) -> None:
    inputs = draw(shape)
    out = attn(*inputs, causal=shape.causal)
    torch.testing.assert_close(out, attn.definition(*inputs, causal=shape.causal), rtol=0, atol=1e-12)
    fast = gradients(lambda *x: attn(*x, causal=shape.causal), inputs, {})
    plain = gradients(lambda *x: attn.definition(*x, causal=shape.causal), inputs, {})
    for name, grad in fast.items():
        torch.testing.assert_close(grad, plain[name], rtol=0, atol=1e-11)


@pytest.mark.parametrize("spec", SPECS)
def test_every_pattern_at_awkward_lengths_with_gradients_and_its_count_of_pairs(spec: str) -> None:
    attn = attnbench.get(spec)
    for shape in cases(attn):
        same_as_definition(attn, shape)
        seen = mask(attn, shape.n_q, shape.n_k, shape.causal, heads=4).sum(dim=(1, 2)).tolist()
        assert seen == [attn.visible_pairs(shape.n_q, shape.n_k, shape.causal)] * 4, shape


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_q", "n_k"), [(30, 30), (11, 30), (30, 11)])
def test_masks_entry_by_entry(n_q: int, n_k: int, causal: bool) -> None:
    shift = n_k - n_q
    dilated = mask(attnbench.get("dilated_window(window_size=3, dilation=4)"), n_q, n_k, causal)
    longformer = mask(attnbench.get("longformer(window_size=3, num_globals=2)"), n_q, n_k, causal)
    strided = mask(attnbench.get("strided(stride=5)"), n_q, n_k, True)
    for i in range(n_q):
        for j in range(n_k):
            back = i + shift - j  # how far the key lies behind the query
            past = back >= 0 or not causal
            assert dilated[0, i, j] == (past and back in (-8, -4, 0, 4, 8))
            is_global = j in (0, 1) or i + shift in (0, 1)
            assert longformer[0, i, j] == (past and (back in (-2, -1, 0, 1, 2) or is_global))
            assert strided[0, i, j] == (back in (0, 1, 2, 3, 4) or (back > 0 and back % 5 == 0))


def test_strided_counts_a_key_once() -> None:
    """With equal scores each row is the plain mean of the values that it sees."""
    n, stride = 47, 6
    v = torch.arange(n, dtype=torch.float64).view(1, 1, n, 1)
    zeros = torch.zeros(1, 1, n, 4, dtype=torch.float64)
    out = attnbench.get("strided", stride=stride)(zeros, zeros, v, causal=True).flatten()
    for i in range(n):
        keys = {j for j in range(i + 1) if i - j < stride} | set(range(i, -1, -stride))
        assert abs(float(out[i]) - sum(keys) / len(keys)) < 1e-12


@pytest.mark.parametrize("tile", [1, 300, 1 << 25])
@pytest.mark.parametrize("stride", [1, 7, 100])
def test_strided_without_a_fused_kernel(stride: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it runs on a GPU: matrix products, tile by tile."""
    monkeypatch.setattr(merged, "FUSED", ())
    monkeypatch.setattr(merged, "TILE", tile)
    attn = attnbench.get("strided", stride=stride)
    for n_q, n_k in ((1, 1), (20, 20), (7, 30), (30, 7)):
        same_as_definition(attn, Shape(n_q, n_k, True, heads=4, value_dim=5))


@pytest.mark.parametrize(
    ("spec", "tokens"),
    [
        ("dilated_window(window_size=4, dilation=3)", 10),
        ("dilated_window(window_size=1, dilation=9)", 1),
        ("longformer(window_size=5, num_globals=3)", 8),
        ("strided(stride=4)", 53),
    ],
)
def test_the_decode_state_holds_what_a_later_token_may_see(spec: str, tokens: int) -> None:
    attn = attnbench.get(spec)
    q, k, v = draw(Shape(53, 53, True))
    whole = attn(q, k, v, causal=True)
    _, state = attn.prefill(q[:, :, :20], k[:, :, :20], v[:, :, :20])
    for t in range(20, 53):
        now = slice(t, t + 1)
        out, state = attn.decode(q[:, :, now], k[:, :, now], v[:, :, now], state)
        torch.testing.assert_close(out, whole[:, :, now], rtol=0, atol=1e-12)
    assert state["k"].shape[2] == tokens
    if tokens < 53:
        assert state["k"].untyped_storage().nbytes() == 2 * 2 * tokens * 8 * 8, "holds more memory than it shows"


@pytest.mark.parametrize("n", [48, 50, 200, 203])
@pytest.mark.parametrize("num_global_blocks", [0, 1, 2, 3])
def test_bigbird_draws_its_random_blocks_outside_of_window_and_global_ones(n: int, num_global_blocks: int) -> None:
    attn = BigBird(block_size=4, num_global_blocks=num_global_blocks)
    blocks = -(-n // 4)
    front, back = attn.global_blocks(blocks)
    assert front + back == num_global_blocks
    for head in attn.random_blocks(n, 3).tolist():
        for row, drawn in enumerate(head):
            if row < front or row >= blocks - back:
                assert drawn == [-1, -1, -1]
                continue
            others = set(range(front, min(blocks - back, n // 4))) - {row - 1, row, row + 1}
            assert len(others) >= 3
            assert len(set(drawn)) == 3
            assert set(drawn) <= others


def test_bigbird_of_a_short_text_sees_the_blocks_that_there_are_and_no_others() -> None:
    attn = BigBird(block_size=4, num_random_blocks=3)
    assert attn.visible_pairs(28, 28, False) == 28 * 28  # 7 blocks: 2 global, at most 3 of window, at least 2 left
    plan = attn.random_blocks(28, 1)[0]
    assert [sum(block >= 0 for block in row) for row in plan.tolist()] == [0, 3, 2, 2, 2, 3, 0]
    assert 0 < attn.visible_pairs(40, 40, False) < 40 * 40


def test_bigbird_draws_uniformly_by_head_and_by_seed() -> None:
    times = torch.zeros(25)
    for seed in range(50):
        plan = BigBird(block_size=4, seed=seed).random_blocks(100, 40)[
            :, 12
        ]  # (40, 3): block 12 of 25, which sees 11-13
        times += plan.flatten().bincount(minlength=25)
    assert times[[0, 11, 12, 13, 24]].sum() == 0
    free = times[times > 0]
    assert len(free) == 20
    expected = 50 * 40 * 3 / 20  # a count's variance is 2000 · 0.15 · 0.85
    assert float((free - expected).abs().max()) < 4 * (2000 * 0.15 * 0.85) ** 0.5
    one, other = BigBird(seed=0).random_blocks(4096, 2), BigBird(seed=1).random_blocks(4096, 2)
    assert not one.equal(other)
    assert not one[0].equal(one[1])
    assert one.equal(BigBird(seed=0).random_blocks(4096, 2))


def test_bigbird_draws_for_a_million_tokens_without_an_entry_for_each_pair_of_blocks() -> None:
    plan = BigBird().random_blocks(1 << 20, 1)
    assert plan.shape == (1, 1 << 14, 3)
    assert int(plan[:, 1:-1].min()) > 0


@pytest.mark.parametrize("name", ["dilated_window", "longformer", "strided", "bigbird"])
def test_the_work_at_default_sizes_is_near_what_is_needed(name: str) -> None:
    """At N = 4096: within a factor of 2 of the pairs seen (blocks are wider than bands), so nothing runs densely."""
    attn = attnbench.get(name)
    shape = Shape(4096, 4096, attn.supports.causal, "float32", batch=1, heads=1, kv_heads=1)
    inputs = draw(shape)
    done = count(lambda: attn(*inputs, causal=shape.causal))
    assert attn.flops_needed(shape) <= done < 2 * attn.flops_needed(shape)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("bigbird(num_window_blocks=4)", "odd"),
        ("bigbird(num_random_blocks=-1)", "num_random_blocks"),
        ("bigbird(seed=-1)", "seed"),
        ("dilated_window(dilation=0)", "dilation"),
        ("longformer(num_globals=-1)", "num_globals"),
        ("strided(stride=0)", "stride"),
    ],
)
def test_parameters_that_cannot_be(spec: str, word: str) -> None:
    with pytest.raises(VariantError, match=word):
        attnbench.get(spec)


def test_grouped_heads_and_values_of_another_width() -> None:
    for spec in ("bigbird(block_size=4)", "strided(stride=4)", "dilated_window(window_size=3)"):
        attn = attnbench.get(spec)
        same_as_definition(attn, Shape(37, 37, attn.supports.causal, heads=6, kv_heads=2, head_dim=7, value_dim=5))
