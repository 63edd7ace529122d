"""What a call is given and has written to is found afterwards, whatever it is and however little has changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attnbench.bench import mixed
from attnbench.bench.decoding import Step
from attnbench.bench.untouched import Untouched
from attnbench.variants.api import get, make_extras
from attnbench.variants.registry import load_plugin

from .test_mixed import PACKED, case

SHAPE = (2, 4, 16)


def swap(x: Tensor) -> None:
    x[0, 0, 0], x[1, 3, 15] = x[1, 3, 15].clone(), x[0, 0, 0].clone()


WRITES: dict[str, Callable[[Tensor], object]] = {
    "one number": lambda x: x[1, 3, 15].mul_(1.1),
    "its sign alone": lambda x: x[0, 0, 0].neg_(),
    "all of it": lambda x: x.zero_(),
    "two numbers change places": swap,
    "NaN": lambda x: x[0, 2].fill_(float("nan")),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("strided", [False, True])
def test_a_write_is_found(what: str, dtype: torch.dtype, strided: bool) -> None:
    x = torch.randn(*SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = torch.cat([x, x], dim=1)[:, : SHAPE[1]] if strided else x
    assert x.is_contiguous() is not strided
    leaf = x.detach().requires_grad_()  # as in training
    untouched = Untouched(lambda: {"x": leaf})
    assert untouched.problem() is None
    WRITES[what](x)
    assert untouched.problem() == "writes into its input x, at a call after that which was checked"


def test_what_is_not_a_number_and_what_is_read_have_not_changed() -> None:
    x = torch.full(SHAPE, float("nan"))
    untouched = Untouched(lambda: {"x": x})
    x.exp().sum()
    assert untouched.problem() is None


def test_another_shape_another_dtype_or_another_name_is_a_change() -> None:
    given = {"x": torch.zeros(SHAPE), "y": torch.zeros(SHAPE)}
    untouched = Untouched(lambda: given)
    for other in (given["y"].reshape(-1), torch.zeros(SHAPE, dtype=torch.int32)):
        given["y"] = other
        assert "input y" in str(untouched.problem())
    given["y"] = torch.zeros(SHAPE)
    assert untouched.problem() is None
    given["z"] = torch.zeros(1)
    assert "input z" in str(untouched.problem())


def found_in(given: Callable[[], dict[str, Tensor]], call: Callable[[], object]) -> set[str]:
    """The names of what a call is given, each found when it is written to; calls alone write to nothing."""
    untouched = Untouched(given)
    for _ in range(3):
        call()
    assert untouched.problem() is None
    for name, x in given().items():
        before = x.clone()
        x[..., -1].add_(1)
        assert str(untouched.problem()).startswith(f"writes into its input {name},")
        x.copy_(before)
        assert untouched.problem() is None
    return set(given())


def test_a_decode_step_is_given_a_token_and_a_state() -> None:
    attn = get("gated_delta")
    q, k, v = (torch.randn(1, 2, 9, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    step = Step(attn, {"q": q, "k": k, "v": v, **make_extras(attn, q, k, v, seed=0)})
    names = found_in(step.given, step)
    assert {"q", "k", "v", "beta", "log_decay"} < names
    assert {f"state ({name})" for name in step.state.tensors} < names
    cached = Step(get("naive"), {"q": q, "k": k, "v": v})
    assert found_in(cached.given, cached) == {"q", "k", "v", "state (k)", "state (v)"}


def test_a_batch_is_given_the_tokens_and_states_of_its_requests() -> None:
    batch = mixed.Batch(get("naive"), case("naive", "3q1s20_2q9"))
    assert batch.check().correct
    steps = {f"{name} of 3q1s20" for name in ("q", "k", "v", "state (k)", "state (v)")}
    assert found_in(batch.given, batch) == steps | {f"{name} of 2q9" for name in "qkv"}


def test_a_packed_batch_is_given_its_packed_tensors() -> None:
    load_plugin(PACKED)
    batch = mixed.Batch(get("packs"), case("packs", "3q1s20_2q9"))
    assert batch.check().correct
    assert found_in(batch.given, batch) == set("qkv")
