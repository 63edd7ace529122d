"""Two revisions measured in turns: a planted slow-down is found, a change of comments is not, and nothing stays."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from attnbench.bench import cores, environment, revisions, timing, worktrees
from attnbench.bench import peer as peer_script
from attnbench.bench.cli import Sentences
from attnbench.bench.cli_compare import compare as command
from attnbench.bench.peers import Peer, PeerFailed
from attnbench.bench.turns import PAIRS

from .test_stopping import heeding

ROOT = Path(worktrees.OURS)
SMALL = ["--heads", "2", "--head-dim", "32", "--threads", "1", "--seq-lens", "256"]
NAIVE = Path("variants/full/naive.py")
LAST_LINE = "        return weights @ v\n"
SEVERAL = len(cores.usable()) > 1 and cores.may_keep()


def git(repository: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{what}": "x@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package's sources under git: the commits base, comments, slow, bigger, wrong, later, broken and old."""
    home = tmp_path_factory.mktemp("repository") / "attnbench"
    home.mkdir()
    shutil.copy(ROOT / "__init__.py", home)
    for folder in ("variants", "bench", "results"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    git(home, "init", "--quiet", "--initial-branch=main")

    def commit(name: str, naive: str | None = None) -> None:
        if naive is not None:
            (home / NAIVE).write_text(naive)
        git(home, "add", "--all")
        git(home, "commit", "--quiet", "--message", name)
        git(home, "tag", name)

    commit("base")
    text = (home / NAIVE).read_text()
    assert text.count(LAST_LINE) == 1
    commit("comments", text.replace(LAST_LINE, f"        # every query's weights sum to one\n{LAST_LINE}"))
    again = "        out = (q * scale @ k.mT).softmax(dim=-1) @ v\n        del out\n"
    commit("slow", text.replace(LAST_LINE, again + again + LAST_LINE))
    commit("bigger", text.replace(LAST_LINE, f"        kept = weights.clone()\n        del kept\n{LAST_LINE}"))
    commit("wrong", text.replace(LAST_LINE, "        return weights @ v * 1.01\n"))
    later = (
        "        Naive.calls = getattr(Naive, 'calls', 0) + 1\n"
        "        out = weights @ v\n"
        "        v.data.mul_(1 - (Naive.calls > 3))\n"
        "        return out\n"
    )
    commit("later", text.replace(LAST_LINE, later))
    commit("broken", text.replace(LAST_LINE, '        raise SystemExit("planted")\n'))
    commit(
        "dead",
        text.replace(LAST_LINE, "        import os\n\n        os.kill(os.getpid(), 9)\n        return weights @ v\n"),
    )
    commit("without", text.replace('    "naive",\n', '    "plain",\n', 1))
    (home / "variants/api.py").unlink()
    commit("old")
    return home


@pytest.fixture
def compared(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(worktrees, "REPOSITORY", repository)

    def run(*arguments: object, pairs: int = 1) -> Result:
        monkeypatch.setattr(revisions, "PAIRS", pairs)
        group: click.Group = Sentences(commands={"compare": command})
        return CliRunner().invoke(group, ["compare", "--git", *map(str, arguments)])

    yield run
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert children() == []


def children() -> list[str]:
    """Peers of this process that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if "peer.py" in words and parent == str(os.getpid()):
                found.append(words)
    return found


def findings(answer: Result, *verdicts: str) -> list[tuple[str, str]]:
    told = json.loads(answer.stdout)
    return [(f["word"], f["measure"]) for f in told["findings"] if f["verdict"] in (verdicts or ("worse", "better"))]


@pytest.mark.slow
def test_a_planted_slow_down_is_found_and_a_change_of_comments_is_not(compared: Any) -> None:
    # the planted work doubles a call; below that much any machine's luck may be called now and then
    options = ["--variants", "naive", *SMALL, "--rounds", "180", "--threshold", "20%", "--json"]
    slow = compared("base", "slow", *options, pairs=PAIRS)
    assert slow.exit_code == 1, slow.stderr
    assert ("slower", "time") in findings(slow)
    silent = compared("base", "comments", *options, pairs=PAIRS)
    assert silent.exit_code == 0, silent.stdout
    assert findings(silent, "worse", "better") == []


def test_turns_of_both_revisions_have_one_size(compared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    calls = itertools.count(4)  # as if each process had found another speed
    ask = Peer.ask

    def seen(peer: Peer, what: str, **arguments: Any) -> dict[str, Any]:
        answer = ask(peer, what, **arguments)
        if what == "set_up":
            answer["size"] = [3, next(calls), False]
        if what == "resize":
            asked.append(arguments["size"])
        return answer

    monkeypatch.setattr(Peer, "ask", seen)
    compared("base", "comments", "--variants", "naive", *SMALL, "--rounds", "6", pairs=2)
    assert asked == [[3, 4, False]] * 4


def test_a_revision_that_dies_between_set_up_and_turns_is_worse_by_its_status(
    compared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, resized = Peer.ask, itertools.count(1)

    def killed(peer: Peer, what: str, **arguments: Any) -> dict[str, Any]:
        if what == "resize" and next(resized) == 2:  # BASE's comes first
            peer.process.kill()
        return ask(peer, what, **arguments)

    monkeypatch.setattr(Peer, "ask", killed)
    answer = compared("base", "comments", "--variants", "naive", *SMALL, "--rounds", "3", "--json")
    assert answer.exit_code == 1, answer.stderr
    assert [(f["word"], f["measure"]) for f in json.loads(answer.stdout)["findings"]] == [("crashed", "status")]


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ([[2, 2, True], [3, 1, True]], [[3, 1, True]] * 2),
        ([[2, 1, True], [1, 1, False]], [[1, 1, True]] * 2),
        ([[2, 100, True], [1, 1, False]], [[2, 100, True], [1, 1, False]]),
    ],
)
def test_the_smaller_size_is_taken_by_both_but_where_calls_have_nothing_in_common(
    sizes: list[list[int]], taken: list[list[int]]
) -> None:
    assert revisions._alike(sizes) == taken
    assert revisions._alike(sizes[::-1]) == taken[::-1]


def test_a_peer_takes_turns_of_the_size_it_was_given() -> None:
    calls: list[int] = []
    watch = timing.Stopwatch(lambda: calls.append(1), "cpu")
    peer_script.resize({"stopwatch": watch}, {"size": [3, 5, True]})
    assert peer_script.sample({"stopwatch": watch}, {})["seconds"] > 0
    assert len(calls) == 1 + 3 * 5


@pytest.mark.parametrize("may", [True, False])
def test_where_no_process_can_be_kept_to_a_core_that_is_said(
    compared: Any, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "may_keep", lambda: may)
    monkeypatch.setattr(environment, "cores", lambda: 2)
    answer = compared("base", "comments", "--variants", "naive", *SMALL, "--rounds", "3", "--json")
    assert any("keeps no process to a core" in note for note in json.loads(answer.stdout)["notes"]) is not may


@pytest.mark.skipif(not SEVERAL, reason="there is one core, or the system keeps no process to it")
def test_both_revisions_are_measured_on_one_core_of_each_pair(compared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[int, ...]] = []
    ask = Peer.ask

    def seen(peer: Peer, what: str, **arguments: Any) -> dict[str, Any]:
        answer = ask(peer, what, **arguments)
        if what == "set_up":
            places.append(tuple(os.sched_getaffinity(peer.process.pid)))
        return answer

    monkeypatch.setattr(Peer, "ask", seen)
    compared("base", "comments", "--variants", "naive", *SMALL, "--rounds", "10", pairs=2)
    first, second = places[:2], places[2:]
    assert first[0] == first[1] != second[0] == second[1]
    assert {len(place) for place in places} == {1}


def test_a_revision_that_needs_more_memory_is_found_to_the_byte(compared: Any) -> None:
    answer = compared("base", "bigger", "--variants", "naive", *SMALL, "--rounds", "18", "--json", "--all")
    assert answer.exit_code == 1, answer.stderr
    (peak,) = [f for f in json.loads(answer.stdout)["findings"] if f["measure"] == "peak"]
    assert peak["word"] == "bigger"
    assert peak["head"] - peak["base"] == 2 * 256 * 256 * 4 - 2 * 256 * 32 * 4, "a copy of weights, less the output"


@pytest.mark.parametrize(
    ("revision", "word", "why"),
    [
        ("wrong", "incorrect", "out is off by"),
        ("later", "incorrect", "writes into its input v, at a call after"),
        ("broken", "crashed", "SystemExit: planted"),
        ("dead", "crashed", "SIGKILL"),
    ],
)
def test_a_revision_that_fails_is_worse_by_its_status(compared: Any, revision: str, word: str, why: str) -> None:
    answer = compared("base", revision, "--variants", "naive", *SMALL, "--rounds", "18", "--json")
    assert answer.exit_code == 1, answer.stderr
    (found,) = json.loads(answer.stdout)["findings"]
    assert (found["word"], found["measure"]) == (word, "status")
    assert why in found["why"]


def test_a_variant_of_one_revision_only_is_said_to_be_so(compared: Any) -> None:
    answer = compared("base", "without", "--variants", "naive,sdpa,plain", *SMALL, "--rounds", "18", "--json")
    told = json.loads(answer.stdout)
    assert [case["variant"] for case in told["only_base"]] == ["naive"]
    assert [case["variant"] for case in told["only_head"]] == ["plain"]
    assert {"sdpa"} == {f["variant"] for f in told["findings"]} or told["findings"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["base", "nowhere"], "there is no revision 'nowhere'"),
        (["base", "slow", "--rounds", "17"], "give 18 or more"),
        (["base", "slow", "--rounds", "many"], "is not a whole number"),
        (["base", "slow", "--heads", "1,2"], "takes one number"),
        (["base", "slow", "--dtypes", "float31"], "unknown dtype"),
        (["base", "old"], "is from before the contract"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_status_2(compared: Any, arguments: list[str], words: str) -> None:
    answer = compared(*arguments, "--variants", "naive", pairs=PAIRS)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_variant_that_neither_revision_has_is_named(compared: Any) -> None:
    answer = compared("base", "comments", "--variants", "nonesuch")
    assert answer.exit_code == 2
    assert "unknown variant 'nonesuch'" in answer.stderr


def test_sources_without_git_have_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worktrees, "REPOSITORY", tmp_path)
    answer = CliRunner().invoke(Sentences(commands={"compare": command}), ["compare", "--git", "a", "b"])
    assert answer.exit_code == 2
    assert "is no git checkout" in answer.stderr


# -- peers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A revision whose package answers slowly, loudly or not at all."""
    package = tmp_path / "attnbench" / "variants"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    return tmp_path


def peer(home: Path, api: str, timeout_s: float = 60.0) -> Peer:
    (home / "attnbench/variants/api.py").write_text(api)
    return Peer(home, timeout_s, None)


def test_what_a_revision_prints_is_no_answer(home: Path) -> None:
    one = peer(home, "print('x' * 300000)\ndef names(): return ['a']\ndef get(name): print('loud')\n")
    assert one.ask("resolve", specs=["all"])["found"] == ["a"]
    one.close()
    assert one.process.returncode == -signal.SIGKILL


def test_a_revision_that_hangs_ends_at_the_time_limit(home: Path) -> None:
    one = peer(home, "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n", 0.5)
    with pytest.raises(PeerFailed, match=r"longer than 0\.5 s") as failed:
        one.ask("resolve", specs=["all"])
    assert failed.value.status == "timeout"
    assert one.process.returncode is not None


@pytest.mark.parametrize(
    ("api", "status", "why"),
    [
        ("import os; os._exit(3)", "crashed", "exit status 3"),
        ("import sys, os; sys.stderr.write('last word'); os.abort()", "crashed", "SIGABRT; its last words: last word"),
        ("def names(): raise MemoryError('all of it')", "oom", "all of it"),
    ],
)
def test_a_revision_that_dies_says_why(home: Path, api: str, status: str, why: str) -> None:
    one = peer(home, api)
    with pytest.raises(PeerFailed, match=why) as failed:
        one.ask("resolve", specs=["all"])
    assert failed.value.status == status
    assert one.process.returncode is not None


def test_a_peer_ends_with_whoever_started_it(home: Path) -> None:
    (home / "attnbench/variants/api.py").write_text("def names(): return []\n")
    code = (
        "from pathlib import Path; from attnbench.bench.peers import Peer; import sys, time\n"
        f"one = Peer(Path({str(home)!r}), 60.0, None); one.ask('resolve', specs=['all'])\n"
        "print(one.process.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


TERMINATED = """
import sys
from pathlib import Path
from attnbench.bench import worktrees
from attnbench.bench.cli import main
worktrees.REPOSITORY = Path(sys.argv.pop(1))
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_comparison_that_is_stopped_leaves_no_worktree(repository: Path, number: signal.Signals) -> None:
    options = ["compare", "--git", "base", "slow", "--variants", "naive", *SMALL]
    with subprocess.Popen(
        [sys.executable, "-P", "-c", TERMINATED, str(repository), *options],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("1 of 1: naive")
        assert len(git(repository, "worktree", "list").splitlines()) == 3
        process.send_signal(number)
        if number == signal.SIGTERM:
            process.send_signal(number)  # as `timeout` does: to the process, and to its group
        assert process.stderr.read() == "stopped: the revisions were not compared\n"
    assert process.returncode == 128 + number
    assert len(git(repository, "worktree", "list").splitlines()) == 1
