"""What to measure: from a TOML file, a preset, options of the command line, or all of them.

A configuration holds settings of the whole run and a list of sweeps. Each sweep is a grid: the cross product of its
lists. Keys at the top level of a file are what its `[[sweep]]` tables start from; options override both.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..results.batch_spec import canonical
from ..variants.errors import suggest
from ..variants.registry import split_specs
from .case import DEVICES, DTYPES, MODES, SEEDS
from .environment import cores
from .errors import ConfigError
from .inputs import check_name
from .model_shapes import model_shape

PRESETS = ("quick", "standard", "long", "fidelity")
DEFAULT_PRESET = "quick"

MOST_SERVERS = 8
"""Fork servers, each of which has imported torch."""
Size = Annotated[int, Field(ge=1, strict=True)]


def parse_seconds(value: object) -> object:
    """90, "90", "90s", "20ms", "2m", "1.5h" -> seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", value)
    if not match:
        raise ValueError(f"{value!r} is not a time; write it as 90s, 20ms, 2m or 1.5h")
    return float(match[1]) * {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}[match[2]]


def as_list(value: object) -> object:
    """A single value stands for a list of one; text is split at its commas."""
    if isinstance(value, str):
        return split_specs(value)
    return value if isinstance(value, (list, tuple)) else [value]


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0, le=1e6, allow_inf_nan=False)]
Names = Annotated[list[str], BeforeValidator(as_list), Field(min_length=1)]
Sizes = Annotated[list[Size], BeforeValidator(as_list), Field(min_length=1)]
Flags = Annotated[list[Annotated[bool, Field(strict=True)]], BeforeValidator(as_list), Field(min_length=1)]


class Sweep(BaseModel):
    """One grid of cases."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: Names = ["all"]
    """Names, with parameters where they differ from the defaults. `all` is every other registered variant."""
    seq_lens: Sizes = [1024]
    """Keys; queries too, but for `query_lens` and for decode, which has one."""
    query_lens: Sizes | None = None
    """Queries, each length with every one of `seq_lens`; as many as keys where it is not given."""
    budgets: Sizes | None = None
    """Keys (or landmarks, or features) a query: a variant that is named without parameters and declares a budget comes
    once for each, with parameters chosen for it; one that declares none comes as it is."""
    batch_specs: Names | None = None
    """Batches of unlike requests, such as 2q2k_32q1s1k, in place of `seq_lens`: see results/batch_spec.py. Each is one
    case, a causal forward pass over all of its requests."""
    modes: Names = ["forward"]
    causal: Flags = [True]
    dtypes: Names = ["float32"]
    devices: Names = ["cpu"]
    threads: Annotated[
        list[Annotated[int, Field(ge=1, le=4096, strict=True)]], BeforeValidator(as_list), Field(min_length=1)
    ] = Field(default_factory=lambda: [cores()])
    inputs: Names = ["gaussian"]
    compiled: Flags = [False]
    """Whether torch.compile compiles the variant; its compile time is recorded apart."""
    batch: Size = 1
    shape: str | None = None
    """A model whose heads, kv_heads and head_dim are meant, in place of these three: see model_shapes.toml."""
    heads: Size = 4
    kv_heads: Size | None = None
    """Key/value heads; as many as query heads where it is not given."""
    head_dim: Size = 64
    seed: Annotated[int, Field(ge=0, lt=SEEDS, strict=True)] = 0

    @field_validator("modes", "dtypes", "devices")
    @classmethod
    def _known(cls, values: list[str], info: Any) -> list[str]:
        known = {"modes": MODES, "dtypes": DTYPES, "devices": DEVICES}[info.field_name]
        for value in values:
            name = re.sub(r"^cuda:\d+$", "cuda", value) if info.field_name == "devices" else value
            if name not in known:
                raise ValueError(f"unknown {info.field_name.removesuffix('s')} {value!r}; {suggest(value, known)}")
        return values

    @field_validator("batch_specs")
    @classmethod
    def _batches(cls, values: list[str] | None) -> list[str] | None:
        return None if values is None else list(dict.fromkeys(canonical(value) for value in values))

    @field_validator("inputs")
    @classmethod
    def _inputs(cls, values: list[str]) -> list[str]:
        for value in values:
            check_name(value)
        return values

    @model_validator(mode="before")
    @classmethod
    def _shaped(cls, data: Any) -> Any:
        """A model's name becomes its numbers, which a run keeps whatever the file of shapes says later."""
        if not isinstance(data, Mapping) or data.get("shape") is None:
            return data
        found = model_shape(str(data["shape"]))
        numbers = {"heads": found.heads, "kv_heads": found.kv_heads, "head_dim": found.head_dim}
        for key, value in numbers.items():
            if data.get(key) not in (None, value):
                raise ValueError(f"shape {found.name} has {key} {value}; leave out {key}, or the shape")
        return {**data, **numbers, "shape": found.name}

    @model_validator(mode="after")
    def _divides(self) -> Sweep:
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads, but {self.kv_heads} does not divide {self.heads}")
        return self

    @model_validator(mode="after")
    def _batch_fits(self) -> Sweep:
        """What a batch spec says itself, or has no say in, cannot be asked for beside it."""
        if self.batch_specs is None:
            return self
        if self.modes != ["forward"]:
            raise ValueError(
                "a batch spec is measured forward, and has its decode steps in itself (q1s1k): leave out modes"
            )
        if self.causal != [True]:
            raise ValueError("the requests of a batch spec attend causally: leave out causal = false")
        if self.batch != 1:
            raise ValueError("a batch spec says how many requests there are (8q1s1k): leave out batch")
        if self.query_lens is not None:
            raise ValueError("a batch spec says how many queries each request has (q16s1k): leave out query_lens")
        if self.compiled != [False]:
            raise ValueError("a batch spec has several shapes, and torch.compile compiles for one: leave out compiled")
        if "captured" in {name.partition(":")[0] for name in self.inputs}:
            raise ValueError("a batch spec has sequences of several lengths, and captured input has one: draw inputs")
        return self


class Config(BaseModel):
    """A whole run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sweep: list[Sweep] = Field(default_factory=lambda: [Sweep()], min_length=1)
    time_budget: Seconds | None = None
    """Seconds for the whole run: what is not begun by then is skipped, with that reason."""
    case_time: Seconds = 1.0
    """Seconds of samples for each case, where `precision` is not reached sooner."""
    turn_time: Annotated[Seconds, Field(le=10)] = 0.015
    """Seconds of timed calls in one turn on a CPU, a single call at least. What passes between turns (a process wakes,
    its threads fall asleep) takes some milliseconds each time: longer turns waste less, shorter ones compare more
    often."""
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Half width of the median's interval, as a share of it, at which a case has enough samples."""
    min_rounds: Annotated[int, Field(ge=5, strict=True)] = 8
    """Fewer than 5 samples have no spread worth the name. Where two runs are compared, 8 a side let a difference of
    times count among up to 321 cases, 6 among 23, 5 among 6."""
    max_rounds: Size = 100
    processes: Size = 3
    """How many processes at least, one after the other, take a case's samples on a CPU, from several fork servers in
    turn. Where a process lies in memory is chance that lasts as long as it does, some of it as long as its server, and
    can cost some percent, with an interval as narrow as ever: one process alone would measure its luck. They share the
    fewest rounds; where more are taken, a process ends when it has had its share of the case's time, or of
    `max_rounds`, and another follows. One process takes all of calls of .15 s or more in a pass, whose times it hardly
    touches; all of what compiles, since each would compile anew; and all of a batch of unlike requests."""
    passes: Size = 1
    """How often the run goes through its cases: each time with a share of every case's fewest rounds, by further
    processes, so that a figure is of all that time and not of one moment of it. Records come in the last pass. What
    compiles, and a batch of unlike requests, keep their process between passes, as far as there is memory; a group for
    which there is none, or on a GPU, is measured in one pass and says so."""
    patience: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the run's time, taken for 50 s longer than it is, that may go to like conditions on a CPU; 0: every turn
    counts. Where inputs and outputs are more than a core's own caches hold, and others use the cache that cores share,
    it goes to further rounds, until those that were calm are enough to count alone (rounds.py). On a virtual machine of
    several cores, a turn that was taken while others used them, or with them apart, is taken again, once they rest or
    were brought together (placement.py). What counts all the same says so in its record."""
    timeout: Seconds = 300.0
    """Seconds for any one step of a case; a case that takes longer is killed and recorded as `timeout`."""
    allocator: Literal["keep", "system"] = "keep"
    """Whether a measured process on a CPU keeps the memory that it frees, as a caching allocator does, or gives it back
    by the C library's rules and pays for fresh pages inside the measured call."""
    plugins: Annotated[list[str], BeforeValidator(as_list)] = []

    @model_validator(mode="after")
    def _orders(self) -> Config:
        if self.max_rounds < self.min_rounds:
            raise ValueError(f"max_rounds must not be below min_rounds, but {self.max_rounds} < {self.min_rounds}")
        if self.passes > self.min_rounds:
            raise ValueError(
                f"each pass takes some of min_rounds, but there are {self.passes} passes and {self.min_rounds} rounds: "
                "ask for fewer passes, or more min_rounds"
            )
        if self.passes > 1 and self.time_budget is not None:
            raise ValueError(
                "a time budget may end between two passes, and leave every case with too few rounds: leave out one of "
                "time_budget and passes"
            )
        return self

    @property
    def servers(self) -> int:
        """How many fork servers the processes of a case come from, one after the other."""
        return min(max(self.processes, self.passes), self.min_rounds, MOST_SERVERS)

    @property
    def named(self) -> set[str]:
        """Variants that were asked for by name."""
        return {spec.split("(")[0].strip() for sweep in self.sweep for spec in sweep.variants} - {"all"}


RUN_KEYS = frozenset(Config.model_fields) - {"sweep"}
SWEEP_KEYS = frozenset(Sweep.model_fields)


def build(
    source: str | Path | None = None, preset: str | None = None, options: Mapping[str, Any] | None = None
) -> Config:
    """A configuration from a TOML file or a preset, with options on top. Raises ConfigError."""
    if source is not None and preset is not None:
        raise ConfigError("give a configuration file or --preset, not both")
    options = {key: value for key, value in (options or {}).items() if value is not None}
    if source is not None:
        where, document = str(source), parse_toml(read_text(source, PRESETS), str(source))
    elif preset is not None:
        if preset not in PRESETS:
            raise ConfigError(f"unknown preset {preset!r}; {suggest(preset, PRESETS)}")
        where = f"preset {preset}"
        text = importlib.resources.files(f"{__package__}.presets").joinpath(f"{preset}.toml").read_text("utf-8")
        document = parse_toml(text, where)
    else:
        where, document = "the options", {}
    return from_dict(document, options, where)


def from_dict(document: Mapping[str, Any], options: Mapping[str, Any], where: str) -> Config:
    """A configuration from plain data: the top level is what each sweep starts from; options override all."""
    tables = document.get("sweep", [{}])
    if not isinstance(tables, Sequence) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"{where}: write each sweep as a table [[sweep]]")
    check_keys(document, RUN_KEYS | SWEEP_KEYS | {"sweep"}, where)
    for table in tables:
        check_keys(table, SWEEP_KEYS, f"{where}, [[sweep]]")
    check_keys(options, RUN_KEYS | SWEEP_KEYS, "the options")
    shared = {key: value for key, value in document.items() if key in SWEEP_KEYS}
    asked = {key: value for key, value in options.items() if key in SWEEP_KEYS}
    run = {key: value for source in (document, options) for key, value in source.items() if key in RUN_KEYS}
    for table in tables:
        both = {"batch_specs", "seq_lens"} & {*shared, *table, *asked}
        if len(both) == 2:
            raise ConfigError(
                f"{where}: batch_specs have lengths of their own; leave out seq_lens, or give each its own [[sweep]]"
            )
    return validated({**run, "sweep": [{**shared, **table, **asked} for table in tables]}, where)


def validated(document: Mapping[str, Any], where: str) -> Config:
    """A whole configuration, as run.json keeps it. Raises ConfigError."""
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{where}: {sentence(error)}") from None


def read_text(path: str | Path, presets: Sequence[str]) -> str:
    """A configuration file's text. Raises ConfigError, which names the presets where there is no such file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration file {path}; name one, or use --preset {'|'.join(presets)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where} is not TOML: {error}") from None


def check_keys(given: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; {suggest(key, known)}")


def sentence(error: ValidationError) -> str:
    """The first thing that is wrong, with the key that it is about and the value that was given."""
    detail = error.errors(include_url=False)[0]
    places = ("sweep", "task", "function-before")
    keys = [str(part) for part in detail["loc"] if isinstance(part, str) and part not in places]
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return message
    return f"{keys[0] if keys else 'value'} = {detail['input']!r}: {message[0].lower()}{message[1:]}"
