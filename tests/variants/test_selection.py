"""What is chosen, and that every dtype, form and block size chooses the same: `topk`, `dsa` and `reformer`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape, draw, gradients
from attnbench.variants import selection
from attnbench.variants.sparse.reformer import directions

both = pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])
LENGTHS = ((1, 1), (13, 13), (53, 53), (7, 53), (53, 7), (1, 40), (40, 1), (33, 50))


def same(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def chosen(spec: str, q: Tensor, k: Tensor, causal: bool = False, **extras: Tensor) -> Tensor:
    """Mask of the pairs that the definition gives weight to."""
    rows = torch.arange(q.shape[2])
    return attnbench.get(spec).weights(q, k, causal=causal, scale=0.1, rows=rows, **extras) != 0


# -- the order of keys ------------------------------------------------------------------------------------------------


def test_sortable_keeps_the_order_and_breaks_ties_towards_the_earlier() -> None:
    scores = torch.tensor([-math.inf, 1.5, -0.0, 0.0, -2.0, 1.5, 1e-45, -1e-45, 3e38, -3e38, math.inf])
    keys = selection.sortable(scores.clone(), torch.empty(len(scores), dtype=torch.int64))
    assert keys.argsort(descending=True).tolist() == scores.argsort(descending=True, stable=True).tolist()
    assert len(set(keys.tolist())) == len(scores)


def test_of_equal_keys_the_earlier_are_chosen() -> None:
    q, k, v = (x[:, :, :1].expand_as(x) for x in draw(Shape(40, 40, True)))
    v = torch.arange(40.0, dtype=v.dtype)[:, None].expand_as(v)
    for block_size in (1, 8, 64):
        attn = attnbench.get("topk", top_k=4, block_size=block_size)
        same(attn(q, k, v), torch.full_like(v, 1.5))  # the mean of 0, 1, 2, 3
        same(attn(q, k, v, causal=True), (torch.arange(40.0).clamp(max=3) / 2)[:, None].to(v).expand_as(v))


def test_top_one_gives_the_value_of_the_highest_score() -> None:
    q, k, v = draw(Shape(30, 90, False, heads=4, kv_heads=2))
    best = (q @ k.repeat_interleave(2, dim=1).mT).argmax(dim=-1, keepdim=True)
    expected = v.repeat_interleave(2, dim=1).gather(2, best.expand(-1, -1, -1, 8))
    same(attnbench.get("topk", top_k=1)(q, k, v), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", ["topk(top_k=9)", "dsa(top_k=9)"])
def test_every_dtype_chooses_the_same_keys(spec: str, dtype: torch.dtype) -> None:
    """Keys 2j and 2j + 1 score alike but for a rounding of the dtype: sums in it would put half of them wrong."""
    q, k, v = (x.to(dtype) for x in draw(Shape(64, 600, False, batch=1, heads=2, head_dim=64)))
    near = k[:, :, ::2] * (1 + torch.finfo(dtype).eps * (torch.arange(300)[:, None] % 3 - 1))
    k = torch.stack([k[:, :, ::2], near], dim=3).flatten(2, 3).to(dtype)
    extras = attnbench.make_extras(attnbench.get(spec), q, k, v)
    wide = chosen(spec, q.double(), k.double(), **{name: x.double() for name, x in extras.items()})
    narrow = chosen(spec, q, k, **extras)
    # a weight may vanish in a narrow dtype, but no other key may take its place
    assert not (narrow & ~wide).any()
    attn = attnbench.get(spec)
    error = (attn(q, k, v, **extras).double() - attn.definition(q, k, v, **extras)).abs().max()
    assert error < 8 * torch.finfo(dtype).eps * v.abs().max()


@both
@pytest.mark.parametrize("spec", ["topk(top_k=5, block_size=7)", "dsa(top_k=5, block_size=7)"])
def test_gathered_and_masked_blocks_are_the_same(spec: str, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    attn = attnbench.get(spec)
    inputs = draw(Shape(90, 97, causal, heads=4, kv_heads=2, value_dim=5))
    extras = attnbench.make_extras(attn, *inputs)
    found = []
    for gather_from, gathered in ((10**9, 1), (1, 1), (1, 1 << 20)):
        monkeypatch.setattr(selection, "GATHER_FROM", gather_from)
        monkeypatch.setattr(selection, "GATHERED", {"cpu": gathered})
        grads = gradients(lambda *x, **e: attn(*x, causal=causal, **e), inputs, extras)
        parts = [attn(*inputs, causal=causal, **extras), *(grads[name] for name in "qkv")]
        found.append(torch.cat([x.flatten() for x in parts]))
    same(found[1], found[0])
    same(found[2], found[0])


@both
@pytest.mark.parametrize("name", ["topk", "dsa"])
@pytest.mark.parametrize("top_k", [1, 9, 60])
def test_counts_of_chosen_pairs(name: str, top_k: int, causal: bool) -> None:
    attn = attnbench.get(name, top_k=top_k)
    for n_q, n_k in LENGTHS:
        q, k, v = draw(Shape(n_q, n_k, causal, batch=1, heads=1, kv_heads=1))
        extras = attnbench.make_extras(attn, q, k, v)
        pairs = int(chosen(attn.spec, q, k, causal, **extras).sum())
        assert pairs == attn.visible_pairs(n_q, n_k, causal), (n_q, n_k)


# -- the indexer --------------------------------------------------------------------------------------------------


@both
def test_dsa_whose_indexer_is_a_heads_own_score_is_topk(causal: bool) -> None:
    """ReLU(x) - ReLU(-x) = x."""
    q, k, v = draw(Shape(70, 70, causal, heads=1, kv_heads=1))
    indexer = {"q_idx": torch.cat([q, -q], dim=1), "k_idx": k[:, 0], "w_idx": torch.ones(2, 2, 70).double()}
    indexer["w_idx"][:, 1] = -1
    attn = attnbench.get("dsa", top_k=6, num_indexers=2, index_dim=8)
    same(attn(q, k, v, causal=causal, **indexer), attnbench.get("topk", top_k=6)(q, k, v, causal=causal))


def test_a_drawn_indexer_finds_more_of_the_attention_than_chance_and_less_than_the_best() -> None:
    q, k, v = draw(Shape(256, 256, False, batch=1, heads=4, kv_heads=2, head_dim=32))
    # keys of low rank, as real ones are: Gaussian ones of 2 x 32 dimensions leave little to find in 16
    k = (k[..., :4] @ torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).double()) / 2
    attention = (q @ k.repeat_interleave(2, dim=1).mT * 32**-0.5).softmax(dim=-1).mean(dim=1)  # (B, Nq, Nk)
    attn = attnbench.get("dsa", top_k=32, num_indexers=4, index_dim=16)
    mask = chosen(attn.spec, q, k.repeat_interleave(2, dim=1), **attnbench.make_extras(attn, q, k, v))[:, 0]
    found = float((attention * mask).sum(dim=-1).mean())
    most = float(attention.topk(32, dim=-1).values.sum(dim=-1).mean())
    assert 0.7 * most < found < most
    assert most > 2 * 32 / 256, "nothing to find"


def test_an_indexer_that_reads_all_axes_scores_the_heads_it_speaks_for() -> None:
    from attnbench.variants.sparse import dsa

    q, k, v = draw(Shape(20, 30, False, heads=4, kv_heads=2))
    generator = torch.Generator().manual_seed(0)
    k_idx = dsa.draw_keys(generator, (2, 30, 16), q, k, v)
    mean = torch.zeros(2, 2, 20, 30).double()
    for _ in range(400):
        mean += dsa.draw_queries(generator, (2, 2, 20, 16), q, k, v) @ k_idx[:, None].mT / 400
    scores = (q @ k.repeat_interleave(2, dim=1).mT).unflatten(1, (2, 2)).sum(dim=2)
    assert float((mean - scores).norm() / scores.norm()) < 3 * dsa.DRAWN_NOISE / 400**0.5


# -- buckets ----------------------------------------------------------------------------------------------------------


def test_chunks_of_one_bucket_look_back_on_one_and_never_wrap() -> None:
    q, k, _ = draw(Shape(12, 12, False, batch=1, heads=1, kv_heads=1))
    chunk = torch.arange(12) // 4
    back = chunk[:, None] - chunk[None]
    self_ = torch.eye(12, dtype=torch.bool)
    expected = ((back == 0) | (back == 1)) & ~self_
    assert torch.equal(chosen("reformer(num_buckets=1, chunk_size=4)", q, k)[0, 0], expected)
    causal = expected.tril()
    causal[0, 0] = True  # it sees nothing else
    assert torch.equal(chosen("reformer(num_buckets=1, chunk_size=4)", q, k, causal=True)[0, 0], causal)


@both
def test_a_token_alone_in_its_buckets_sees_itself(causal: bool) -> None:
    q, k, v = draw(Shape(2, 2, causal))
    q[:, :, 1] = -q[:, :, 0]  # opposite vectors never share a bucket
    same(attnbench.get("reformer")(q, k, v, causal=causal), v)
    same(attnbench.get("reformer").definition(q, k, v, causal=causal), v)


@both
def test_reformer_in_one_chunk_is_attention_over_all_that_share_a_bucket_in_any_round(causal: bool) -> None:
    q, k, v = draw(Shape(50, 50, causal))
    attn = attnbench.get("reformer", num_buckets=4, num_rounds=3, chunk_size=50)
    buckets = []
    for r in directions(3, 8, 4, 0, torch.device("cpu")):
        buckets.append(torch.cat([q @ r, -q @ r], dim=-1).argmax(dim=-1))
    met = torch.stack([b[..., :, None] == b[..., None, :] for b in buckets]).any(dim=0)
    met &= ~torch.eye(50, dtype=torch.bool)
    if causal:
        met &= torch.ones(50, 50, dtype=torch.bool).tril()
    scores = 8**-0.5 * q @ (q / q.norm(dim=-1, keepdim=True)).mT
    weights = scores.masked_fill(~met, -math.inf).softmax(dim=-1)
    expected = torch.where(met.any(dim=-1, keepdim=True), weights.nan_to_num() @ v, v)
    same(attn(q, k, v, causal=causal), expected)


def test_reformer_does_not_read_k() -> None:
    q, k, v = draw(Shape(70, 70, True))
    attn = attnbench.get("reformer", chunk_size=8)
    assert torch.equal(attn(q, k, v), attn(q, torch.full_like(k, math.nan), v))
    assert not gradients(attn, (q, k, v), {})["k"].any()


@pytest.mark.parametrize("wrong", [0, 3, -2])
def test_buckets_come_in_pairs(wrong: int) -> None:
    with pytest.raises(attnbench.variants.api.VariantError, match="num_buckets"):
        attnbench.get("reformer", num_buckets=wrong)


def test_reformer_survives_scores_that_no_exponential_reaches() -> None:
    """Visible keys far below the window's highest score still share the weight among themselves."""
    q, k, v = draw(Shape(90, 90, True))
    attn = attnbench.get("reformer", chunk_size=8, num_buckets=4)
    same(attn(3e3 * q, k, v, causal=True), attn.definition(3e3 * q, k, v, causal=True), 1e-9)


@pytest.mark.public
def test_reformer_agrees_with_a_public_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    """reformer-pytorch with the paper's flags and our directions, not causal: its causal chunks follow the future."""
    port = pytest.importorskip("reformer_pytorch.reformer_pytorch", exc_type=ImportError)
    q, k, v = (x.float() for x in draw(Shape(512, 512, False, batch=1, head_dim=16, value_dim=16)))
    r = directions(4, 16, 16, 0, torch.device("cpu"))  # (rounds, D, b / 2)
    layer = port.LSHAttention(bucket_size=32, n_hashes=4, allow_duplicate_attention=False, attend_across_buckets=False)
    monkeypatch.setattr(port.torch, "randn", lambda *shape, **kwargs: r.transpose(0, 1)[None].float())
    out = layer(q[0], v[0])[0]
    monkeypatch.undo()
    same(attnbench.get("reformer", chunk_size=32, num_rounds=4, num_buckets=16)(q, k, v)[0], out, 1e-5)
