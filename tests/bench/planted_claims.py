"""Claims whose outcome is known: right, right in direction, wrong, untestable, and three that break."""

from __future__ import annotations

import os
from typing import Any

from attnbench.bench.claims.claim import Band, Claim, Context, Measured, Target, Untestable, exact

TARGET = Target("figure", 10.0, "table 1", Band(8, 12), Band(low=1), " ×")


def planted(name: str, measure: Any, cost_s: float, **more: Any) -> Claim:
    words = {
        "text": "ten <b>times</b> | faster",
        "source": "issue 0",
        "setting": "there",
        "here": "nothing is measured",
    }
    return Claim(name=name, targets=(TARGET,), measure=measure, cost_s=cost_s, **words, **more)


def _gives(value: float) -> Any:
    def measure(context: Context) -> Measured:
        return Measured({"figure": exact(value, "planted")}, (f"gave {value:g}",))

    return measure


def _untestable(context: Context) -> Measured:
    raise Untestable("this machine has no quantum processor")


def _raises(context: Context) -> Measured:
    raise RuntimeError("not today")


def _dies(context: Context) -> Measured:
    print("farewell")
    os._exit(7)


def _lacks(context: Context) -> Measured:
    return Measured({"another": exact(1, "planted")})


def _reads(context: Context) -> Measured:
    times = [record for record in context.records if record.status == "ok"]
    return Measured({"figure": exact(10.0 * (len(times) == 1), "planted")})


RAISES = planted("planted_raises", _raises, 0.001)
DIES = planted("planted_dies", _dies, 0.002)
LACKS = planted("planted_lacks", _lacks, 0.003)
UNTESTABLE = planted("planted_untestable", _untestable, 0.004)
RIGHT = planted("planted_right", _gives(11), 0.005)
DIRECTION = planted("planted_direction", _gives(30), 0.006)
WRONG = planted("planted_wrong", _gives(0.5), 0.007)

SWEEP = {
    "variants": ["naive"],
    "seq_lens": [16],
    "head_dim": 8,
    "heads": 1,
    "case_time": 0.02,
    "threads": [1],
}
SWEPT = planted("planted_swept", _reads, 0.008, sweep=SWEEP)
SWEPT_TOO = planted("planted_swept_too", _reads, 0.009, sweep=dict(reversed(SWEEP.items())))
