"""The JSON of pytest-benchmark (`make bench`), read like a run.

Its cases ran one after the other in one process, and only those of `tests/benchmarks` say which case of ours they are:
they have times and samples, and neither ratios nor memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from .bounds import Size, Time
from .errors import ResultsError, ResultsWarning, in_words
from .files import is_file, read
from .record import Record, case_id, group_id
from .run import Run
from .statistics import median_interval
from .store import RunFolder

OURS = "attnbench"
"""The key of `machine_info` and of each benchmark's `extra_info` under which ours stands."""
NOTE = "measured by pytest-benchmark, one case after the other in one process: no turns, hence no ratios"


class Part(BaseModel):
    """Of the file, what is read of it: the rest is passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, strict=True)


class Document(Part):
    machine_info: dict[str, Any]
    datetime: str
    benchmarks: list[Any]


class Stats(Part):
    median: Time
    q1: Time
    q3: Time
    iterations: Size
    data: list[Time] = []
    """The samples: without --benchmark-save-data they are not in the file, and quartiles are all that is known."""


class ExtraInfo(Part):
    attnbench: dict[str, JsonValue]
    """The fields of a record that say which case it is."""


class Benchmark(Part):
    extra_info: ExtraInfo
    stats: Stats


class BenchmarkFile:
    """One file that `--benchmark-autosave`, `--benchmark-save` or `--benchmark-json` wrote."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def run(self) -> Run:
        """What run.json would say. Raises ResultsError where the file is broken or of other benchmarks."""
        document = self._document()
        made = document.machine_info.get(OURS)
        if not isinstance(made, Mapping):
            raise ResultsError(f"{self.path} is not of attnbench's own benchmarks; name a file that `make bench` saved")
        try:
            return Run.model_validate(
                {
                    **made,
                    "command": "make bench",
                    "started_at": document.datetime,
                    "finished_at": document.datetime,
                    "cases": len(document.benchmarks),
                    "notes": [NOTE],
                }
            )
        except ValidationError as error:
            raise ResultsError(
                f"{self.path} is broken: {in_words(error)}; run `make bench` again, or leave it out"
            ) from None

    def cards(self) -> list[dict[str, Any]]:
        """None: benchmarks keep no cards."""
        return []

    def records(self) -> Iterator[Record]:
        """A record for each benchmark of ours; others are warned of and skipped."""
        document, machine = self._document(), self.run().machine.fingerprint
        for benchmark in document.benchmarks:
            try:
                yield _record(benchmark, machine, document.datetime)
            except ValidationError as error:
                name = benchmark.get("fullname", "a benchmark") if isinstance(benchmark, Mapping) else "a benchmark"
                warnings.warn(f"{self.path}: {name} skipped: {in_words(error)}", ResultsWarning, stacklevel=2)

    def _document(self) -> Document:
        try:
            return Document.model_validate_json(read(self.path))
        except ValidationError as error:
            _, torn, why = in_words(error).partition("Invalid JSON: ")
            what = f"is not JSON ({why})" if torn else "was not written by pytest-benchmark"
            raise ResultsError(f"{self.path} {what}; name a run folder, or a file that `make bench` saved") from None


def opened(path: str | Path) -> RunFolder | BenchmarkFile:
    """What can be read as a run: the folder of one, or a file of pytest-benchmark's."""
    return BenchmarkFile(path) if is_file(path) else RunFolder(path)


def _record(benchmark: Any, machine: str, started_at: str) -> Record:
    """Raises ValidationError where it is none of ours, or holds what nothing can measure."""
    whole = Benchmark.model_validate(benchmark)
    stats, samples = whole.stats, whole.stats.data
    found = median_interval(samples) if samples else None
    record = Record.model_validate(
        {
            **whole.extra_info.attnbench,
            "case_id": "",  # those of the fields, once these are known to be good
            "group_id": "",
            "status": "ok",
            "time_s": stats.median,
            "time_s_low": found.low if found else stats.q1,
            "time_s_high": found.high if found else stats.q3,
            "samples_s": samples or None,
            "calls_per_sample": stats.iterations,
            "reasons": [] if found else ["its file holds no samples: quartiles stand in place of the interval"],
            "machine": machine,
            "started_at": started_at,
        }
    )
    identity = record.model_dump()
    return record.model_copy(
        update={
            "case_id": case_id(identity),
            "group_id": group_id(identity),
            "tokens_per_s": record.batch * record.n_q / stats.median,
        }
    )
