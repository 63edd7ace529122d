"""The JSON of pytest-benchmark (`make bench`), read like a run.

Its cases ran one after the other in one process, and only those of `tests/benchmarks` say which case of ours they are:
they have times and samples, and neither ratios nor memory.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .errors import ResultsError
from .record import Record, case_id, group_id
from .run import Run
from .statistics import median_interval
from .store import ResultsWarning, RunFolder

OURS = "attnbench"
"""The key of `machine_info` and of each benchmark's `extra_info` under which ours stands."""
NOTE = "measured by pytest-benchmark, one case after the other in one process: no turns, hence no ratios"


class BenchmarkFile:
    """One file that `--benchmark-autosave`, `--benchmark-save` or `--benchmark-json` wrote."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def run(self) -> Run:
        """What run.json would say. Raises ResultsError where the file is broken or of other benchmarks."""
        document = self._document()
        made: Mapping[str, Any] = document["machine_info"].get(OURS)
        if not isinstance(made, Mapping):
            raise ResultsError(f"{self.path} is not of attnbench's own benchmarks; name a file that `make bench` saved")
        try:
            return Run.model_validate(
                {
                    **made,
                    "command": "make bench",
                    "started_at": document["datetime"],
                    "finished_at": document["datetime"],
                    "cases": len(document["benchmarks"]),
                    "notes": [NOTE],
                }
            )
        except ValidationError as error:
            raise ResultsError(f"{self.path} is broken: {_first(error)}") from None

    def cards(self) -> list[dict[str, Any]]:
        """None: benchmarks keep no cards."""
        return []

    def records(self) -> Iterator[Record]:
        """A record for each benchmark of ours; others are warned of and skipped."""
        document, machine = self._document(), self.run().machine.fingerprint
        for benchmark in document["benchmarks"]:
            try:
                yield _record(benchmark, machine, document["datetime"])
            except (KeyError, TypeError, ValueError) as error:  # pydantic's is a ValueError
                why = _first(error) if isinstance(error, ValidationError) else f"it has no {error}"
                name = benchmark.get("fullname", "a benchmark") if isinstance(benchmark, Mapping) else "a benchmark"
                warnings.warn(f"{self.path}: {name} skipped: {why}", ResultsWarning, stacklevel=2)

    def _document(self) -> dict[str, Any]:
        try:
            document = json.loads(self.path.read_bytes())
        except OSError as error:
            raise ResultsError(f"cannot read {self.path}: {error.strerror}") from None
        except ValueError:
            raise ResultsError(
                f"{self.path} is not JSON; name a run folder, or a file that `make bench` saved"
            ) from None
        kinds = {"machine_info": Mapping, "benchmarks": list, "datetime": str}
        if not isinstance(document, dict) or not all(isinstance(document.get(k), kind) for k, kind in kinds.items()):
            raise ResultsError(f"{self.path} was not written by pytest-benchmark; name a file that `make bench` saved")
        return document


def opened(path: str | Path) -> RunFolder | BenchmarkFile:
    """What can be read as a run: the folder of one, or a file of pytest-benchmark's."""
    return BenchmarkFile(path) if Path(path).is_file() else RunFolder(path)


def _record(benchmark: Mapping[str, Any], machine: str, started_at: str) -> Record:
    ours, stats = benchmark["extra_info"][OURS], benchmark["stats"]
    # without --benchmark-save-data the samples are not in the file, and their quartiles are all that is known
    samples = stats.get("data")
    found = median_interval(samples) if samples else None
    return Record.model_validate(
        {
            **ours,
            "case_id": case_id(ours),
            "group_id": group_id(ours),
            "status": "ok",
            "time_s": stats["median"],
            "time_s_low": found.low if found else stats["q1"],
            "time_s_high": found.high if found else stats["q3"],
            "samples_s": samples,
            "calls_per_sample": stats["iterations"],
            "tokens_per_s": ours["batch"] * ours["n_q"] / stats["median"],
            "reasons": [] if found else ["its file holds no samples: quartiles stand in place of the interval"],
            "machine": machine,
            "started_at": started_at,
        }
    )


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
