"""`run.json`: what was asked for, by which command, on what machine, with which versions."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, JsonValue

from .bounds import Count, Duration, Ratio, Size
from .record import SCHEMA_VERSION


class Ceilings(BaseModel):
    """What the machine can do at best, measured at the start of the run, for one device, dtype and thread count."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    device: str
    dtype: str
    threads: Size
    matmul_flops_per_s: Ratio
    copy_bytes_per_s: Ratio


class Machine(BaseModel):
    """The machine and the software that measured."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    fingerprint: str
    """Hash of what makes figures comparable: CPU, cores, memory, GPU, driver, versions."""
    cpu: str
    cores: Size
    memory_bytes: Count
    gpus: list[str] = []
    driver: str | None = None
    system: str
    python: str
    libraries: dict[str, str]


class Run(BaseModel):
    """One run. Immutable; written once at its start, and once more when it ends."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, strict=True)

    schema_version: int = SCHEMA_VERSION
    attnbench_version: str
    command: str
    config: dict[str, JsonValue]
    git_commit: str | None = None
    started_at: str
    finished_at: str | None = None
    """Null while it runs, and where it was stopped or killed."""
    cases: Count
    """How many cases were asked for: each ends in exactly one record."""
    machine: Machine
    ceilings: list[Ceilings] = []
    inputs: dict[str, dict[str, JsonValue]] = {}
    """For each named input, where it came from: model, text, hashes, file. For each trained task, its parameters."""
    notes: list[str] = []
    """What a reader of the whole run must know, e.g. a plugin that failed to load."""
    spent_s: dict[str, Duration] = {}
    """Seconds of the run by what they went to: `total`, and of it `planning`, `ceilings`, the `recall` probe,
    `preloading` fork servers, `starting` processes, `checking` and warming up, `sampling`, `placing` (turns that do not
    count for where the cores lay or who used these, bringing them together, and waiting), `left_out` (turns that do not
    count for who used the shared cache) and `weighing`; of sampling, `measured` is what passed inside of timed calls.
    Parts that were killed are not in it."""
