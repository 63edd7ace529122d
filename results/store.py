"""A run folder: `run.json`, and `results.jsonl` with a record a line, appended and flushed record by record."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ValidationError

from .errors import ResultsError, ResultsWarning, in_words
from .files import end_line, is_file, read, refuse_irregular
from .json_lines import records_of, warn_of_newer
from .record import SCHEMA_VERSION, Record
from .run import Run

if sys.platform != "win32":
    import fcntl

RECORDS = "results.jsonl"
RUN = "run.json"
CARDS = "cards.json"
PASSES = "passes.jsonl"
"""What earlier passes of an unfinished run took: no reader of results needs it."""
KINDS = {
    "tasks.jsonl": "trained tasks",
    "dropin.jsonl": "variants inside a model",
    "claims.jsonl": "published claims",
}
"""Files of records that are none of a sweep, and what they hold."""

R = TypeVar("R", bound=BaseModel)


class Folder(Generic[R]):
    """The folder of one run, whose records are of one kind. They are only ever appended."""

    file: ClassVar[str]
    """The name of the file that holds the records."""
    others: ClassVar[tuple[str, ...]] = ()
    """Files beside it that lines are appended to, where they are there."""
    command: ClassVar[str]
    """The command that wrote it."""
    kind: type[R]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._held: IO[str] | None = None
        self._schema = SCHEMA_VERSION
        """That of run.json, once it is read."""

    @classmethod
    def create(cls, path: str | Path, run: Run) -> Self:
        """Makes a new folder and claims it, or raises ResultsError: it holds another run, or cannot be written."""
        folder = cls(path)
        folder.refuse_used()
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder._hold()
            folder.refuse_used()
            folder.write_run(run)
        except ResultsError:
            folder.close()
            raise
        except FileExistsError:
            raise ResultsError(f"{path} is a file, not a folder; choose another --out") from None
        except OSError as error:
            raise ResultsError(f"cannot write a run to {path}: {error.strerror}; choose another --out") from None
        return folder

    @classmethod
    def reopen(cls, path: str | Path) -> tuple[Self, Run]:
        """An existing run to append to. Ends a line that a crash tore, so that the next record starts on its own."""
        folder = cls(path)
        run = folder.run()
        if not (folder.path / cls.file).exists():  # to hold it would make one, in another command's folder
            raise ResultsError(folder._no_run(cls.file))
        try:
            folder._hold()
            for file in (cls.file, *cls.others):
                end_line(folder.path / file)
        except OSError as error:
            folder.close()
            raise ResultsError(
                f"cannot write to {folder.path / cls.file}: {error.strerror}; {folder._way_on(cls.file)}"
            ) from None
        return folder, run

    def _hold(self) -> None:
        """Keeps every other run out of the folder for as long as this process lives. A kill lets go of it too."""
        for file in (self.file, *self.others):
            refuse_irregular(self.path / file, "write to")
        self._held = (self.path / self.file).open("a", encoding="utf-8")
        if sys.platform != "win32":
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise ResultsError(
                    f"another run is writing to {self.path}; wait for it, or choose another --out"
                ) from None

    def close(self) -> None:
        """Lets go of the folder."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def refuse_used(self) -> None:
        """Raises ResultsError where the folder holds a run already."""
        records = self.path / self.file
        try:
            refuse_irregular(records, "write to")
            used = (self.path / RUN).exists() or (records.exists() and records.stat().st_size > 0)
        except OSError as error:
            raise ResultsError(f"cannot write a run to {self.path}: {error.strerror}; choose another --out") from None
        if used:
            raise ResultsError(
                f"{self.path} holds another run already; choose another --out, go on with it by --resume, or remove it"
            )

    def write_run(self, run: Run) -> None:
        """Replaces run.json as a whole, so that a reader never sees half of it."""
        draft = self.path / f".{RUN}.tmp"
        try:
            draft.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
            os.replace(draft, self.path / RUN)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise ResultsError(f"cannot write {self.path / RUN}: {error.strerror}; {self._way_on(RUN)}") from None

    def write_cards(self, cards: Sequence[Mapping[str, Any]]) -> None:
        """Keeps what each variant of the run says of itself: a report imports none of them. Raises ResultsError."""
        try:
            text = json.dumps(list(cards), ensure_ascii=False, indent=1)
            (self.path / CARDS).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ResultsError(f"cannot write {self.path / CARDS}: {error.strerror}; {self._way_on(RUN)}") from None

    def cards(self) -> list[dict[str, Any]]:
        """What the variants of the run said of themselves; [] where it kept none, or the file is torn (warned of)."""
        path = self.path / CARDS
        try:
            found = json.loads(read(path))
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError) as error:  # ResultsError is a ValueError
            warnings.warn(f"{path} cannot be read ({error}); the methods go without", ResultsWarning, stacklevel=2)
            return []
        cards = found if isinstance(found, list) else []
        return [card for card in cards if isinstance(card, dict) and isinstance(card.get("name"), str)]

    def append(self, records: Iterable[BaseModel], to: str | None = None) -> None:
        """Adds records, all in one write, and sees them to the disk; where that fails, none of them is left in it.

        `to`: another file of the folder.
        """
        file_name = self.file if to is None else to
        path, before = self.path / file_name, None
        left = memoryview("".join(record.model_dump_json() + "\n" for record in records).encode())
        try:
            with path.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
        except OSError as error:
            if before is not None:
                with contextlib.suppress(OSError):  # a full disk keeps half a line
                    os.truncate(path, before)
            kept = "the records before are kept: " if os.path.exists(self.path / self.file) else ""
            raise ResultsError(f"cannot write to {path}: {error.strerror}; {kept}{self._way_on(file_name)}") from None

    def _way_on(self, file: str) -> str:
        """What can be done next; asked while an error is told of, so it raises none where the folder is shut."""
        if not os.path.exists(self.path):
            return "the folder is gone, and what was in it with it: begin anew"
        if not os.path.exists(self.path / RUN):
            return "make room or choose another --out"
        return f"when {file} can be written to again, go on with: {self.command} --resume --out {self.path}"

    def _no_run(self, missing: str) -> str:
        if missing != RUN and (held := kinds_in(self.path)):
            what = f"holds {' and '.join(held)}, and has no {missing}"
        else:
            what = f"is not a run: it has no {missing}"
        return f"{self.path} {what}; name a folder that `{self.command}` wrote"

    def run(self) -> Run:
        """Reads run.json; raises ResultsError where it is missing or broken."""
        path = self.path / RUN
        try:
            run = Run.model_validate_json(read(path))
        except FileNotFoundError:
            raise ResultsError(self._no_run(RUN)) from None
        except ValidationError as error:
            raise ResultsError(f"{path} is broken: {in_words(error)}; restore it or leave this run out") from None
        self._schema = run.schema_version
        return run

    def records(self) -> Iterator[R]:
        """The records in the order they were measured. A torn or foreign line is warned of and skipped, and once, if
        run.json was read or records are of a newer schema, so is that warned of."""
        newer = self._schema > SCHEMA_VERSION
        if newer:
            warn_of_newer(self.path, self._schema, SCHEMA_VERSION)
        try:
            yield from records_of(self.path / self.file, self.kind, told_newer=newer)
        except FileNotFoundError:
            raise ResultsError(self._no_run(self.file)) from None

    def lines(self, file: str) -> list[bytes]:
        """Of a file of the folder; [] where there is none. Raises ResultsError."""
        try:
            return read(self.path / file).splitlines()
        except FileNotFoundError:
            return []


class RunFolder(Folder[Record]):
    """The folder of a sweep."""

    file = RECORDS
    others = (PASSES,)
    command = "attnbench run"
    kind = Record


def kinds_in(path: str | Path) -> list[str]:
    """What a folder holds that is no record of a sweep, in words; [] where it is the folder of a sweep."""
    return [words for file, words in KINDS.items() if is_file(Path(path) / file)]
