"""Methods that choose whole blocks of keys: their choices against loops over their papers' words, ties, and counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape, draw
from attnbench.variants import block_tiles
from attnbench.variants.api import Variant, VariantError, make_extras
from attnbench.variants.chosen_blocks import own_block

MOBA = "moba(block_size=4, num_blocks=3)"
QUEST = "quest(page_size=4, num_pages=3)"
NSA = "nsa(compress_size=6, compress_stride=2, block_size=4, num_selected=5, window_size=3)"
N = 61


def seen_by(attn: Variant, q: Tensor, k: Tensor, **extras: Tensor) -> Tensor:
    """Which keys move each query's output, (B, H, N, N): from the fast form, with values that name their keys."""
    v = torch.eye(k.shape[2], dtype=q.dtype).expand(*k.shape[:2], -1, -1)
    return attn(q, k, v, causal=True, **extras) > 0


def plain_choice(past: list[float], count: int) -> set[int]:
    """The `count` highest, the earlier first among equals."""
    return set(sorted(range(len(past)), key=lambda b: (-past[b], b))[: max(0, count)])


def assert_chosen(seen: Tensor, i: int, block_size: int, chosen: set[int]) -> None:
    own = i // block_size
    due = [j for j in range(seen.shape[0]) if j <= i and j // block_size in chosen | {own}]
    assert seen.nonzero().flatten().tolist() == due, f"query {i} chose other blocks than {sorted(chosen | {own})}"


@pytest.mark.parametrize("spec", [MOBA, QUEST])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_each_head_chooses_by_its_paper(spec: str, dtype: str) -> None:
    attn = attnbench.get(spec)
    q, k, _ = draw(Shape(N, N, True, dtype, heads=4, kv_heads=2))
    seen = seen_by(attn, q, k)
    for b in range(2):
        for h in range(4):
            for i in range(N):
                scores = []
                for start in range(0, i // 4 * 4, 4):
                    x, block = q[b, h, i].double(), k[b, h // 2, start : start + 4].double()
                    if spec == MOBA:
                        scores.append(float(x @ block.mean(dim=0)))
                    else:
                        pairs = zip(x.tolist(), block.amin(dim=0).tolist(), block.amax(dim=0).tolist(), strict=True)
                        scores.append(sum(max(c * low, c * high) for c, low, high in pairs))
                assert_chosen(seen[b, h, i], i, 4, plain_choice(scores, 2))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_nsa_chooses_for_a_group_by_its_paper(dtype: str) -> None:
    attn = attnbench.get(NSA)
    q, k, v = draw(Shape(N, N, True, dtype, heads=4, kv_heads=2))
    gates = torch.tensor([0.0, 1.0, 0.0], dtype=q.dtype).expand(2, 4, N, 3)
    seen = seen_by(attn, q, k, gates=gates)
    assert attn(q, k, v, causal=True, gates=gates).isfinite().all()
    freely = 0
    for b in range(2):
        for g in range(2):
            for i in range(N):
                importance = [0.0] * (i // 4)
                starts = [s for s in range(0, N, 2) if s + 6 <= i + 1]
                for h in (2 * g, 2 * g + 1):
                    means = [k[b, g, s : s + 6].double().mean(dim=0) for s in starts]
                    powers = [math.exp(8**-0.5 * float(q[b, h, i].double() @ mean)) for mean in means]
                    for s, power in zip(starts, powers, strict=True):
                        for stride in (s, s + 2, s + 4):  # a compressed block covers three strides of two keys
                            if stride // 4 < len(importance):
                                importance[stride // 4] += power / sum(powers)
                for forced in {0, i // 4 - 1} & set(range(len(importance))):
                    importance[forced] = math.inf
                chosen = plain_choice(importance, 4)
                freely += len(chosen) < len(importance)
                for h in (2 * g, 2 * g + 1):
                    assert_chosen(seen[b, h, i], i, 4, chosen)
    assert freely > 100, "hardly any query had a choice"


def test_nsa_counts_a_compressed_block_by_the_strides_it_shares() -> None:
    """The paper's sizes, l 32, d 16, l' 64: five compressed blocks reach into a block, with weights 1, 2, 2, 2, 1."""
    attn = attnbench.get("nsa")
    for block in (1, 2):
        weights = [float(attn._importance(row, 4)[block]) for row in torch.eye(14, dtype=torch.float64)]
        assert [w for w in weights if w] == [1, 2, 2, 2, 1]
        assert weights.index(1) == 4 * block - 1


def test_nsa_compressed_branch_sees_only_blocks_that_have_ended() -> None:
    attn = attnbench.get(NSA)
    q, k, v = draw(Shape(N, N, True, heads=2, kv_heads=2))
    gates = torch.tensor([1.0, 0.0, 0.0], dtype=q.dtype).expand(2, 2, N, 3)
    out = attn(q, k, v, causal=True, gates=gates)
    assert out[:, :, :5].count_nonzero() == 0
    torch.testing.assert_close(out[:, :, 5:7], v[:, :, :6].mean(dim=2, keepdim=True).expand(-1, -1, 2, -1))


@pytest.mark.parametrize("spec", [MOBA, QUEST, NSA])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_equal_scores_go_to_the_earlier_block(spec: str, dtype: str) -> None:
    attn = attnbench.get(spec)
    q, k, _ = (x[:, :, :1].expand_as(x) for x in draw(Shape(N, N, True, dtype)))
    extras = {"gates": torch.tensor([0.0, 1.0, 0.0], dtype=q.dtype).expand(2, 2, N, 3)} if spec == NSA else {}
    last = seen_by(attn, q, k, **extras)[:, :, -1]
    first = 2 if spec != NSA else 3
    blocks = [*range(first), *([N // 4 - 1] if spec == NSA else []), N // 4]
    due = torch.tensor([j // 4 in blocks for j in range(N)])
    assert torch.equal(last, due.expand_as(last))


@pytest.mark.parametrize("spec", [MOBA, QUEST, NSA])
def test_how_the_work_is_cut_up_changes_nothing(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attn = attnbench.get(spec)
    inputs = draw(Shape(N, N, True, heads=4, kv_heads=2))
    extras = make_extras(attn, *inputs)

    def results() -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = attn(*leaves, causal=True, **extras)
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    expected = results()
    for tile, tiles, scores, rows in ((1, 1, 1, 1), (3, 1 << 8, 100, 1 << 9), (64, 1 << 20, 1 << 20, 1 << 10)):
        monkeypatch.setattr(block_tiles, "TILE", tile)
        for name, value in (("TILES_AT_ONCE", tiles), ("SCORES_AT_ONCE", scores), ("ROWS_AT_ONCE", rows)):
            monkeypatch.setattr(block_tiles, name, {"cpu": value})
        for got, due in zip(results(), expected, strict=True):
            torch.testing.assert_close(got, due, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [3, 4, 5, 37])
def test_blocks_that_are_all_chosen_are_full(n: int) -> None:
    """Through tiles: `count` says 1, so that no row is known beforehand to see everything."""
    q, k, v = draw(Shape(n, 37, True, heads=4, kv_heads=2))

    def everything(streams: slice, rows: slice, blocks: int) -> Tensor:
        own = own_block(n, 37, rows, 4, q.device)
        return (torch.arange(blocks) < own[:, None]).expand(streams.stop - streams.start, 2, -1, -1)

    out = block_tiles.attend_chosen(q, k, v, everything, choosers=2, block_size=4, count=1, scored=37, scale=8**-0.5)
    due = attnbench.get("naive").definition(q, k, v, causal=True)
    torch.testing.assert_close(out, due, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", [MOBA, QUEST, "moba(block_size=4, num_blocks=1)", "quest(page_size=1, num_pages=5)"])
def test_counts_of_visible_pairs(spec: str) -> None:
    attn = attnbench.get(spec)
    for n_q, n_k in ((1, 1), (5, 5), (16, 16), (53, 53), (7, 53), (53, 7), (1, 40), (40, 1), (33, 50)):
        ones = torch.ones(1, 1, n_q, 4), torch.ones(1, 1, n_k, 4)
        weights = attn.weights(*ones, causal=True, scale=1.0, rows=torch.arange(n_q))
        assert attn.visible_pairs(n_q, n_k, True) == int(weights.count_nonzero()), (n_q, n_k)


def test_counts_of_visible_pairs_of_nsa() -> None:
    attn = attnbench.get(NSA)
    for n in (1, 5, 6, 7, 16, 53):
        compressed = sum(len(range(5, i + 1, 2)) for i in range(n))
        chosen = sum(i % 4 + 1 + 4 * min(4, i // 4) for i in range(n))
        window = sum(min(3, i + 1) for i in range(n))
        assert attn.visible_pairs(n, n, True) == compressed + chosen + window, n


@pytest.mark.parametrize("spec", [MOBA, QUEST, NSA])
def test_decode_state_is_the_cache_and_a_summary(spec: str) -> None:
    attn = attnbench.get(spec)
    q, k, v = draw(Shape(N, N, True))
    extras = make_extras(attn, q, k, v)
    _, state = attn.prefill(q, k, v, **extras)
    more = {name: x for name, x in state.tensors.items() if name not in ("k", "v")}
    due = {MOBA: {"summaries": N // 4}, QUEST: {"summaries": N // 4}, NSA: dict.fromkeys(("pooled_k", "pooled_v"), 28)}
    assert {name: x.shape[2] for name, x in more.items()} == due[spec]


def test_nsa_refuses_strides_that_do_not_divide() -> None:
    for wrong in ("compress_size=30", "block_size=40", "compress_stride=12"):
        with pytest.raises(VariantError, match="compress_stride must divide"):
            attnbench.get(f"nsa({wrong})")
