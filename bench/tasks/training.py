"""One training, from its first step or its checkpoint to its end: budget, mastery, or a loss that is not finite."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...results.task_record import CurvePoint, Reach
from ...variants.api import Variant
from . import checkpoint
from .backbone import Backbone, state_bytes
from .batch import IGNORE, Batch, Part, generator
from .config import Setting

WARMUP_STEPS = 100
"""Where the length of a training is not known in steps."""
TEST_SHARE = 2
"""Test sequences for each validation sequence."""
MIB_OF_LOGITS = 64
"""Most that an evaluation holds of logits at a time, where sequences are many and the vocabulary is large."""


@dataclass
class Progress:
    """How far a training has come: all of it that its checkpoint keeps beside the tensors."""

    step: int = 0
    trained_s: float = 0.0
    """Seconds of training steps."""
    wall_s: float = 0.0
    """Seconds of everything, up to the checkpoint."""
    loss_sum: float = 0.0
    """Of the steps since the last point."""
    losses: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    resumes: int = 0


class Training:
    """A model, its optimiser and its data."""

    def __init__(self, variant: Variant, setting: Setting, lr: float, seed: int) -> None:
        self.variant, self.setting, self.lr, self.seed = variant, setting, lr, seed
        self.model = Backbone(variant, setting, seed).to(setting.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=lr, weight_decay=setting.weight_decay, fused=True
        )
        self.held_out: dict[Part, list[Batch]] = {}

    def run(self, path: Path, checkpoint_s: float) -> dict[str, Any]:
        """Trains to the end and returns the fields of the record. Goes on from the checkpoint at `path`, if any."""
        began = time.monotonic()
        setting, now = self.setting, Progress()
        if (found := checkpoint.load(path, self.model, self.optimiser)) is not None:
            now = Progress(**found)
            now.resumes += 1
        earlier_s, saved_at = now.wall_s, time.monotonic()
        status, stopped_by, mastered_at = "ok", None, None
        while True:
            stopped_by = self._spent(now)
            due = now.step % setting.eval_every == 0 or stopped_by is not None
            if due and not (now.curve and now.curve[-1]["step"] == now.step):
                now.curve.append(self._point(now))
                now.loss_sum, now.losses = 0.0, 0
            value = now.curve[-1]["value"]
            if due and setting.mastery is not None and value is not None and value >= setting.mastery:
                stopped_by, mastered_at = "mastery", now.step
            if stopped_by:
                break
            if time.monotonic() - saved_at >= checkpoint_s:
                now.wall_s = earlier_s + time.monotonic() - began
                checkpoint.save(path, self.model, self.optimiser, vars(now))
                saved_at = time.monotonic()
            start = time.monotonic()
            loss = self.step(now.step)
            now.trained_s += time.monotonic() - start
            now.step += 1
            if not math.isfinite(loss):
                now.curve.append(self._unscored(now))
                status = "diverged"
                break
            now.loss_sum, now.losses = now.loss_sum + loss, now.losses + 1
        value, reach = self.evaluate("test") if status == "ok" else (None, [])
        if status == "ok" and value is None:
            status = "diverged"
        counts = self.model.parameter_counts()
        return {
            "status": status,
            "reasons": [] if status == "ok" else [f"the loss was no longer finite at step {now.step}"],
            "value": value,
            "reach": reach,
            "curve": [CurvePoint(**point) for point in now.curve],
            "steps": now.step,
            "mastered": mastered_at is not None,
            "mastered_at": mastered_at,
            "stopped_by": stopped_by,
            "parameters": counts[0],
            "variant_parameters": counts[1],
            "state_bytes": state_bytes(self.variant, setting, setting.held_out_len),
            "wall_s": earlier_s + time.monotonic() - began,
            "resumes": now.resumes,
        }

    def step(self, index: int) -> float:
        """One step on the batch of that index: its loss, in nats a target."""
        setting = self.setting
        batch = setting.task.draw(
            generator("train", self.seed, index), setting.batch, setting.seq_len, setting.vocab, "train"
        )
        inputs, targets = self._tensor(batch.inputs), self._tensor(batch.targets)
        due = targets != IGNORE
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * self.share(index)
        self.optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(inputs, due), targets[due])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), setting.clip)
        found = float(loss.detach())
        if math.isfinite(found):
            self.optimiser.step()
        return found

    def share(self, index: int) -> float:
        """Of the learning rate, at a step: a linear rise, then a cosine to zero or nothing more."""
        planned = self.setting.planned_steps
        warmup = WARMUP_STEPS if planned is None else int(self.setting.warmup * planned)
        if index < warmup:
            return (index + 1) / warmup
        if self.setting.schedule == "constant" or planned is None:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (index - warmup) / max(1, planned - warmup)))

    def evaluate(self, part: Part) -> tuple[float | None, list[Reach]]:
        """The metric on a held-out part, None where it is not finite; and accuracy by distance, on the test set."""
        if part not in self.held_out:
            self.held_out[part] = self._draw(part)
        right, nats, count = 0, 0.0, 0
        hits: list[np.ndarray[Any, Any]] = []
        distances: list[np.ndarray[Any, Any]] = []
        bits = self.setting.task.metric == "bits_per_byte"
        with torch.no_grad():
            for batch in self.held_out[part]:
                targets = self._tensor(batch.targets)
                due = targets != IGNORE
                if batch.counted is not None:
                    due &= self._tensor(batch.counted)
                logits, wanted = self.model(self._tensor(batch.inputs), due), targets[due]
                count += wanted.numel()
                if bits:
                    nats += float(F.cross_entropy(logits, wanted, reduction="sum"))
                    continue
                if not bool(logits.isfinite().all()):
                    return None, []
                hit = logits.argmax(dim=-1) == wanted
                right += int(hit.sum())
                if part == "test" and batch.distance is not None:
                    hits.append(hit.cpu().numpy())
                    distances.append(batch.distance[due.cpu().numpy()])
        if bits:
            value = nats / count / math.log(2)
            return (value if math.isfinite(value) else None), []
        return right / count, by_distance(np.concatenate(hits), np.concatenate(distances)) if hits else []

    def _draw(self, part: Part) -> list[Batch]:
        """A held-out part, in batches whose logits fit."""
        setting = self.setting
        total = setting.eval_examples * (TEST_SHARE if part == "test" else 1)
        whole = setting.task.draw(generator(part, 0, 0), total, setting.held_out_len, setting.vocab, part)
        places = int((whole.targets != IGNORE).sum(axis=1).max())
        rows = max(1, min(setting.batch, (MIB_OF_LOGITS << 20) // (4 * setting.vocab * places)))
        return [
            Batch(*(None if x is None else x[at : at + rows] for x in vars(whole).values()))  # type: ignore[arg-type]
            for at in range(0, total, rows)
        ]

    def _spent(self, now: Progress) -> str | None:
        setting = self.setting
        if setting.steps is not None and now.step >= setting.steps:
            return "steps"
        if setting.tokens is not None and self._tokens(now) >= setting.tokens:
            return "tokens"
        if setting.train_time is not None and now.trained_s >= setting.train_time:
            return "time"
        return None

    def _point(self, now: Progress) -> dict[str, Any]:
        value, _ = self.evaluate("validation")
        return {**self._unscored(now), "loss": now.loss_sum / now.losses if now.losses else None, "value": value}

    def _unscored(self, now: Progress) -> dict[str, Any]:
        return {"step": now.step, "tokens": self._tokens(now), "wall_s": now.trained_s, "loss": None, "value": None}

    def _tokens(self, now: Progress) -> int:
        return now.step * self.setting.batch * self.setting.seq_len

    def _tensor(self, x: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(x).to(self.setting.device)


def by_distance(hits: np.ndarray[Any, Any], distances: np.ndarray[Any, Any]) -> list[Reach]:
    """Accuracy in spans of distance from one power of two to the next."""
    found = []
    spans = np.floor(np.log2(np.maximum(distances, 1))).astype(int)
    for span in np.unique(spans):
        here = spans == span
        found.append(
            Reach(
                nearest=int(distances[here].min()),
                farthest=int(distances[here].max()),
                answers=int(here.sum()),
                accuracy=float(hits[here].mean()),
            )
        )
    return found
