"""SIGTERM, which batch systems and `timeout` send, and SIGHUP, as a terminal closes, stop a command as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import click

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C."""
SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """One of these signals came: whoever handles Ctrl-C handles this."""


@contextlib.contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """For a command: what would end in INTERRUPTED ends in the exit status of the signal that came. One that is
    ignored, as under nohup, stays so.

    What comes after the first is not heeded, until the process has ended: `timeout` sends two, and the second would cut
    short what the first began.
    """
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        came.append(number)
        if len(came) == 1:
            raise Terminated(signal.Signals(number).name)

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread, which alone may
        for number in SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    except (SystemExit, KeyboardInterrupt, OSError) as end:  # a terminal that has closed cannot be written to
        if not came or (isinstance(end, SystemExit) and end.code != INTERRUPTED):
            raise
        if isinstance(end, Terminated):  # nobody has told yet
            click.echo(f"stopped by {end}", err=True)
        raise SystemExit(128 + came[0]) from None
    finally:
        if not came:
            for number, handler in before.items():
                signal.signal(number, handler)
