"""A plugin of variants that are wrong, one way each: the harness must publish no time for any of them."""

import ctypes
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from attnbench.variants.api import Complexity, Supports, register
from attnbench.variants.full.naive import SoftmaxAttention


def planted(name: str):
    return register(
        name,
        family="full",
        kind="exact",
        supports=Supports(),
        complexity=Complexity(2, 2, "O(N²)"),
        paper="none",
        formula="wrong on purpose",
    )


def attend(q, k, v, scale, hidden):
    scores = (q * scale) @ k.mT
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v


def future(q, k, shift=1):
    return torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(k.shape[2] - q.shape[2] + shift)


@planted("mask_wrong_by_one")
@dataclass(frozen=True)
class MaskWrongByOne(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        hidden = future(q, k)
        hidden[1:, 0] = True  # one key too few
        return attend(q, k, v, scale, hidden)


@planted("missing_scale")
@dataclass(frozen=True)
class MissingScale(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, 1.0, future(q, k))


@planted("leaks_the_future")
@dataclass(frozen=True)
class LeaksTheFuture(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, scale, future(q, k, shift=2))  # sees the next key


@planted("wrong_gradient")
@dataclass(frozen=True)
class WrongGradient(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k.detach() + 0.9 * (k - k.detach()), v, scale, future(q, k))


@planted("forgets_a_gradient")
@dataclass(frozen=True)
class ForgetsAGradient(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v.detach(), scale, future(q, k))


@planted("writes_into_v")
@dataclass(frozen=True)
class WritesIntoV(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        out = attend(q, k, v, scale, future(q, k))
        v.data.mul_(0)
        return out


@planted("gives_nan")
@dataclass(frozen=True)
class GivesNan(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        out = attend(q, k, v, scale, future(q, k))
        return torch.where(torch.arange(out.shape[2])[:, None] == out.shape[2] // 2, float("nan"), out)


@planted("wrong_dtype")
@dataclass(frozen=True)
class WrongDtype(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, scale, future(q, k)).double()


@planted("wrong_shape")
@dataclass(frozen=True)
class WrongShape(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return attend(q, k, v, scale, future(q, k))[:, :, 1:]


@planted("mask_wrong_by_one_in_many")
@dataclass(frozen=True)
class MaskWrongByOneInMany(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        hidden = future(q, k)
        hidden[q.shape[2] // 2 :, 0] = True  # one key too few, where each weighs little
        return attend(q, k, v, scale, hidden)


# faults that are no wrong result


@planted("ignores_q_and_k")
@dataclass(frozen=True)
class IgnoresQAndK(SoftmaxAttention):
    def weights(self, q, k, *, causal, scale, rows):
        return torch.eye(q.shape[2], dtype=q.dtype)[rows].expand(*q.shape[:2], -1, -1)

    def forward(self, q, k, v, *, causal, scale):
        return v.clone()


@planted("raises")
@dataclass(frozen=True)
class Raises(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        raise RuntimeError("the kernel said no")


@planted("exits")
@dataclass(frozen=True)
class Exits(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        print("these are my last words", file=sys.stderr)
        os._exit(7)


@planted("aborts")
@dataclass(frozen=True)
class Aborts(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        os.abort()


@planted("hangs")
@dataclass(frozen=True)
class Hangs(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        while True:
            time.sleep(1)


@planted("eats_memory")
@dataclass(frozen=True)
class EatsMemory(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        return torch.empty(1 << 44)


@planted("prints_megabytes")
@dataclass(frozen=True)
class PrintsMegabytes(SoftmaxAttention):
    def forward(self, q, k, v, *, causal, scale):
        print("x" * (4 << 20))
        return attend(q, k, v, scale, future(q, k))


class Faulty(SoftmaxAttention):
    """Right, and does something else beside."""

    def forward(self, q, k, v, *, causal, scale):
        self.beside(q)
        return attend(q, k, v, scale, future(q, k))


def libc():
    return ctypes.PyDLL(None)  # its calls do not let go of the GIL


@planted("raises_a_signal")
@dataclass(frozen=True)
class RaisesASignal(Faulty):
    number: int = 11

    def beside(self, q):
        os.kill(os.getpid(), self.number)


@planted("touches_no_memory")
@dataclass(frozen=True)
class TouchesNoMemory(Faulty):
    def beside(self, q):
        ctypes.string_at(0)


@planted("ignores_sigterm")
@dataclass(frozen=True)
class IgnoresSigterm(Faulty):
    def beside(self, q):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)


@planted("holds_the_gil")
@dataclass(frozen=True)
class HoldsTheGil(Faulty):
    def beside(self, q):
        libc().sleep(1000)


@planted("eats_memory_bit_by_bit")
@dataclass(frozen=True)
class EatsMemoryBitByBit(Faulty):
    def beside(self, q):
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (min(most, mapped() + (300 << 20)), most))
        blocks = []
        while True:
            blocks.append(torch.ones(16 << 20, dtype=torch.uint8))


def mapped():
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@planted("wakes_the_kernels_killer")
@dataclass(frozen=True)
class WakesTheKernelsKiller(Faulty):
    """Moves into a small control group, and takes more than it allows."""

    group: str = ""

    def beside(self, q):
        (Path(self.group) / "cgroup.procs").write_text(str(os.getpid()))
        blocks = []
        while True:
            blocks.append(torch.ones(16 << 20, dtype=torch.uint8))


@planted("prints_from_c")
@dataclass(frozen=True)
class PrintsFromC(Faulty):
    megabytes: int = 4

    def beside(self, q):
        text = b"y" * (1 << 20)
        for fd in (1, 2):
            for _ in range(self.megabytes):
                left = text
                while left:
                    left = left[libc().write(fd, left, len(left)) :]


@planted("prints_and_exits")
@dataclass(frozen=True)
class PrintsAndExits(PrintsFromC):
    def beside(self, q):
        super().beside(q)
        kinds = [os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in (1, 2)]
        print(f" and so to {kinds[0]} and {kinds[1]}, at last")
        os._exit(3)


@planted("prints_without_end")
@dataclass(frozen=True)
class PrintsWithoutEnd(Faulty):
    def beside(self, q):
        while True:
            print("z" * (1 << 20))


@planted("starts_processes")
@dataclass(frozen=True)
class StartsProcesses(Faulty):
    """Each of them has `marker` in its command line or for its name; `how` says how they hide and how it ends."""

    marker: str = ""
    how: str = "child"

    def beside(self, q):
        sleep = [sys.executable, "-c", f"import time; time.sleep(1000)  # {self.marker}"]
        if self.how == "daemon":
            subprocess.run([sys.executable, "-c", f"import subprocess as s; s.Popen({sleep}, start_new_session=True)"])
        elif self.how == "fork":
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:  # with every file of its parent still open
                    libc().prctl(PR_SET_NAME, self.marker.encode())
                    time.sleep(1000)
                os._exit(0)
        else:
            subprocess.Popen(sleep)
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.how == "hang":
            time.sleep(1000)


PR_SET_NAME = 15


@planted("starts_threads")
@dataclass(frozen=True)
class StartsThreads(Faulty):
    def beside(self, q):
        threading.Thread(target=time.sleep, args=(1000,)).start()
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()


@planted("comes_back_twice")
@dataclass(frozen=True)
class ComesBackTwice(Faulty):
    def beside(self, q):
        os.fork()


@planted("kills_the_server")
@dataclass(frozen=True)
class KillsTheServer(Faulty):
    def beside(self, q):
        keeper = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1]
        os.kill(int(keeper), signal.SIGKILL)
        time.sleep(1000)


@planted("turns_the_clock")
@dataclass(frozen=True)
class TurnsTheClock(Faulty):
    """The system's clock, as this process sees it, jumps by a day at each look, back and forth."""

    def beside(self, q):
        days = itertools.cycle((86400, -86400))
        now, now_ns = CLOCK
        time.time = lambda: now() + next(days)
        time.time_ns = lambda: now_ns() + next(days) * 10**9


CLOCK = time.time, time.time_ns


# costs that grow with length as they say


def costly(name: str, **exponents: float):
    complexity = Complexity(exponents.get("time", 1), exponents.get("memory", 1), "as declared")
    return register(
        name,
        family="full",
        kind="exact",
        supports=Supports(),
        complexity=complexity,
        paper="none",
        formula="right, and wasteful on purpose",
    )


@costly("takes_memory", memory=2)
@dataclass(frozen=True)
class TakesMemory(Faulty):
    bytes_per_pair: int = 1 << 10

    def beside(self, q):
        torch.ones(self.bytes_per_pair * q.shape[2] ** 2, dtype=torch.uint8)


@costly("takes_time", time=2)
@dataclass(frozen=True)
class TakesTime(Faulty):
    pair_us: int = 1

    def beside(self, q):
        time.sleep(q.shape[2] ** 2 * self.pair_us * 1e-6)
