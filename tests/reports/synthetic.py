"""Run folders made of plausible figures through the real classes, so that a report can be made in a moment.

Times follow a + b·N^p, with rounds that share the machine's drift; ratios are computed from the samples as the harness
does. Nothing here is a measurement.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from attnbench.results.record import Record, case_id, group_id
from attnbench.results.run import Ceilings, Machine, Run
from attnbench.results.statistics import median_interval, paired_ratio
from attnbench.results.store import RunFolder
from attnbench.results.task_record import TaskRecord, task_id
from attnbench.results.tasks import TaskFolder

Fields = dict[str, Any]

# name: family, kind, parameters, time exponent, microseconds at N = 1024, memory exponent, MiB at N = 1024, fidelity
VARIANTS: dict[str, tuple[str, str, Fields, int, float, int, float, tuple[float, float]]] = {
    "naive": ("full", "exact", {}, 2, 9800.0, 2, 33.0, (0, 0)),
    "sdpa": ("full", "exact", {"backend": "auto"}, 2, 3100.0, 1, 1.1, (0, 0)),
    "xformers": ("full", "exact", {}, 2, 0.0, 1, 0.0, (0, 0)),
    "flex": ("full", "exact", {"block_size": 128}, 2, 3900.0, 1, 1.2, (0, 0)),
    "chunked_exact": ("chunked", "exact", {"chunk_size": 256}, 2, 7600.0, 1, 3.1, (0, 0)),
    "block_local": ("chunked", "approximate", {"chunk_size": 256}, 1, 2100.0, 1, 6.0, (0.61, 2.1)),
    "sliding_window": ("sparse", "approximate", {"window_size": 512}, 1, 3500.0, 1, 11.0, (0.48, 1.9)),
    "sink_window": ("sparse", "approximate", {"sink_size": 4, "window_size": 512}, 1, 3800.0, 1, 11.5, (0.14, 1.9)),
    "linear_elu": ("linear", "own", {"chunk_size": 128}, 1, 1500.0, 1, 2.5, (0, 0)),
    "performer": ("linear", "approximate", {"num_features": 256, "seed": 0}, 1, 4600.0, 1, 9.5, (0.92, 4.3)),
    "nystrom": ("linear", "approximate", {"num_landmarks": 64}, 1, 2600.0, 1, 5.0, (0.35, 1.2)),
}

GAUSSIAN = {"inputs": "gaussian", "batch": 1, "heads": 4, "kv_heads": 4, "head_dim": 64}
CAPTURED = {"inputs": "captured", "batch": 6, "heads": 12, "kv_heads": 12, "head_dim": 32}
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


def identity(variant: str, length: int, **fields: Any) -> Fields:
    """The fields that say which case it is."""
    params = VARIANTS[variant][2] if variant in VARIANTS else {}
    return {
        "variant": variant,
        "params": params,
        "mode": "forward",
        "causal": True,
        "n_q": length,
        "n_k": length,
        "dtype": "float32",
        "device": "cpu",
        "threads": 2,
        "compiled": False,
        "seed": 0,
        "requests": None,
        **GAUSSIAN,
        **fields,
    }


def record(variant: str, length: int, *, status: str = "ok", machine: str = "f00d" * 4, **fields: Any) -> Record:
    """One record; fields of the identity and of the outcome alike may be given."""
    names = identity(variant, length)
    who = identity(variant, length, **{k: v for k, v in fields.items() if k in names})
    family, kind = VARIANTS[variant][:2] if variant in VARIANTS else ("full", "exact")
    rest = {"family": family, "kind": kind, **{k: v for k, v in fields.items() if k not in names}}
    return Record(
        case_id=case_id(who),
        group_id=group_id(who),
        status=status,  # type: ignore[arg-type]
        machine=machine,
        started_at="2026-11-22T12:00:00+00:00",
        **who,
        **rest,
    )


def timed(variant: str, length: int, time_s: float, *, baseline: str, base_s: float, **fields: Any) -> Record:
    """An ok record with round figures: the ratio is time_s / base_s, its interval 2 % wide on both sides."""
    ratio = time_s / base_s
    spread = 0.0 if variant == baseline else 0.02
    return record(
        variant,
        length,
        **{
            "time_s": time_s,
            "time_s_low": time_s * 0.99,
            "time_s_high": time_s * 1.01,
            "baseline": baseline,
            "ratio": ratio,
            "ratio_low": ratio * (1 - spread),
            "ratio_high": ratio * (1 + spread),
            "peak_bytes": length * 1000,
            **fields,
        },
    )


def run(cases: int, **fields: Any) -> Run:
    """A run.json."""
    machine = Machine(
        fingerprint=fields.pop("fingerprint", "f00d" * 4),
        cpu=fields.pop("cpu", "Example CPU at 2.6 GHz"),
        cores=2,
        memory_bytes=8 << 30,
        system="Linux 6.1 x86_64",
        python="3.11.9",
        libraries={"torch": "2.13.0+cpu", "numpy": "2.4.6"},
    )
    return Run(
        **{
            "attnbench_version": "0.1.0",
            "command": "attnbench run --preset quick",
            "config": {"precision": 0.02},
            "git_commit": "0123456789abcdef",
            "started_at": "2026-11-22T12:00:00+00:00",
            "finished_at": "2026-11-22T12:02:40+00:00",
            "cases": cases,
            "machine": machine,
            "ceilings": [
                Ceilings(device="cpu", dtype="float32", threads=2, matmul_flops_per_s=1.4e11, copy_bytes_per_s=1.2e10)
            ],
            "inputs": {
                "captured": {
                    "model": "MiniLM-L6",
                    "text": "pydoc_data.topics",
                    "text_sha256": "ab" * 32,
                    "lengths": [256, 512],
                }
            },
            **fields,
        }
    )


def write(path: Path, records: list[Record], **fields: Any) -> Path:
    """A run folder with these records."""
    folder = RunFolder.create(path, run(fields.pop("cases", len(records)), **fields))
    folder.append(records)
    folder.close()
    return path


def sweep(seed: int = 0, machine: str = "f00d" * 4) -> list[Record]:
    """What the default sweep might give."""
    rng = random.Random(seed)
    records: list[Record] = []
    for length in LENGTHS:
        records += _group(rng, length, machine, mode="forward", causal=True)
        if length <= 4096:
            records += _group(rng, length, machine, mode="train", causal=True)
        if length <= 2048:
            records += _group(rng, length, machine, mode="forward", causal=False)
        if length <= 512:
            records += _group(rng, length, machine, mode="forward", causal=False, **CAPTURED)
    return records


def _group(rng: random.Random, length: int, machine: str, **fields: Any) -> list[Record]:
    """All variants of one setting and length, timed in rounds that share their drift."""
    who = identity("naive", length, **fields)
    drift = [1 + 0.1 * rng.random() for _ in range(20)]
    work = who["batch"] * who["heads"] * who["head_dim"] / 256 * (3.3 if fields["mode"] == "train" else 1.0)
    found: dict[str, tuple[Fields, list[float]]] = {}
    bare: list[Record] = []
    for name, (family, kind, _, exponent, micros, grows, mebibytes, (real, drawn)) in VARIANTS.items():
        why = _refusal(name, length, fields)
        if why is not None:
            wrong = {"error": 3.1e-3, "error_allowed": 1.2e-6, "error_of": "dk"} if why[0] == "incorrect" else {}
            bare.append(record(name, length, status=why[0], reasons=[why[1]], machine=machine, **fields, **wrong))
            continue
        half = 0.55 if fields["causal"] and exponent == 2 and name != "naive" else 1.0
        time_s = 1e-6 * work * (micros * half * (length / 1024) ** exponent + 90 * rng.random()) + 4e-5
        peak = int(work * mebibytes * 2**20 * (length / 1024) ** grows) // 64 * 64
        close = real if fields.get("inputs") == "captured" else drawn
        if name.endswith("window") and length <= 512:
            close = 2e-7
        fidelity = {
            "fidelity_error": close * (1 + 0.05 * rng.random()),
            "fidelity_cosine": 1 / (1 + close),
            "fidelity_error_uniform": 0.62 if fields.get("inputs") == "captured" else 1.0,
        }
        outcome = {
            "family": family,
            "kind": kind,
            "peak_bytes": peak,
            "peak_rss_bytes": peak + (1 << 18),
            "error": 10 ** rng.uniform(-7.2, -6.4),
            "error_allowed": 1.2e-6,
            "error_of": "dq" if fields["mode"] == "train" else "out",
            "checked_rows": min(length, 256),
            "ceiling_share": 0.02 + 0.5 * rng.random(),
            **(fidelity if kind == "approximate" and fields["mode"] == "forward" else {}),
        }
        found[name] = (outcome, [time_s * d * (1 + 0.03 * rng.random()) for d in drift])
    base = min((n for n in found if VARIANTS[n][1] == "exact"), key=lambda n: median_interval(found[n][1]).value)
    for name, (outcome, samples) in found.items():
        time, ratio = median_interval(samples), paired_ratio(samples, found[base][1])
        outcome |= {
            "time_s": time.value,
            "time_s_low": time.low,
            "time_s_high": time.high,
            "samples_s": samples,
            "stopped_by": "precision" if rng.random() < 0.8 else "time",
            "tokens_per_s": who["batch"] * length / time.value,
            "baseline": base,
            "ratio": ratio.value,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
        }
        bare.append(record(name, length, machine=machine, **fields, **outcome))
    return bare


def _refusal(name: str, length: int, fields: Fields) -> tuple[str, str] | None:
    """Why a case of the sweep gives no figure, if so."""
    if name == "xformers":
        return (
            "unsupported",
            "xformers: device=cpu (supported: {'cuda'}) for every operator",
        )
    if name == "nystrom" and fields["causal"]:
        return "unsupported", "nystrom has no causal form: its segment means mix the future into the past"
    if name == "flex" and fields["mode"] == "train":
        return "unsupported", "flex runs forward only on a CPU"
    if name == "naive" and fields["mode"] == "train" and length == 4096:
        return "oom", "memory ran out: 4.8 GiB were asked for"
    if name == "performer" and fields["mode"] == "train" and length == 2048:
        return "timeout", "took longer than 300 s in sample"
    if name == "performer" and fields["mode"] == "train" and length > 2048:
        return "skipped", "ended as timeout at length 2048 already"
    if name == "block_local" and fields["mode"] == "train" and length == 256:
        return "incorrect", "dk differs from the definition by 0.0031 of its largest value, 1.2e-06 is allowed"
    return None


def many(number: int = 10_000) -> list[Record]:
    """About as many records as asked for: the sweep again and again at other shapes, every case of its own."""
    found: list[Record] = []
    rng = random.Random(1)
    for head_dim in (32, 48, 64, 80, 96, 112, 128, 160, 192, 256):
        for heads in (1, 2, 4, 8, 16):
            for length in LENGTHS:
                for mode in ("forward", "train"):
                    if len(found) >= number:
                        return found[:number]
                    shape = {"heads": heads, "kv_heads": heads, "head_dim": head_dim}
                    found += _group(rng, length, "f00d" * 4, mode=mode, causal=True, **shape)
                    found += _group(rng, length, "f00d" * 4, mode=mode, causal=False, **shape)
    return found


def decoded() -> list[Record]:
    """Steps of decoding: time with as much past, and what is kept of it."""
    found = []
    for length in (1024, 4096, 16384):
        for name, grows in (("sdpa", True), ("linear_elu", False)):
            time, state = (1e-7 * length, 512 * length) if grows else (2e-4, 33_000)
            fields = {"baseline": "sdpa", "base_s": 1e-7 * length, "mode": "decode", "n_q": 1, "state_bytes": state}
            found.append(timed(name, length, time, **fields))
    return found


def budgets() -> list[Record]:
    """Windows of several sizes: how near to softmax attention more keys come, beside the nulls; their recall."""
    found = [timed("sdpa", 512, 0.1, baseline="sdpa", base_s=0.1, **CAPTURED, recall_32=1.0, recall_64=1.0)]
    for window in (32, 64, 128):
        close = {"fidelity_error": 8 / window, "fidelity_error_window": 9 / window, "fidelity_error_oracle": 2 / window}
        recall = {"recall_32": window / 128, "recall_64": window / 256, "flops_needed": window * 10**6}
        fields = {"params": {"window_size": window}, "fidelity_keys": float(window), **close, **recall}
        found.append(timed("sliding_window", 512, window * 1e-3, baseline="sdpa", base_s=0.1, **CAPTURED, **fields))
    return found


def task(variant: str, *, seed: int = 0, lr: float = 1e-3, top: float = 0.9, **fields: Any) -> TaskRecord:
    """One training of a small model that comes as far as `top`."""
    family, kind, params = VARIANTS[variant][:3]
    curve = [
        {
            "step": s,
            "tokens": s * 4096,
            "wall_s": s / 10,
            "loss": None if s == 0 else 2.0 / s,
            "value": top * s / (s + 9),
        }
        for s in (0, 10, 100, 1000)
    ]
    identity = {
        "task": "recall",
        "task_params": {"pairs": 32},
        "variant": variant,
        "params": params,
        "seq_len": 256,
        "vocab": 128,
        "d_model": 64,
        "layers": 2,
        "heads": 2,
        "backbone": {"convolution": 3},
        "lr": lr,
        "seed": seed,
        "batch": 32,
        "budget": {"steps": 1000},
        "dtype": "float32",
        "device": "cpu",
        "threads": 2,
    }
    rest = {
        "family": family,
        "kind": kind,
        "status": "ok",
        "metric": "accuracy",
        "value": top,
        "chance": 1 / 64,
        "curve": curve,
        "steps": 1000,
        "parameters": 81_000,
        "state_bytes": 65_536 if kind == "exact" else 9_000,
        "wall_s": 100.0,
        "machine": "f00d" * 4,
        "started_at": "2026-11-22T12:00:00+00:00",
        **fields,
    }
    return TaskRecord.model_validate({"task_id": task_id(identity), **identity, **rest})


def write_tasks(path: Path, records: list[TaskRecord]) -> Path:
    """A run folder of trained tasks."""
    folder = TaskFolder.create(path, run(len(records)))
    folder.append(records)
    folder.close()
    return path


if __name__ == "__main__":
    import sys

    made = sweep()
    print(write(Path(sys.argv[1]), made), len(made), "records")
