"""A training that is killed goes on along the same curve, and a run loses nothing. Kills are real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import attnbench
from attnbench.bench.tasks import checkpoint
from attnbench.bench.tasks.config import from_dict
from attnbench.bench.tasks.training import Training
from attnbench.results.task_record import TaskRecord
from attnbench.results.tasks import load_tasks

SETTING = {
    "tasks": ["mqar(kv_pairs=4,seq_len=32)"],
    "d_model": 16,
    "eval_every": 7,
    "eval_examples": 16,
    "batch": 8,
    "mastery": None,
}


def lines(record: TaskRecord | dict[str, Any]) -> list[tuple[Any, ...]]:
    """A curve without its times."""
    curve = record["curve"] if isinstance(record, dict) else record.curve
    return [(point.step, point.tokens, point.loss, point.value) for point in curve]


class Killed(Exception):
    pass


@pytest.mark.parametrize("variant", ["sdpa", "gated_delta", "reformer"])
def test_a_checkpoint_goes_on_to_the_bit(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut in the middle of an interval, once and again; loss sums, optimiser and randomness all come back."""
    torch.set_num_threads(1)
    setting = from_dict({}, {**SETTING, "steps": 30}).task[0]

    def training() -> Training:
        return Training(attnbench.get(variant), setting, 3e-3, 0)

    whole = training().run(tmp_path / "whole.safetensors", 1e9)
    step = Training.step
    for cut in (11, 24):

        def dies(self: Training, index: int, cut: int = cut) -> float:
            if index == cut:
                raise Killed
            return step(self, index)

        monkeypatch.setattr(Training, "step", dies)
        with pytest.raises(Killed):
            training().run(tmp_path / "cut.safetensors", 0.0)
    monkeypatch.setattr(Training, "step", step)
    found = training().run(tmp_path / "cut.safetensors", 1e9)
    assert found["resumes"] == 2
    assert lines(found) == lines(whole)
    assert found["value"] == whole["value"]


def test_a_broken_checkpoint_is_none(tmp_path: Path) -> None:
    setting = from_dict({}, {**SETTING, "steps": 2}).task[0]
    training = Training(attnbench.get("sdpa"), setting, 1e-3, 0)
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"half of a file")
    assert checkpoint.load(path, training.model, training.optimiser) is None
    checkpoint.save(path, training.model, training.optimiser, {"step": 1})
    assert checkpoint.load(path, training.model, training.optimiser) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


RUN = """
import sys
from attnbench.bench.tasks import from_dict, run_tasks, resume_tasks
if __name__ == "__main__":
    out, again = sys.argv[1], sys.argv[2] == "again"
    config = {config}
    resume_tasks(out) if again else run_tasks(from_dict({{}}, config), out)
"""


@pytest.mark.slow
def test_a_run_killed_by_force_resumes_to_the_same_curves(tmp_path: Path) -> None:
    """SIGKILL in the middle of a training: its children die with it, and --resume gives what no kill would have."""
    config = {**SETTING, "variants": ["sdpa", "delta"], "seeds": [0], "lrs": [3e-3], "steps": 400, "eval_every": 40}
    config |= {"checkpoint_time": 0.1, "jobs": 1}
    script = tmp_path / "run.py"
    script.write_text(RUN.format(config=config))

    def start(out: Path, how: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, script, out, how], start_new_session=True)

    assert start(tmp_path / "whole", "first").wait(300) == 0
    process, cut = start(tmp_path / "cut", "first"), tmp_path / "cut"
    end = time.monotonic() + 120
    while not list(cut.glob("checkpoints/*.safetensors")):
        assert time.monotonic() < end
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len((cut / "tasks.jsonl").read_text().splitlines()) < 2
    assert start(cut, "again").wait(300) == 0
    whole, found = ({r.variant: r for r in load_tasks(tmp_path / name)} for name in ("whole", "cut"))
    assert sum(record.resumes for record in found.values()) >= 1
    for name, record in whole.items():
        assert lines(found[name]) == lines(record)
        assert found[name].value == record.value
        assert found[name].task_id == record.task_id
    assert not (cut / "checkpoints").exists()
    assert json.loads((cut / "run.json").read_text())["finished_at"]
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and str(cut) in _command(pid)]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
