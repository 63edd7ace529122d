"""The near end of a peer: starts the process that measures a revision, asks it, and bounds every wait."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("peer.py")
TAIL_CHARS = 600


class PeerFailed(Exception):
    """No figure, but a status of a record and the reason."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Peer:
    """A process that imports `attnbench` from `home`. It ends with `close`, with this process, or by force."""

    def __init__(self, home: Path, timeout_s: float, memory_bytes: int | None) -> None:
        self.timeout_s = timeout_s
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        environ = {
            **os.environ,
            "PYTHONPATH": str(home),
            "PYTHONSAFEPATH": "1",
            "KINETO_LOG_LEVEL": "99",  # the profiler prints a line at each start and stop
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers would outlive the peer that is killed
        }
        limit = [] if memory_bytes is None else [str(memory_bytes)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT), *limit],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environ,
            cwd=home,
        )
        self.unread = b""

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request. Raises PeerFailed where it raised, died or took too long; then it is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(what))
        except (BrokenPipeError, EOFError, json.JSONDecodeError):
            raise PeerFailed("crashed", self._obituary()) from None
        if "failed" in answer:
            self.close()
            raise PeerFailed(answer["failed"], answer["why"])
        return answer

    def _line(self, what: str) -> bytes:
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.timeout_s
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise PeerFailed("timeout", f"took longer than {self.timeout_s:g} s in {what}")
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                raise EOFError
            self.unread += more
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        code = self.process.returncode
        size = self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, size - TAIL_CHARS))
        tail = self.log.read().decode(errors="replace").strip()
        self.close()
        if code is not None and code < 0:
            why = f"killed by {signal.Signals(-code).name}"
        else:
            why = f"ended with exit status {code}"
        return f"{why}; its last words: {tail}" if tail else why

    def close(self) -> None:
        """Ends the process, by force: it holds nothing worth a farewell."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
