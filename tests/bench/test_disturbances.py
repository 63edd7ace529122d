"""What disturbs a machine, on machines made of files: each sign with its advice, and what is absent said to be so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from attnbench.bench import counters, disturbances_by_machine
from attnbench.bench.counters import Counters, Process, Used
from attnbench.bench.disturbances import signs
from attnbench.bench.sign import UNREADABLE, Sign

Machine = Callable[..., Path]
CALM = Used(10.0, 0.0, 0.0, 0, 0, 0, [])
BARE = Used(10.0, None, None, None, None, None, [], seen=False)

GOOD = {
    "proc/loadavg": "0.05 0.04 0.03 1/100 4242",
    "proc/pressure/cpu": "some avg10=0.00 avg60=0.10 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 total=0",
    "proc/meminfo": "MemTotal: 8000000 kB\nSwapTotal: 2097152 kB\nSwapFree: 2097152 kB",
    "proc/cpuinfo": "processor : 0\nflags\t\t: fpu sse avx2",
    "proc/self/cgroup": "0::/user/job",
    "sys/fs/cgroup/user/job/cpu.max": "max 100000",
    "sys/fs/cgroup/user/job/cpu.stat": "usage_usec 5\nnr_throttled 0",
    "sys/devices/system/cpu/online": "0-3",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "sys/devices/system/node/online": "0",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/class/thermal/thermal_zone0/temp": "45000",
    "sys/class/power_supply/AC/type": "Mains",
    "sys/class/power_supply/AC/online": "1",
}
for core in range(4):
    home = f"sys/devices/system/cpu/cpu{core}"
    GOOD[f"{home}/topology/thread_siblings_list"] = str(core)
    GOOD[f"{home}/cpufreq/scaling_governor"] = "performance"
    for name in ("scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq"):
        GOOD[f"{home}/cpufreq/{name}"] = "3000000"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with nothing that disturbs, but for some of its files."""

    def made(changes: dict[str, str] | None = None) -> Path:
        for name, text in {**GOOD, **(changes or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        return tmp_path

    return made


def found(
    root: Path,
    trials: Used = CALM,
    idle: Used = CALM,
    threads: int = 1,
    cores: int = 4,
    evictions: tuple[float, ...] = (1.0, 1.1),
) -> dict[str, Sign]:
    return {sign.name: sign for sign in signs(idle, trials, threads, set(range(cores)), evictions, root)}


@pytest.fixture(autouse=True)
def may_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever sandbox the tests run in."""
    monkeypatch.setattr(disturbances_by_machine, "may_keep", lambda: True)


def test_a_sandbox_that_keeps_no_process_to_a_core_is_a_sign(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbances_by_machine, "may_keep", lambda: False)
    sign = found(machine())["cores"]
    assert (sign.verdict, sign.advice) == (
        "perhaps",
        "both sides of a comparison cannot share a core; allow sched_setaffinity where a sandbox forbids it",
    )


def test_a_calm_machine_has_nothing_that_disturbs(machine: Machine) -> None:
    signs = found(machine())
    assert {sign.verdict for sign in signs.values()} == {"fine"}
    assert not any(sign.advice for sign in signs.values())


def test_a_machine_that_says_nothing_is_not_taken_for_calm(tmp_path: Path) -> None:
    signs = found(tmp_path, BARE, BARE, evictions=())
    assert {name for name, sign in signs.items() if sign.verdict != "unreadable"} == {"cores"}
    assert {sign.found for sign in signs.values() if sign.verdict == "unreadable"} == {UNREADABLE}


CPU, PAGES = "sys/devices/system/cpu", "sys/kernel/mm/transparent_hugepage/enabled"
SOURCE = "sys/devices/system/clocksource/clocksource0/current_clocksource"
UNPLUGGED = {"sys/class/power_supply/AC/online": "0", "sys/class/power_supply/BAT0/type": "Battery"}
TWINS = {f"{CPU}/cpu{core}/topology/thread_siblings_list": f"{core % 2},{core % 2 + 2}" for core in range(4)}
WAITS = "some avg10=0 avg60=31.5 avg300=0 total=1"


@pytest.mark.parametrize(
    ("name", "changes", "verdict", "words", "advice"),
    [
        ("CPU governor", {f"{CPU}/cpu2/cpufreq/scaling_governor": "powersave"}, "disturbs", "powersave", "cpupower"),
        ("turbo", {f"{CPU}/intel_pstate/no_turbo": "0"}, "perhaps", "on", "echo 1 |"),
        ("load average", {"proc/loadavg": "0.1 3 9.5 9/100 1"}, "disturbs", "9.5", "wait"),
        ("load average", {"proc/loadavg": "0.1 3 0.5 9/100 1"}, "perhaps", "0.5", "wait"),
        ("waiting for cores", {"proc/pressure/cpu": WAITS}, "disturbs", "31.5", "less"),
        ("virtual machine", {"proc/cpuinfo": "flags : fpu hypervisor sse"}, "perhaps", "yes", "host"),
        ("memory nodes", {"sys/devices/system/node/online": "0-1"}, "perhaps", "2", "numactl"),
        ("transparent huge pages", {PAGES: "[always] madvise never"}, "perhaps", "always", "madvise"),
        ("clock source", {SOURCE: "hpet"}, "perhaps", "hpet", "microseconds"),
        ("clock", {f"{CPU}/cpu1/cpufreq/scaling_max_freq": "2000000"}, "perhaps", "below 2.00", "scaling_max_freq"),
        ("CPU quota of the control group", {"sys/fs/cgroup/user/cpu.max": "5 10"}, "perhaps", "0.5 cores", "raise"),
        ("power", UNPLUGGED, "disturbs", "battery", "plug"),
        ("hyper-threading", TWINS, "perhaps", "4 of 4", "taskset -c 0,1 "),
    ],
)
def test_each_sign_is_seen_by_its_file(
    machine: Machine, name: str, changes: dict[str, str], verdict: str, words: str, advice: str
) -> None:
    signs = found(machine(changes))
    assert signs[name].verdict == verdict
    assert words in signs[name].found
    assert advice in signs[name].advice
    assert [other for other, sign in signs.items() if sign.verdict != "fine"] == [name]


def test_what_a_counter_counted_during_the_comparisons_disturbs(machine: Machine) -> None:
    signs = found(machine(), Used(10.0, 20.0, 0.5, 3, 7, 12, [("chrome", 4.0), ("cron", 0.1)]))
    disturbing = {name: sign.found for name, sign in signs.items() if sign.verdict == "disturbs"}
    assert disturbing == {
        "other processes": "0.00 of a core before, 0.41 during the comparisons: chrome, cron",
        "time stolen by the host": "5.00% of a core during the comparisons",
        "CPU quota of the control group": "none, used up in 7 periods",
        "heat": "45 °C, slowed 3 times during the comparisons",
        "swap": "0.0 GiB used, 12 pages moved during the comparisons",
    }


def test_what_runs_hidden_from_us_is_seen_while_we_rest(machine: Machine) -> None:
    sign = found(machine(), idle=Used(2.0, 1.0, 0.0, 0, 0, 0, []))["other processes"]
    assert sign.verdict == "disturbs"
    assert sign.found.startswith("0.50 of a core before")


def test_more_threads_than_cores_disturb_and_as_many_may(machine: Machine) -> None:
    root = machine()
    assert found(root, threads=5)["cores"].verdict == "disturbs"
    assert found(root, threads=4)["cores"].verdict == "perhaps"
    assert found(root, threads=2, cores=3)["cores"].found == "2 threads on 3 cores of 4"


def test_a_quota_of_the_first_version_of_control_groups_is_read(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup/cpu/job"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:cpu,cpuacct:/job\n")
    (group / "cpu.cfs_quota_us").write_text("150000\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert found(tmp_path, BARE, BARE, threads=2)["CPU quota of the control group"].found == "1.5 cores"
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    assert found(tmp_path, BARE, BARE, threads=2)["CPU quota of the control group"].verdict == "fine"


# -- counters ---------------------------------------------------------------------------------------------------


def stat(pid: int, name: str, parent: int, ticks: int) -> str:
    return f"{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 5"


def test_counters_are_read_from_the_kernels_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_ticks_per_s", lambda: 100)
    for name, text in {
        "proc/stat": "cpu  100 20 30 9999 50 6 4 70 8 9\ncpu0 1 1 1 1 1 1 1 1 1 1",
        "proc/vmstat": "nr_free_pages 5\npswpin 3\npswpout 4",
        "proc/self/cgroup": "0::/job",
        "sys/fs/cgroup/job/cpu.stat": "usage_usec 5\nnr_throttled 6",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2",
        "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "5",
        "proc/17/stat": stat(17, "a (strange) name", 1, 250),
        "proc/18/stat": "torn",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    read = counters.read(tmp_path)
    assert (read.busy_s, read.stolen_s, read.heat, read.throttled, read.swapped) == (1.6, 0.7, 7, 6, 7)
    assert read.processes == {17: Process(17, 1, "a (strange) name", 2.5)}


def test_what_is_ours_and_what_ended_is_not_counted_as_others() -> None:
    def reading(at_s: float, *processes: Process) -> Counters:
        return Counters(at_s, processes={process.pid: process for process in processes})

    first = reading(0.0, Process(1, 0, "init", 5.0), Process(50, 1, "ours", 1.0), Process(7, 1, "ends", 1.0))
    last = reading(
        *(4.0, Process(1, 0, "init", 5.0), Process(50, 1, "ours", 3.0), Process(51, 50, "child", 2.0)),
        *(Process(52, 51, "grandchild", 2.0), Process(60, 1, "new", 0.5), Process(8, 1, "busy", 2.0)),
    )
    used = counters.between(first, last, ours=50)
    assert used.others == [("busy", 2.0), ("new", 0.5)]
    assert used.others_s == 2.5
    assert used.busy_s is None


def test_a_number_that_another_process_got_since_counts_from_its_own_start() -> None:
    first = Counters(0.0, processes={9: Process(9, 1, "old", 3.0)})
    last = Counters(1.0, processes={9: Process(9, 1, "another", 0.5)})
    assert counters.between(first, last, ours=50).others == [("another", 0.5)]


def test_this_machine_can_be_read() -> None:
    first = counters.read()
    used = counters.between(first, counters.read())
    assert used.wall_s >= 0
    assert len(signs(used, used, 1, {0}, [1.0])) == 18


@pytest.mark.parametrize(
    ("evictions", "verdict"),
    [
        ((1.0,) * 10, "fine"),
        ((1.0,) * 9 + (2.0,), "fine"),
        ((1.1,) * 8 + (2.0,) * 2, "perhaps"),
        ((1.4,) * 3, "disturbs"),
    ],
)
def test_neighbours_in_the_shared_cache(machine: Machine, evictions: tuple[float, ...], verdict: str) -> None:
    sign = found(machine(), evictions=evictions)["shared cache"]
    assert sign.verdict == verdict
    assert ("--patience" in sign.advice) is (verdict != "fine")
