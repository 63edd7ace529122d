"""What each method becomes where its parameters say so: the identities that its paper, or plain thought, promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Inputs, Shape, draw
from attnbench.bench.contract.sizes import SMALL, shrunk
from attnbench.variants.api import Variant, causal_pairs
from attnbench.variants.linear.performer import projection
from attnbench.variants.registry import variant_class

N = 53
both = pytest.mark.parametrize("causal", [True, False], ids=["causal", "noncausal"])


def inputs(n: int = N, heads: int = 4, kv_heads: int = 2, seed: int = 0) -> Inputs:
    return draw(Shape(n, n, True, heads=heads, kv_heads=kv_heads), seed)


def full(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    return attnbench.get("naive").definition(q, k, v, causal=causal)


def same(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@both
@pytest.mark.parametrize("spec", ["sdpa", "sdpa(backend='math')", "sdpa(backend='flash')", "chunked_exact"])
def test_exact_variants_are_softmax_attention(spec: str, causal: bool) -> None:
    q, k, v = inputs()
    same(attnbench.get(spec)(q, k, v, causal=causal), full(q, k, v, causal))


@both
@pytest.mark.parametrize("chunk_size", [1, 2, 7, N - 1, N, N + 1, 1000])
def test_chunked_exact_is_full_for_every_chunk_size(chunk_size: int, causal: bool) -> None:
    q, k, v = inputs()
    same(attnbench.get("chunked_exact", chunk_size=chunk_size)(q, k, v, causal=causal), full(q, k, v, causal))


@both
def test_chunked_exact_log_sum_exp(causal: bool) -> None:
    q, k, v = draw(Shape(40, 31, causal, heads=2))
    _, lse = attnbench.get("chunked_exact", chunk_size=8).with_lse(q, k, v, causal=causal, scale=0.3)
    scores = 0.3 * q @ k.mT
    if causal:
        scores = scores.masked_fill(torch.ones(40, 31, dtype=torch.bool).triu(31 - 40 + 1), float("-inf"))
    same(lse, scores.logsumexp(dim=-1))


@both
@pytest.mark.parametrize("window_size", [N, N + 1, 4 * N])
def test_sliding_window_of_everything_is_full(window_size: int, causal: bool) -> None:
    q, k, v = inputs()
    attn = attnbench.get("sliding_window", window_size=window_size)
    same(attn(q, k, v, causal=causal), full(q, k, v, causal))


@both
def test_sliding_window_one_short_of_everything_is_not_full(causal: bool) -> None:
    q, k, v = inputs()
    out = attnbench.get("sliding_window", window_size=N - 1)(q, k, v, causal=causal)
    changed = (out - full(q, k, v, causal)).abs().amax(dim=(0, 1, 3)) > 1e-9
    assert changed.nonzero().flatten().tolist() == ([N - 1] if causal else [0, N - 1])


@both
def test_sliding_window_of_one_gives_each_value_back(causal: bool) -> None:
    q, k, v = inputs(kv_heads=4)
    same(attnbench.get("sliding_window", window_size=1)(q, k, v, causal=causal), v)


@both
@pytest.mark.parametrize("block_size", [1, 2, 7, 64])
def test_sliding_window_block_size_changes_nothing(block_size: int, causal: bool) -> None:
    q, k, v = inputs()
    attn = attnbench.get("sliding_window", window_size=9, block_size=block_size)
    same(attn(q, k, v, causal=causal), attn.definition(q, k, v, causal=causal))


@pytest.mark.parametrize(("sinks", "window"), [(4, N - 4), (0, N), (N, 1), (N + 9, 3), (20, N)])
def test_sink_window_that_covers_all_is_full(sinks: int, window: int) -> None:
    q, k, v = inputs()
    attn = attnbench.get("sink_window", num_sinks=sinks, window_size=window)
    same(attn(q, k, v, causal=True), full(q, k, v, True))


@pytest.mark.parametrize("block_size", [1, 5, 64])
def test_sink_window_without_sinks_is_sliding_window(block_size: int) -> None:
    q, k, v = inputs()
    bare = attnbench.get("sink_window", num_sinks=0, window_size=9, block_size=block_size)
    same(bare(q, k, v, causal=True), attnbench.get("sliding_window", window_size=9)(q, k, v, causal=True))


@both
@pytest.mark.parametrize("chunk_size", [N, N + 1, 500])
def test_block_local_of_one_chunk_is_full(chunk_size: int, causal: bool) -> None:
    q, k, v = inputs()
    same(attnbench.get("block_local", chunk_size=chunk_size)(q, k, v, causal=causal), full(q, k, v, causal))


@both
def test_block_local_is_full_attention_on_chunks_as_a_batch(causal: bool) -> None:
    q, k, v = inputs(48, heads=2)
    out = attnbench.get("block_local", chunk_size=12)(q, k, v, causal=causal)
    chunks = [x.unflatten(2, (4, 12)).transpose(1, 2).flatten(0, 1) for x in (q, k, v)]  # (B·4, H, 12, D)
    expected = full(*chunks, causal).unflatten(0, (2, 4)).transpose(1, 2).flatten(2, 3)
    same(out, expected)


@pytest.mark.parametrize("chunk_size", [1, 8, N, 200])
def test_linear_elu_parallel_equals_chunked_equals_recurrent(chunk_size: int) -> None:
    q, k, v = inputs(heads=2)
    attn = attnbench.get("linear_elu", chunk_size=chunk_size)
    fq, fk = torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1
    s, z, rows = torch.zeros(2, 2, 8, 8, dtype=q.dtype), torch.zeros(2, 2, 8, dtype=q.dtype), []
    for t in range(N):  # equations 18 to 20
        s = s + fk[:, :, t, :, None] * v[:, :, t, None, :]
        z = z + fk[:, :, t]
        rows.append((fq[:, :, t, None] @ s).squeeze(2) / (fq[:, :, t] * z).sum(-1, keepdim=True))
    recurrent = torch.stack(rows, dim=2)
    same(attn(q, k, v, causal=True), recurrent)
    same(attn.definition(q, k, v, causal=True), recurrent)


def test_linear_elu_last_row_is_the_same_causal_or_not() -> None:
    q, k, v = inputs()
    attn = attnbench.get("linear_elu", chunk_size=8)
    same(attn(q, k, v, causal=True)[:, :, -1], attn(q, k, v, causal=False)[:, :, -1])


@both
@pytest.mark.parametrize("chunk_size", [1, 7, 200])
def test_performer_chunk_size_changes_nothing(chunk_size: int, causal: bool) -> None:
    q, k, v = inputs()
    attn = attnbench.get("performer", num_features=32, chunk_size=chunk_size)
    same(attn(q, k, v, causal=causal), attn.definition(q, k, v, causal=causal))


def test_performer_features_are_unbiased() -> None:
    """The mean over seeds of phi(q)·phi(k) is exp(scale q·k), within four of its own standard errors."""
    q, k, _ = (x / 2 for x in draw(Shape(6, 6, False, batch=1, heads=1, kv_heads=1)))
    scale, m = 8**-0.5, 20
    estimates = []
    for seed in range(4000):
        attn = attnbench.get("performer", num_features=m, seed=seed)
        a, b = attn._exponents(q, scale), attn._exponents(k, scale)
        estimates.append(a.exp() @ b.exp().mT / m)
    drawn = torch.stack(estimates)
    off = (drawn.mean(dim=0) - (scale * q @ k.mT).exp()).abs() / (drawn.std(dim=0) / 4000**0.5)
    projection.cache_clear()
    assert float(off.max()) < 4


def test_performer_approaches_softmax_as_features_grow() -> None:
    q, k, v = inputs()
    q, k = q / 2, k / 2  # larger norms need many more features than a test can have
    errors = []
    for m in (16, 256, 4096):
        trials = [attnbench.get("performer", num_features=m, seed=seed)(q, k, v, causal=True) for seed in range(4)]
        errors.append(sum(float((out - full(q, k, v, True)).norm()) for out in trials))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


def test_performer_projection_is_orthogonal_in_blocks_and_gaussian_in_its_rows() -> None:
    w = projection(20, 8, 0, torch.float64, torch.device("cpu"))
    for block in w.split(8):
        gram = block @ block.mT
        same(gram, gram.diagonal().diag())
    norms = torch.cat([projection(8, 8, s, torch.float64, torch.device("cpu")).square().sum(-1) for s in range(500)])
    projection.cache_clear()
    assert abs(float(norms.mean()) - 8) < 0.3  # chi squared with 8 degrees of freedom: mean 8, variance 16
    assert abs(float(norms.var()) - 16) < 2.5


def test_performer_does_not_drown_large_norms_in_an_epsilon() -> None:
    """At norm 20, far from any average: the fast form still is the definition."""
    q, k, v = (x.float() for x in inputs())
    q, k = 20 * q / q.norm(dim=-1, keepdim=True), 20 * k / k.norm(dim=-1, keepdim=True)
    attn = attnbench.get("performer", num_features=32, chunk_size=8)
    expected = attn.definition(q, k, v, causal=True)
    same(attn(q, k, v, causal=True).double(), expected, 1e-3)
    mean = v.double().cumsum(dim=2) / torch.arange(1, N + 1)[:, None]
    assert float((expected - mean.repeat_interleave(2, dim=1)).abs().max()) > 0.5


def test_nystrom_with_every_token_a_landmark_is_full_once_the_inverse_converges() -> None:
    q, k, v = inputs(heads=2)
    errors = {
        steps: float(
            (attnbench.get("nystrom", num_landmarks=N, pinv_steps=steps)(q, k, v) - full(q, k, v, False)).norm()
        )
        for steps in (6, 40)
    }
    assert errors[40] < 1e-9 * float(full(q, k, v, False).norm())
    assert errors[6] > 1e3 * errors[40], "six steps do not converge: a form that is exact here takes a short-cut"


def test_nystrom_segments_of_a_length_that_is_no_multiple() -> None:
    x = torch.arange(11.0).view(1, 1, 11, 1)
    means = attnbench.get("nystrom", num_landmarks=4)._landmarks(x).flatten()
    assert means.tolist() == [1.0, 4.0, 7.0, 9.5]  # 0-2, 3-5, 6-8, 9-10


def test_nystrom_heads_do_not_share_the_start_of_the_inverse() -> None:
    q, k, v = inputs(heads=2)
    attn = attnbench.get("nystrom", num_landmarks=16)
    loud = torch.cat([k[:, :1], 30 * k[:, 1:]], dim=1)
    same(attn(q, loud, v)[:, :1], attn(q[:, :1], k[:, :1], v[:, :1]))


@pytest.mark.parametrize("name", ["naive", "sdpa", "chunked_exact", "sliding_window", "block_local"])
def test_counts_of_visible_pairs(name: str) -> None:
    attn = shrunk(variant_class(name))
    for causal in (True, False):
        for n_q, n_k in ((1, 1), (5, 5), (16, 16), (53, 53), (7, 53), (53, 7), (1, 40), (40, 1), (33, 50)):
            assert attn.visible_pairs(n_q, n_k, causal) == _pairs(attn, n_q, n_k, causal), (n_q, n_k, causal)


@pytest.mark.parametrize("sinks", [0, 4, 30])
def test_counts_of_visible_pairs_with_sinks(sinks: int) -> None:
    attn = attnbench.get("sink_window", num_sinks=sinks, window_size=9)
    for n_q, n_k in ((1, 1), (13, 13), (53, 53), (7, 53), (53, 7), (1, 40), (40, 1), (33, 50)):
        assert attn.visible_pairs(n_q, n_k, True) == _pairs(attn, n_q, n_k, True), (n_q, n_k)
    assert causal_pairs(53, 53) > attn.visible_pairs(53, 53, True)


def _pairs(attn: Variant, n_q: int, n_k: int, causal: bool) -> int:
    ones = torch.ones(1, 1, n_q, 4), torch.ones(1, 1, n_k, 4)
    return int(attn.weights(*ones, causal=causal, scale=1.0, rows=torch.arange(n_q)).count_nonzero())


@pytest.mark.parametrize(
    ("spec", "tokens"),
    [
        ("sliding_window(window_size=16)", 16),
        ("sink_window(num_sinks=4, window_size=16)", 20),
        ("block_local(chunk_size=16)", 16),
    ],
)
def test_decode_state_stays_at_its_size(spec: str, tokens: int) -> None:
    attn = attnbench.get(spec)
    q, k, v = inputs(heads=2)
    _, state = attn.prefill(q[:, :, :30], k[:, :, :30], v[:, :, :30])
    for t in range(30, N):
        now = slice(t, t + 1)
        _, state = attn.decode(q[:, :, now], k[:, :, now], v[:, :, now], state)
        assert state["k"].shape[2] <= tokens
        assert state["k"].untyped_storage().nbytes() <= 2 * 2 * tokens * 8 * 8, "holds more memory than it shows"


@pytest.mark.parametrize("name", ["linear_elu", "performer"])
def test_decode_state_has_a_fixed_size(name: str) -> None:
    attn = shrunk(variant_class(name))
    sizes = set()
    for n in (1, 17, N):
        q, k, v = inputs(n)
        sizes.add(attn.prefill(q, k, v)[1].nbytes)
    assert len(sizes) == 1


@pytest.mark.parametrize("name", ["naive", "sdpa", "chunked_exact", "linear_elu", "performer"])
def test_permuting_keys_and_values_together_changes_nothing(name: str) -> None:
    attn = shrunk(variant_class(name))
    q, k, v = inputs()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    same(attn(q, k, v), attn(q, k[:, :, order], v[:, :, order]))


def test_scale_is_applied_once_and_can_be_given() -> None:
    q, k, v = inputs(heads=2)
    for name in ("naive", "sdpa", "chunked_exact", "sliding_window", "block_local"):
        attn = attnbench.get(name)
        same(attn(q, k, v, causal=True, scale=0.7), attn(q * 0.7 * 8**0.5, k, v, causal=True))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_size_parameters_must_be_whole_and_positive(name: str) -> None:
    for variant in attnbench.names():
        if name in variant_class(variant).__dataclass_fields__:
            for wrong in (0, -1):
                with pytest.raises(attnbench.variants.api.VariantError, match=name):
                    attnbench.get(variant, **{name: wrong})
