"""Every registered variant that runs here, forward and with gradients, grouped by work: `make bench`.

These time what a change of attnbench's own code does to it, with pytest-benchmark's usual options
(--benchmark-autosave, --benchmark-compare); the files that it saves can be given to `attnbench report` and `compare` in
place of a run. Figures to publish come from `attnbench run`, which isolates processes and takes turns.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attnbench.bench.calls import make_call
from attnbench.bench.case import Case
from attnbench.bench.worker import describe
from attnbench.variants.api import get, make_extras, names

LENGTHS = (512, 2048)
HEADS, HEAD_DIM = 4, 64


def case(name: str, mode: str, length: int) -> Case:
    attn = get(name)
    return Case(
        variant=name,
        params=attn.params(),
        mode=mode,
        causal=attn.supports.causal,
        batch=1,
        heads=HEADS,
        kv_heads=HEADS,
        n_q=length,
        n_k=length,
        head_dim=HEAD_DIM,
        dtype="float32",
        device="cpu",
        threads=torch.get_num_threads(),
        inputs="gaussian",
        seed=0,
    )


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("name", names())
def test_variant(benchmark: Any, name: str, mode: str, length: int) -> None:
    attn, asked = get(name), case(name, mode, length)
    (described,) = describe({}, [asked], [])
    if described["reasons"]:
        pytest.skip(described["reasons"][0])
    benchmark.group = f"{mode} {'causal' if asked.causal else 'non-causal'} N={length}"
    benchmark.extra_info["attnbench"] = asked.identity() | described["fields"]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, HEADS, length, HEAD_DIM, generator=generator) for _ in range(3))
    benchmark(make_call(attn, asked, q, k, v, make_extras(attn, q, k, v)))
