"""The state of decoding grows in place, and no state loses what it holds to another that grows from it."""

from __future__ import annotations

import pytest
import torch

from attnbench.variants.api import State, VariantError


def tokens(n: int, seed: int) -> torch.Tensor:
    return torch.randn(1, 2, n, 4, generator=torch.Generator().manual_seed(seed))


def start(n: int = 5) -> State:
    return State(n, {"k": tokens(n, 0), "v": tokens(n, 1)})


def test_a_step_copies_no_past() -> None:
    first = start().append({"k": tokens(1, 2), "v": tokens(1, 3)})
    second = first.append({"k": tokens(1, 4), "v": tokens(1, 5)})
    assert first["k"].data_ptr() == second["k"].data_ptr()
    assert torch.equal(second["k"], torch.cat([tokens(5, 0), tokens(1, 2), tokens(1, 4)], dim=2))
    assert (first.seen, second.seen) == (6, 7)


def test_two_states_that_grow_from_one_are_independent() -> None:
    stem = start().append({"k": tokens(1, 2), "v": tokens(1, 3)})
    left = stem.append({"k": tokens(1, 4), "v": tokens(1, 5)})
    right = stem.append({"k": tokens(1, 6), "v": tokens(1, 7)})
    assert torch.equal(left["k"][:, :, -1:], tokens(1, 4))
    assert torch.equal(right["k"][:, :, -1:], tokens(1, 6))
    assert torch.equal(left["v"][:, :, :6], right["v"][:, :, :6])


def test_a_rewound_state_is_written_behind_again() -> None:
    stem = start().append({"k": tokens(1, 2), "v": tokens(1, 3)})
    stem.append({"k": tokens(1, 4), "v": tokens(1, 5)})
    stem.rewind()
    again = stem.append({"k": tokens(1, 6), "v": tokens(1, 7)})
    assert again["k"].data_ptr() == stem["k"].data_ptr()
    assert torch.equal(again["k"][:, :, -1:], tokens(1, 6))


def test_a_full_cache_moves_to_a_larger_one() -> None:
    state = start()
    for t in range(200):
        state = state.append({"k": tokens(1, t), "v": tokens(1, t)})
    assert state["k"].shape == (1, 2, 205, 4)
    assert torch.equal(state["k"], torch.cat([tokens(5, 0), *(tokens(1, t) for t in range(200))], dim=2))


def test_gradients_reach_what_was_appended() -> None:
    new = tokens(1, 2).requires_grad_()
    state = start().append({"k": new, "v": tokens(1, 3)})
    (gradient,) = torch.autograd.grad(state["k"].sum(), [new])
    assert torch.equal(gradient, torch.ones_like(new))


@pytest.mark.parametrize("wrong", [torch.zeros(1, 1, 1, 4), torch.zeros(1, 2, 1, 4, dtype=torch.bfloat16)])
def test_another_shape_or_dtype_is_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(VariantError, match="only their lengths may differ"):
        start().append({"k": wrong})
