"""Do public implementations compute what ours compute? Agreement, or the difference with its reason, each a test.

`make test-public` installs the packages and runs these; a package that is missing skips its tests.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import attnbench
from attnbench.bench.contract.shapes import Inputs, Shape, draw

pytestmark = pytest.mark.public


@functools.cache
def implementations() -> ModuleType:
    """The plugin of public implementations, which only these tests and the timing of `make bench-public` load."""
    path = Path(__file__).with_name("implementations.py")
    attnbench.variants.registry.load_plugin(path)
    return next(module for module in sys.modules.values() if getattr(module, "__file__", None) == str(path))


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def inputs(n: int, *, batch: int = 2, heads: int = 2, dim: int = 16, dtype: str = "float64") -> Inputs:
    return draw(Shape(n, n, True, dtype, batch=batch, heads=heads, kv_heads=heads, head_dim=dim, value_dim=dim))


def both(theirs: str, ours: str, data: Inputs, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Outputs of a public implementation and of ours, given as specs, with the extras of ours."""
    implementations()
    a, b = attnbench.get(theirs), attnbench.get(ours)
    extras = attnbench.make_extras(b, *data)
    return a(*data, causal=causal, **extras), b(*data, causal=causal, **extras)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


# -- equal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
def test_local_attention_with_an_exact_window_sees_one_key_more_than_its_window_size(causal: bool) -> None:
    needs("local_attention")
    a, b = both("local_attention(window_size=17)", "sliding_window(window_size=17)", inputs(96), causal=causal)
    assert distance(a, b) < 1e-12


def test_local_attention_by_default_is_segment() -> None:
    needs("local_attention")
    a, b = both("local_attention_blocks(segment_size=16)", "segment(segment_size=16)", inputs(96), causal=True)
    assert distance(a, b) < 1e-12


@pytest.mark.parametrize("num_globals", [0, 3])
def test_longformer_of_transformers(num_globals: int) -> None:
    needs("transformers")
    params = f"(window_size=9, num_globals={num_globals})"
    a, b = both(f"longformer_hf{params}", f"longformer{params}", inputs(96), causal=False)
    assert distance(a, b) < 1e-6, "their softmax runs in float32 whatever the inputs"


def test_bigbird_of_transformers_on_the_same_random_blocks() -> None:
    needs("transformers")
    params = "(block_size=8, num_random_blocks=2)"
    a, b = both(f"bigbird_hf{params}", f"bigbird{params}", inputs(192), causal=False)
    assert distance(a, b) < 1e-10


def test_reformer_pytorch_within_buckets_and_counting_pairs_once() -> None:
    needs("reformer_pytorch")
    a, b = both(
        "reformer_pytorch(chunk_size=8, num_rounds=3, as_the_paper=True)",
        "reformer(chunk_size=8, num_rounds=3, num_buckets=12)",
        inputs(96),
        causal=False,
    )
    assert distance(a, b) < 1e-6, "it takes 1e-9 more than a pair's count"


def test_nystrom_attention_of_one_head() -> None:
    needs("nystrom_attention")
    params = "(num_landmarks=16, pinv_steps=6)"
    a, b = both(f"nystrom_attention{params}", f"nystrom{params}", inputs(96, batch=1, heads=1), causal=False)
    assert distance(a, b) < 1e-10


@pytest.mark.parametrize("causal", [True, False])
def test_performer_pytorch_without_its_eps(causal: bool) -> None:
    needs("performer_pytorch")
    data = inputs(96)
    a, b = both(
        "performer_pytorch(num_features=64, without_eps=True)", "performer(num_features=64)", data, causal=causal
    )
    assert distance(a, b) < 1e-10


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("delta_fla_plain", "delta"),
        ("gated_delta_fla_plain", "gated_delta"),
        ("kda_fla_plain", "kda"),
        ("gla_fla_plain", "gla"),
        ("retention_fla_plain", "retention"),
        ("linear_elu_fla_plain", "linear_elu"),
        ("based_fla_plain", "based"),
    ],
)
def test_plain_forms_of_flash_linear_attention(theirs: str, ours: str) -> None:
    needs("fla")
    a, b = both(theirs, ours, inputs(128, dtype="float32"), causal=True)
    assert distance(a, b) < 1e-5


def test_log_linear_attention_of_fla() -> None:
    needs("fla")
    q, k, v = inputs(64, dtype="float32")
    ours = attnbench.get("log_linear", num_levels=7)
    extras = attnbench.make_extras(ours, q, k, v)
    tokens_first = implementations().tokens_first
    theirs = implementations().fla_plain("log_linear_attn").naive_log_linear_attn
    a = theirs(*tokens_first(q, k, v, extras["log_decay"], extras["levels"]), scale=None).transpose(1, 2)
    assert distance(a, ours(q, k, v, causal=True, **extras)) < 1e-5


def test_deepseek_sparse_attention_of_fla() -> None:
    needs("fla")
    q, k, v = inputs(96, heads=4)
    ours = attnbench.get("dsa", top_k=24, num_indexers=2, index_dim=16)
    # positive, since ReLU makes ties of what is not, and which of the tied keys is taken is each one's own affair
    extras = {name: x.abs() for name, x in attnbench.make_extras(ours, q, k, v).items()}
    tokens_first = implementations().tokens_first
    q_idx, w_idx = tokens_first(extras["q_idx"], extras["w_idx"])
    naive = implementations().fla_plain("dsa").naive_dsa
    a = naive(*tokens_first(q, k, v), q_idx, extras["k_idx"], w_idx, topk=24)
    a = (a[0] if isinstance(a, tuple) else a).transpose(1, 2)
    assert distance(a, ours(q, k, v, causal=True, **extras)) < 1e-6, "theirs runs in float32"


# -- different, with the reason -------------------------------------------------------------------------------------


def test_performer_pytorchs_eps_pulls_towards_the_mean_of_the_values() -> None:
    """On Gaussian input eps = 1e-4 outweighs most features; ours has no eps, as the paper's estimator has none."""
    needs("performer_pytorch")
    q, k, v = inputs(256, dim=64)
    a, b = both("performer_pytorch(num_features=256)", "performer(num_features=256)", (q, k, v), causal=False)
    mean = v.mean(dim=2, keepdim=True).expand_as(v)
    assert distance(a, b) > 0.2
    assert distance(a, mean) < distance(b, mean) / 2


def test_performer_pytorch_lets_the_future_in_by_the_maximum_over_all_keys() -> None:
    """With their eps the maximum does not cancel, so a loud last key changes what was before it. Ours: not at all."""
    needs("performer_pytorch")
    q, k, v = inputs(96)
    loud = k.clone()
    loud[:, :, -1] *= 4
    implementations()
    theirs, ours = attnbench.get("performer_pytorch(num_features=64)"), attnbench.get("performer(num_features=64)")
    leaks = [
        distance(attn(q, loud, v, causal=True)[:, :, :-1], attn(q, k, v, causal=True)[:, :, :-1])
        for attn in (theirs, ours)
    ]
    assert leaks[0] > 1e-3
    assert leaks[1] < 1e-12


def test_nystrom_attention_starts_its_inverse_from_what_other_heads_hold() -> None:
    """Six steps do not converge, so the start shows in the result: a louder neighbour changes a head that it is not."""
    needs("nystrom_attention")
    q, k, v = inputs(96, batch=1)
    loud = torch.cat([k[:, :1], 4 * k[:, 1:]], dim=1)
    implementations()
    params = "(num_landmarks=16, pinv_steps=6)"
    theirs, ours = attnbench.get(f"nystrom_attention{params}"), attnbench.get(f"nystrom{params}")
    changes = [distance(attn(q, loud, v)[:, :1], attn(q, k, v)[:, :1]) for attn in (theirs, ours)]
    assert changes[0] > 1e-6
    assert changes[1] < 1e-12


def test_reformer_pytorch_by_default_attends_across_buckets_and_counts_pairs_more_than_once() -> None:
    needs("reformer_pytorch")
    a, b = both(
        "reformer_pytorch(chunk_size=8, num_rounds=3)",
        "reformer(chunk_size=8, num_rounds=3, num_buckets=12)",
        inputs(96),
        causal=False,
    )
    assert distance(a, b) > 0.1


def test_the_delta_rule_of_fla_takes_queries_and_keys_as_they_come() -> None:
    """Their plain forms normalise nothing: the caller does. Ours normalises both itself, as the paper has it."""
    needs("fla")
    q, k, v = inputs(64, dtype="float32")
    ours = attnbench.get("delta")
    extras = attnbench.make_extras(ours, q, k, v)
    naive = implementations().fla_plain("delta_rule").delta_rule_chunkwise
    out = ours(q, k, v, causal=True, **extras)
    assert distance(naive(normalize(q, dim=-1), normalize(k, dim=-1), v, extras["beta"])[0], out) < 1e-5
    assert not distance(naive(q, k, v, extras["beta"])[0], out) < 0.1
