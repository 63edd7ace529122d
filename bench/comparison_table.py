"""The rows of a comparison's table: which case, what changed, from what to what, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..results.changes import Finding
from ..results.compare import Comparison
from ..results.record import GROUP, Record
from ..results.statistics import Interval

HEADER = ("change", "variant", "tokens", "setting", "figure", "BASE", "HEAD", "HEAD / BASE", "p")
LENGTHS = ("n_q", "n_k", "requests")
MEASURES = {
    "status": "status",
    "error": "error",
    "fidelity": "fidelity error",
    "time": "time",
    "peak": "peak memory",
    "state": "state",
}


def rows(found: Comparison, everything: bool) -> list[tuple[str, ...]]:
    """A row for each change, worst first; with `everything`, for what is the same and what only one side has too."""
    shown = [f for f in found.findings if everything or f.verdict != "same"]
    labels, fields = _labels(_cases(found)), _varying(_cases(found))
    table: list[tuple[str, ...]] = [
        (
            f.word,
            labels(f.case),
            _tokens(f.case),
            _setting(f.case, fields),
            MEASURES[f.measure],
            _figure(f, f.base),
            _figure(f, f.head),
            _ratio(f),
            "" if f.p is None else f"{f.p:.2g}",
        )
        for f in shown
    ]
    if everything:
        for name, side in (("BASE", found.only_base), ("HEAD", found.only_head)):
            for record in side:
                where = (f"only in {name}", labels(record), _tokens(record), _setting(record, fields), "status")
                table.append((*where, *((record.status, "") if name == "BASE" else ("", record.status)), "", ""))
    return table


def setting(found: Comparison) -> str:
    """What all cases share, as the end of a sentence."""
    cases = _cases(found)
    fields = [name for name in GROUP if name not in LENGTHS and name not in _varying(cases)]
    return f": all {_setting(cases[0], fields)}" if fields else ""


def _cases(found: Comparison) -> list[Record]:
    return [*{f.case.case_id: f.case for f in found.findings}.values(), *found.only_base, *found.only_head]


def _varying(cases: Iterable[Record]) -> list[str]:
    cases = list(cases)
    return [
        name for name in GROUP if name not in LENGTHS and len({repr(getattr(record, name)) for record in cases}) > 1
    ]


def _labels(cases: Iterable[Record]) -> Any:
    """Names a variant, with the parameters in which cases of the same name differ."""
    seen: dict[str, list[dict[str, Any]]] = {}
    for record in cases:
        seen.setdefault(record.variant, []).append(record.params)

    def label(record: Record) -> str:
        mine = [
            f"{key}={value!r}"
            for key, value in record.params.items()
            if len({repr(params.get(key)) for params in seen[record.variant]}) > 1
        ]
        return f"{record.variant}({', '.join(mine)})" if mine else record.variant

    return label


def _tokens(record: Record) -> str:
    if record.requests:
        return f"{record.n_q:,} of {record.requests}"
    return f"{record.n_k:,}" if record.n_q == record.n_k else f"{record.n_q:,} × {record.n_k:,}"


def _setting(record: Record, fields: Iterable[str]) -> str:
    return ", ".join(_value(name, getattr(record, name)) for name in fields)


def _value(name: str, value: Any) -> str:
    if name == "causal":
        return "causal" if value else "non-causal"
    if name == "compiled":
        return "compiled" if value else "eager"
    if isinstance(value, str):
        return value
    return f"{name.replace('_', ' ')} {value}"


def _figure(finding: Finding, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if finding.measure == "time":
        for factor, unit in ((1e6, "µs"), (1e3, "ms")):
            if value * factor < 999.5:
                return f"{value * factor:.3g} {unit}"
        return f"{value:.4g} s"
    if finding.measure in ("peak", "state"):
        for unit in ("B", "KiB", "MiB"):
            if value < 1000:
                return f"{value:.4g} {unit}"
            value /= 1024
        return f"{value:.4g} GiB"
    return f"{value:.3g}"


def _ratio(finding: Finding) -> str:
    parts = [] if finding.ratio is None else [_interval(finding.ratio)]
    if finding.to_group is not None and finding.verdict != "same":
        parts.append(f"{_interval(finding.to_group)} to its group")
    return "; ".join([*parts, finding.why] if finding.why else parts)


def _interval(ratio: Interval) -> str:
    if ratio.low == ratio.high == ratio.value:
        return f"{ratio.value:.3f}"
    return f"{ratio.value:.3f} ({ratio.low:.3f}–{ratio.high:.3f})"
