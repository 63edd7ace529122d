"""Drop-in accuracy: a real model reads a real text with each variant in place of its softmax attention.

The model lives in a process of its own. A variant that takes it down gets a record that says so, and the model is
loaded again for the next.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..results.dropin_record import DropinRecord, append_dropins, dropin_id, load_dropins
from ..results.run import Run
from ..results.store import RunFolder
from . import dropin_model, environment
from .capture_text import read_text
from .errors import BenchError
from .hf_model import find, quiet, weights_sha256
from .process import Child, Died, OutOfMemory, Raised, TookTooLong, ready

WINDOWS = 32
BUDGETS = (64, 128)
TIMEOUT_S = 600.0
NULLS = (
    *("embedding_cosine", "ranking_agreement", "top1_agreement", "top10_overlap"),
    *("perplexity", "next_token_agreement"),
)
"""Figures that the nulls have too."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    variants: Sequence[str] = ("all",)
    model: str | None = None
    """Folder of a transformers model; None is the packaged one."""
    text: str | None = None
    """A file in UTF-8; None is CPython's language topics."""
    seq_len: int | None = None
    """None is 512, or what the model reaches if that is less."""
    windows: int = WINDOWS
    budgets: Sequence[int] = BUDGETS
    """For variants named without parameters that declare a budget."""
    plugins: Sequence[str] = ()
    timeout_s: float = TIMEOUT_S


@dataclass
class Done:
    """What was measured."""

    folder: Path
    records: list[DropinRecord] = field(default_factory=list)


def dropin(
    request: Request, out: Path, *, command: str, resume: bool = False, tell: Callable[[str], None] = lambda text: None
) -> Done:
    """Measures each variant inside the model and appends a record for it to `out`, a new run folder.

    With `resume` the folder is one that was stopped, and what has a record there is left as it is. Raises BenchError
    for a model, a text or a variant that cannot be; nothing is written then.
    """
    for what, value in (
        ("the number of windows", request.windows),
        ("the length of a window", 1 if request.seq_len is None else request.seq_len),
        ("each budget", min(request.budgets, default=0)),
    ):
        if value < 1:
            raise BenchError(f"{what} must be at least 1, not {value}")
    if not resume:
        RunFolder(out).refuse_used()
    before = {record.dropin_id: record for record in load_dropins(out)} if resume else {}
    folder, name = find(request.model)
    text_name, text = read_text(request.text)
    host = Host(request, folder, name, text)
    try:
        tell("loading the model and reading the text with it")
        about = host.prepare()
        rows = host.call(dropin_model.resolve, list(request.variants), list(request.budgets))
        machine = environment.machine()
        shared = {
            **about,
            "model": name,
            "text": text_name,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "weights_sha256": weights_sha256(folder),
            "machine": machine.fingerprint,
        }
        tell("the null: plain means of values")
        uniform = host.call(dropin_model.uniform)
        if resume:
            run, _ = RunFolder.reopen(out)
        else:
            about_run = Run(
                attnbench_version=__version__,
                command=command,
                config={"dropin": {key: shared[key] for key in ("model", "text", "seq_len", "windows")}},
                git_commit=environment.git_commit(),
                started_at=_now(),
                cases=len(rows),
                machine=machine,
            )
            run = RunFolder.create(out, about_run)
        try:
            done = Done(out)
            for row in rows:
                known = before.get(dropin_id({**shared, **row}))
                if known is not None:
                    done.records.append(known)
                    continue
                tell(f"{row['variant']} in the model")
                began, started_at = time.monotonic(), _now()
                outcome = host.outcome(row, uniform)
                record = DropinRecord(
                    dropin_id=dropin_id({**shared, **row}),
                    started_at=started_at,
                    wall_s=time.monotonic() - began,
                    **{**shared, **row, **outcome},
                )
                append_dropins(out, [record])
                done.records.append(record)
            run.write_run(run.run().model_copy(update={"finished_at": _now()}))
        finally:
            run.close()
        return done
    finally:
        host.close()


class Host:
    """The process that holds the model; a new one when the last died."""

    def __init__(self, request: Request, folder: Path, name: str, text: str) -> None:
        self.request, self.folder, self.name, self.text = request, folder, name, text
        self.child: Child | None = None
        self.about: dict[str, Any] = {}

    def prepare(self) -> dict[str, Any]:
        """What every record says of model and text."""
        with quiet("drop-in accuracy"):  # where transformers is missing, that is said before a process is started
            pass
        self.call(ready)
        return self.about

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """An answer. Raises BenchError where the request is wrong, and what `Child.call` raises otherwise."""
        try:
            return self._call(function, *args)
        except Raised as error:
            raise BenchError(error.report) from None
        except Died as error:
            raise BenchError(f"the process that held the model was {error.why}") from None
        except OutOfMemory as error:
            raise BenchError(f"memory ran out: {error}; ask for a shorter --seq-len") from None
        except TookTooLong:
            raise BenchError(
                f"{self.name} took longer than {self.request.timeout_s:g} s; ask for fewer or shorter windows, or "
                "allow more by --timeout"
            ) from None

    def outcome(self, row: dict[str, Any], uniform: dict[str, Any]) -> dict[str, Any]:
        """Status, reasons and figures of one variant, nulls included."""
        if row["reasons"]:
            return {"status": "unsupported"}
        try:
            figures = self._call(dropin_model.measure, row["variant"], row["params"])
            keys = figures["keys"] if figures["keys"] is not None else row["budget"]
            window = None if keys is None else max(1, round(keys))
            counted = figures["keys"] is not None
            beside = {} if keys is None else self._call(dropin_model.window, keys, counted)
        except Raised as error:
            why = str(error).removeprefix(f"{dropin_model.EXCHANGED} cannot serve this call: ")
            return {"status": "unsupported" if error.refusal else "crashed", "reasons": [why]}
        except OutOfMemory as error:
            return {"status": "oom", "reasons": [str(error)]}
        except Died as error:
            return {"status": "crashed", "reasons": [error.why]}
        except TookTooLong:
            return {"status": "timeout", "reasons": [f"took longer than {self.request.timeout_s:g} s"]}
        nulls = {f"{figure}_uniform": uniform.get(figure) for figure in NULLS}
        nulls |= {f"{figure}_window": beside.get(figure) for figure in NULLS}
        return {"status": "ok", **figures, **nulls, "window_keys": window}

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Of the child, which is started and given the model first where there is none."""
        if self.child is None:
            self.child = Child()
            plugins = [os.path.abspath(plugin) for plugin in self.request.plugins]
            self.about = self._guarded(
                dropin_model.prepare,
                *(str(self.folder), self.name, self.text, self.request.seq_len, self.request.windows, plugins),
            )
        return self._guarded(function, *args)

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        assert self.child is not None
        try:
            return self.child.call(function, *args, timeout_s=self.request.timeout_s)
        except (Died, TookTooLong):
            self.child = None
            raise

    def close(self) -> None:
        if self.child is not None:
            self.child.close()
            self.child = None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
