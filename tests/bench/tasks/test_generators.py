"""The sequences of tasks: what is due is really there to be found, where the task says, and nowhere else."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from attnbench.bench.tasks.batch import IGNORE, PARTS, Batch, Part, generator
from attnbench.bench.tasks.catalogue import TASKS
from attnbench.bench.tasks.induction import Induction
from attnbench.bench.tasks.mqar import Mqar
from attnbench.bench.tasks.needle import MARKER, Needle
from attnbench.bench.tasks.parity import Parity
from attnbench.bench.tasks.selective_copy import NOISE, SelectiveCopy
from attnbench.bench.tasks.text import GAP, Text, corpus

COUNT = 64
SETTINGS = {
    "mqar": (64, 64),
    "induction": (48, 16),
    "selective_copy": (64, 16),
    "parity": (40, 2),
    "needle": (64, 32),
    "text": (64, 256),
}


def drawn(task: Any, part: Part = "train", seed: int = 0, index: int = 0, count: int = COUNT) -> Batch:
    seq_len, vocab = SETTINGS[task.name]
    assert task.problem(seq_len, vocab) is None
    batch = task.draw(generator(part, seed, index), count, seq_len, vocab, part)
    assert isinstance(batch, Batch)
    return batch


def due(batch: Batch) -> list[tuple[int, int, int, int]]:
    """Row, place, target and place of what is asked for, of every target with a distance."""
    assert batch.distance is not None
    rows, places = np.nonzero(batch.targets != IGNORE)
    back = batch.distance[rows, places]
    return list(zip(rows, places, batch.targets[rows, places], places - back, strict=True))


@pytest.mark.parametrize("name", TASKS)
def test_every_task_draws_tokens_of_its_vocabulary(name: str) -> None:
    seq_len, vocab = SETTINGS[name]
    batch = drawn(TASKS[name]())
    assert batch.inputs.shape == batch.targets.shape == (COUNT, seq_len)
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() < vocab
    there = batch.targets[batch.targets != IGNORE]
    assert there.size
    assert there.min() >= 0
    assert there.max() < vocab


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_a_function_of_its_part_seed_and_index(name: str) -> None:
    task = TASKS[name]()
    first = drawn(task, "train", 3, 5)
    assert (drawn(task, "train", 3, 5).inputs == first.inputs).all()
    for other in (drawn(task, "train", 3, 6), drawn(task, "train", 4, 5), drawn(task, "test", 3, 5)):
        assert (other.inputs != first.inputs).any()


@pytest.mark.parametrize("name", [name for name in TASKS if name != "text"])
def test_held_out_sequences_are_those_of_no_training(name: str) -> None:
    task = TASKS[name]()
    seen = {tuple(row) for index in range(8) for row in drawn(task, "train", 0, index).inputs}
    held = {part: {tuple(row) for row in drawn(task, part).inputs} for part in PARTS if part != "train"}
    assert not seen & held["validation"]
    assert not seen & held["test"]
    assert not held["validation"] & held["test"]
    assert len(held["test"]) == COUNT


@pytest.mark.parametrize("name", [name for name in TASKS if name != "text"])
def test_held_out_sequences_are_the_same_for_every_seed(name: str) -> None:
    task = TASKS[name]()
    assert (drawn(task, "test", seed=0).inputs == drawn(task, "test", seed=9).inputs).all()


# -- recall -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [False, True])
def test_mqar_asks_for_every_key_once_and_its_value_is_there(noise: bool) -> None:
    batch = drawn(Mqar(kv_pairs=8, noise=noise))
    context, half = 16, 32
    keys, values = batch.inputs[:, 0:context:2], batch.inputs[:, 1:context:2]
    assert keys.min() >= 1
    assert keys.max() < half <= values.min()
    for row in range(COUNT):
        assert len(set(keys[row])) == len(set(values[row])) == 8
        assert (batch.targets[row] != IGNORE).sum() == 8
    for row, place, target, origin in due(batch):
        assert place >= context
        assert place % 2 == 0
        assert origin < context
        assert batch.inputs[row, place] == batch.inputs[row, origin]  # the key asked for
        assert batch.inputs[row, origin + 1] == target  # and what came with it
    if not noise:
        free = (batch.targets == IGNORE)[:, context:]
        assert (batch.inputs[:, context:][free] == 0).all()


def test_mqar_gaps_follow_the_power_law() -> None:
    """At a = 1 a query is anywhere; at 0.01 its gap's density falls as 1 / gap, so that half lie near."""
    near = {}
    for a in (0.01, 1.0):
        batch = drawn(Mqar(kv_pairs=1, power_a=a), count=4000)
        gaps = (np.nonzero(batch.targets != IGNORE)[1] - 2) // 2  # from 0 to 30
        near[a] = float((gaps < 4).mean())
    weights = np.arange(1, 32) ** -0.99
    assert near[0.01] == pytest.approx(weights[:4].sum() / weights.sum(), abs=0.03)
    assert near[1.0] == pytest.approx(4 / 31, abs=0.03)


def test_induction_asks_for_what_followed_the_special_token() -> None:
    batch = drawn(Induction())
    for row, place, target, origin in due(batch):
        assert place == batch.inputs.shape[1] - 1
        assert sorted(np.nonzero(batch.inputs[row] == 0)[0]) == [origin, place]
        assert batch.inputs[row, origin + 1] == target
    origins = {origin for _, _, _, origin in due(drawn(Induction(), count=2000))}
    assert origins == set(range(46))


def test_selective_copy_asks_for_the_data_in_their_order() -> None:
    batch = drawn(SelectiveCopy(copies=8))
    body = 64 - 8
    for row in range(COUNT):
        line = batch.inputs[row]
        assert (line[body:] == 15).all()
        data = line[:body][line[:body] != NOISE]
        assert data.max() < 15
        assert (data == batch.targets[row, body:]).all()
        assert (batch.targets[row, :body] == IGNORE).all()
    for row, _, target, origin in due(batch):
        assert batch.inputs[row, origin] == target


def test_needle_asks_for_the_digits_behind_the_marker() -> None:
    batch = drawn(Needle(digits=5))
    for row, place, target, origin in due(batch):
        assert origin < place - 5
        assert batch.inputs[row, origin + 1] == target
        assert batch.inputs[row, place] == batch.inputs[row, origin]  # the marker, or the digit before
    assert ((batch.inputs == MARKER).sum(axis=1) == 2).all()
    assert ((batch.inputs < MARKER).sum(axis=1) == 5 + 4).all()  # no other digit in the haystack


def test_parity_is_that_of_all_bits_so_far() -> None:
    batch = drawn(Parity())
    for row in range(COUNT):
        for place in range(40):
            assert batch.targets[row, place] == sum(batch.inputs[row, : place + 1]) % 2
    assert batch.counted is not None
    assert batch.counted[:, 20:].all()
    assert not batch.counted[:, :20].any()


def test_guessing_gives_the_declared_chance() -> None:
    """A guesser that knows all but where to look: among a sequence's values, digits not yet asked for, tokens, bits."""
    rng = np.random.default_rng(0)
    for task in (Mqar(), Induction(), SelectiveCopy(), Parity(), Needle()):
        batch = drawn(task, count={"mqar": 300, "parity": 60}.get(task.name, 800))
        rows, places = np.nonzero(batch.targets != IGNORE)
        order = {row: np.nonzero(batch.targets[row] != IGNORE)[0] for row in np.unique(rows)}
        right = 0
        for row, place in zip(rows, places, strict=True):
            if task.name == "mqar":
                options = batch.inputs[row, 1:16:2]
            elif task.name == "needle":
                asked = batch.targets[row, [p for p in order[row] if p < place]]
                options = np.setdiff1d(np.arange(10), asked)
            else:
                options = np.arange(*{"induction": (1, 16), "selective_copy": (1, 15), "parity": (0, 2)}[task.name])
            right += int(rng.choice(options) == batch.targets[row, place])
        assert right / len(rows) == pytest.approx(task.chance(SETTINGS[task.name][1]), abs=0.04), task.name


# -- text -------------------------------------------------------------------------------------------------------


def test_text_is_real_and_its_parts_lie_apart() -> None:
    found = corpus(None)
    assert found.size > 2_000_000
    for train, validation, test in zip(*(found.parts[part] for part in PARTS), strict=True):
        # all three are views of one document: compare where they begin and end in memory
        ends = [(x.__array_interface__["data"][0], len(x)) for x in (train, validation, test)]
        for (start, length), (after, _) in itertools.pairwise(ends):
            assert start + length + GAP == after
        assert len(train) > 8 * (len(validation) + len(test))


@pytest.mark.parametrize("part", PARTS)
def test_text_windows_lie_within_their_part_and_targets_are_the_next_bytes(part: Part) -> None:
    batch = drawn(Text(), part)
    assert (batch.inputs[:, 1:] == batch.targets[:, :-1]).all()
    whole = [x.tobytes() for x in corpus(None).parts[part]]
    for row in range(0, COUNT, 7):
        window = bytes([*batch.inputs[row].tolist(), int(batch.targets[row, -1])])
        assert any(window in document for document in whole)


def test_a_text_too_short_for_any_of_its_parts_is_refused(tmp_path: Any) -> None:
    """Lengths at which validation holds fewer bytes than test: rounding favours the last part."""
    file = tmp_path / "short.txt"
    for size in (1301, 1405, 2600):
        file.write_bytes(bytes(i % 251 for i in range(size)))
        corpus.cache_clear()
        task = Text(text=str(file))
        shortest = min(len(part) for parts in corpus(str(file)).parts.values() for part in parts)
        assert "too few for a seq_len" in (task.problem(shortest, 256) or "")
        assert task.problem(shortest - 1, 256) is None
        for part in PARTS:
            assert task.draw(generator(part, 0, 0), 4, shortest - 1, 256, part).inputs.shape == (4, shortest - 1)
