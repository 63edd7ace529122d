"""What to train: from a TOML file, a preset, options of the command line, or all of them.

A configuration holds settings of the whole run and a list of `[[task]]` tables. Keys at the top level of a file are
what each table starts from; a task's own defaults stand beneath both, and options override all. In a table, a task's
own parameters (kv_pairs, …) stand beside the rest.
"""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from ...variants.errors import suggest
from ...variants.registry import parse_spec
from ..config import Names, Seconds, Size, as_list, check_keys, parse_toml, read_text, sentence
from ..environment import cores
from ..errors import ConfigError
from .catalogue import TASKS, task_class
from .task import Task

PRESETS = ("smoke", "standard", "paper")
DEFAULT_PRESET = "smoke"
BUDGETS = ("steps", "tokens", "train_time")

Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Setting(BaseModel):
    """One task, the model that learns it, how it is trained, and with which variants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: SerializeAsAny[Task]
    variants: Names = ["all"]
    """Names, with parameters where they differ from the defaults. `all` is every other registered variant."""
    sizes: Literal["scaled", "own"] = "scaled"
    """Whether windows, chunks and the like that a variant's spec does not name shrink with the length, to about a
    quarter of it, so that a variant that leaves out something does so here too."""
    match_state: Size | None = None
    """Bytes that decoding should keep of a test sequence: sizes that the spec does not name are chosen for it."""

    seq_len: Size = 64
    eval_seq_len: Size | None = None
    """Of validation and test sequences; seq_len where it is not given."""
    vocab: Annotated[int, Field(ge=2, strict=True)] = 64

    d_model: Size = 64
    layers: Size = 2
    heads: Size = 2
    conv_size: Annotated[int, Field(ge=0, le=64, strict=True)] = 3
    """Tokens that the causal convolution in front of each attention sees, its own counted; 0: there is none."""
    mlp_ratio: Annotated[int, Field(ge=0, le=16, strict=True)] = 0
    """Hidden width of the MLP after each attention, over d_model; 0: there is none."""
    positions: Literal["none", "learned"] = "none"
    """Learned embeddings of absolute positions; or none, and order comes from convolutions and the causal mask."""

    lrs: Annotated[list[Rate], BeforeValidator(as_list), Field(min_length=1)] = [1e-3, 3e-3]
    seeds: Annotated[list[Seed], BeforeValidator(as_list), Field(min_length=1)] = [0, 1, 2]
    batch: Size = 32
    steps: Size | None = None
    tokens: Size | None = None
    train_time: Seconds | None = None
    """Seconds of training, evaluations not counted. Of steps, tokens and train_time, what is reached first ends it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After the warm-up. A cosine falls to zero at the end of steps or tokens; there is none for a time."""
    warmup: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.1
    """Share of the steps in which the learning rate rises linearly; with a time budget alone, over 100 steps."""
    weight_decay: Annotated[float, Field(ge=0, le=10, strict=True)] = 0.01
    clip: Annotated[float, Field(gt=0, strict=True)] = 1.0
    """Largest l2 norm of the gradient."""
    eval_every: Size = 50
    """Steps between two evaluations on the validation set."""
    eval_examples: Size = 256
    """Validation sequences; the test set has twice as many."""
    mastery: Share | None = 0.99
    """Accuracy on the validation set that ends a training; None: nothing does but the budget. At the top level of a
    file it is that of the tasks that are measured by accuracy."""
    skip_after_mastery: Flag = False
    """Leaves out the learning rates that are left once all seeds have mastered the task at one."""
    device: str = "cpu"
    threads: Annotated[int, Field(ge=1, le=4096, strict=True)] = 1
    alone: Flag = False
    """One training at a time, the machine to itself, so that its times may be compared."""

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if value != "cpu" and value.split(":")[0] != "cuda":
            raise ValueError(f"unknown device {value!r}; {suggest(value, ('cpu', 'cuda'))}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Setting:
        if self.d_model % self.heads:
            raise ValueError(f"heads must divide d_model, but {self.heads} does not divide {self.d_model}")
        if not any(getattr(self, budget) for budget in BUDGETS):
            raise ValueError(f"{self.task.name} needs a budget: steps, tokens or train_time")
        if self.mastery is not None and self.task.metric != "accuracy":
            raise ValueError(
                f"mastery is an accuracy, and {self.task.name} is measured in {self.task.metric.replace('_', ' ')}: "
                "leave it out there"
            )
        if self.schedule == "cosine" and self.planned_steps is None:
            raise ValueError(
                "a cosine schedule needs steps or tokens; with train_time alone, say schedule = 'constant'"
            )
        if self.positions == "learned" and self.held_out_len > self.seq_len:
            raise ValueError(
                f"learned positions end at seq_len {self.seq_len}, so eval_seq_len cannot be {self.held_out_len}"
            )
        for length in {self.seq_len, self.held_out_len}:
            if problem := self.task.problem(length, self.vocab):
                raise ValueError(problem)
        return self

    @property
    def held_out_len(self) -> int:
        return self.eval_seq_len or self.seq_len

    @property
    def planned_steps(self) -> int | None:
        """Steps that the budget allows where it is one of steps or tokens."""
        by_tokens = None if self.tokens is None else max(1, self.tokens // (self.batch * self.seq_len))
        return min((steps for steps in (self.steps, by_tokens) if steps is not None), default=None)

    def identity(self) -> dict[str, Any]:
        """The fields of a record's identity that the setting decides: all but the variant, lr and seed."""
        return {
            "task": self.task.name,
            "task_params": {**self.task.params(), "eval_seq_len": self.held_out_len},
            "seq_len": self.seq_len,
            "vocab": self.vocab,
            "d_model": self.d_model,
            "layers": self.layers,
            "heads": self.heads,
            "backbone": {
                key: getattr(self, key)
                for key in ("conv_size", "mlp_ratio", "positions", "schedule", "warmup", "weight_decay", "clip")
            },
            "batch": self.batch,
            "budget": {
                **{"train_time_s" if key == "train_time" else key: getattr(self, key) for key in BUDGETS},
                **{key: getattr(self, key) for key in ("eval_every", "eval_examples", "mastery")},
            },
            "dtype": "float32",
            "device": self.device,
            "threads": self.threads,
        }


class TasksConfig(BaseModel):
    """A whole run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: list[Setting] = Field(min_length=1)
    time_budget: Seconds | None = None
    """Seconds for the whole run: what is not begun by then is skipped, with that reason."""
    timeout: Seconds = 86_400.0
    """Seconds for one training; one that takes longer is killed and recorded as `timeout`."""
    checkpoint_time: Seconds = 20.0
    """Seconds of training between two checkpoints."""
    jobs: Size = Field(default_factory=cores)
    """Trainings at a time, of those that need not be alone."""
    plugins: Annotated[list[str], BeforeValidator(as_list)] = []

    @property
    def named(self) -> set[str]:
        """Variants that were asked for by name."""
        return {spec.split("(")[0].strip() for setting in self.task for spec in setting.variants} - {"all"}


RUN_KEYS = frozenset(TasksConfig.model_fields) - {"task"}
SETTING_KEYS = frozenset(Setting.model_fields) - {"task"}


def build(
    source: str | Path | None = None, preset: str | None = None, options: Mapping[str, Any] | None = None
) -> TasksConfig:
    """A configuration from a TOML file or a preset (smoke where neither is given), with options on top.

    The option `tasks` names tasks, with parameters or settings in brackets: mqar(kv_pairs=4,seq_len=32). Those that the
    file has are taken from there, others have their own defaults. The option `text` is the file that the task text
    reads. Raises ConfigError.
    """
    if source is not None and preset is not None:
        raise ConfigError("give a configuration file or --preset, not both")
    options = {key: value for key, value in (options or {}).items() if value is not None}
    if source is not None:
        where, text = str(source), read_text(source, PRESETS)
    else:
        preset = preset or DEFAULT_PRESET
        if preset not in PRESETS:
            raise ConfigError(f"unknown preset {preset!r}; {suggest(preset, PRESETS)}")
        where = f"preset {preset}"
        text = importlib.resources.files(__package__).joinpath(f"{preset}.toml").read_text("utf-8")
    return from_dict(parse_toml(text, where), options, where)


def from_dict(
    document: Mapping[str, Any], options: Mapping[str, Any] | None = None, where: str = "the configuration"
) -> TasksConfig:
    """A configuration from plain data, with the keys of a file. Raises ConfigError."""
    options = dict(options or {})
    tables = document.get("task", [])
    if not isinstance(tables, Sequence) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError(f"{where}: write each task as a table [[task]]")
    asked, text = options.pop("tasks", None), options.pop("text", None)
    check_keys(document, RUN_KEYS | SETTING_KEYS | {"task"}, where)
    check_keys(options, RUN_KEYS | SETTING_KEYS, "the options")
    if any(options.get(budget) is not None for budget in BUDGETS):
        options = {**dict.fromkeys(BUDGETS), **options}  # a budget that is asked for stands in place of the file's
    if options.get("train_time") and not (options["steps"] or options["tokens"]):
        options.setdefault("schedule", "constant")
    shared = {key: value for key, value in document.items() if key in SETTING_KEYS}
    over = {key: value for key, value in options.items() if key in SETTING_KEYS}
    run = {key: value for source in (document, options) for key, value in source.items() if key in RUN_KEYS}
    settings = [_setting(table, shared, over, text, where) for table in _chosen(tables, asked, where)]
    if text is not None and not any(setting["task"].name == "text" for setting in settings):
        raise ConfigError("--text is read by the task text; add --tasks text, or leave it out")
    try:
        return TasksConfig.model_validate({**run, "task": settings})
    except ValidationError as error:
        raise ConfigError(f"{where}: {sentence(error)}") from None


def restored(document: Mapping[str, Any], where: str) -> TasksConfig:
    """A configuration as run.json keeps it. Raises ConfigError."""
    tables = document.get("task")
    if not isinstance(tables, list) or not all(isinstance(t, dict) and isinstance(t.get("task"), dict) for t in tables):
        raise ConfigError(f"{where} holds no configuration of trained tasks")
    flat = [
        {"name": t["name"], **t["task"], **{k: v for k, v in t.items() if k not in ("name", "task")}} for t in tables
    ]
    return from_dict({**document, "task": flat}, {}, where)


def stored(config: TasksConfig) -> dict[str, Any]:
    """What run.json keeps: everything spelled out."""
    document = config.model_dump(mode="json")
    for table, setting in zip(document["task"], config.task, strict=True):
        table["name"] = setting.task.name
    return document


def _chosen(tables: Sequence[Mapping[str, Any]], asked: Any, where: str) -> list[Mapping[str, Any]]:
    """The tables that are meant: all of the file's, or those of the tasks asked for; one that it lacks is new."""
    if asked is None:
        if not tables:
            raise ConfigError(f"{where} names no task; add a table [[task]], or say which with --tasks")
        return list(tables)
    chosen: list[Mapping[str, Any]] = []
    specs: Any = as_list(asked)
    for spec in specs:
        try:
            name, given = parse_spec(spec)
        except ValueError:
            raise ConfigError(f"{spec!r} is not a task: write it as name or name(parameter=value, …)") from None
        task_class(name)
        there = [table for table in tables if table.get("name") == name] or [{"name": name}]
        chosen += [{**table, **given} for table in there]
    return chosen


def _setting(
    table: Mapping[str, Any], shared: Mapping[str, Any], over: Mapping[str, Any], text: str | None, where: str
) -> dict[str, Any]:
    """The task built, and the keys of its setting from its defaults, the top level, its table and the options."""
    name = table.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"{where}: a [[task]] needs its name, one of {', '.join(TASKS)}")
    cls = task_class(name)
    own = frozenset(cls.model_fields)
    check_keys(table, own | SETTING_KEYS | {"name"}, f"{where}, task {name}")
    params = {key: value for key, value in table.items() if key in own}
    if name == "text":
        path = params.get("text") if text is None else text
        params["text"] = None if path is None else os.path.abspath(path)
    try:
        task = cls(**params)
    except ValidationError as error:
        raise ConfigError(f"{where}, task {name}: {sentence(error)}") from None
    given = {key: value for key, value in table.items() if key in SETTING_KEYS}
    if cls.metric != "accuracy":  # what masters the other tasks of a file would end this one before its first step
        shared, over = ({k: v for k, v in each.items() if k != "mastery"} for each in (shared, over))
    return {**cls.defaults, **shared, **given, **over, "task": task}
