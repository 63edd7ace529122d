"""What was not measured and why: every record without figures, by reason; and what is to be known of some figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .settings import Entry, Setting, Test
from .words import lengths, plural

MEANING = {
    "incorrect": "The implementation differs from its definition by more than is allowed, so no time is published.",
    "crashed": "The process of the case ended with an error or a signal.",
    "oom": "Memory ran out.",
    "timeout": "A step took longer than its limit.",
    "skipped": "Not begun.",
    "unsupported": "The variant says that it cannot run this.",
}
"""The statuses of records without figures, the gravest first."""


@dataclass(frozen=True)
class Item:
    """One variant in one setting that share a reason."""

    label: str
    setting: Setting
    title: str
    """The setting's, with its details where another has the same."""
    entries: tuple[Entry, ...]

    @property
    def lengths(self) -> str:
        return self.setting.of.requests or lengths(entry.length for entry in self.entries)


@dataclass(frozen=True)
class Reason:
    """Records that give the same reason."""

    text: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Gap:
    """All records of one status."""

    status: str
    meaning: str
    reasons: tuple[Reason, ...]
    cases: int

    @property
    def title(self) -> str:
        return f"{self.status}: {plural(self.cases, 'case')}"


def gaps(settings: Sequence[Setting]) -> list[Gap]:
    """Every record that is not ok, once."""
    found = []
    for status, meaning in MEANING.items():
        reasons = by_reason(settings, lambda entry, status=status: entry.record.status == status, _together)  # type: ignore[misc]
        if reasons:
            cases = sum(len(item.entries) for reason in reasons for item in reason.items)
            found.append(Gap(status, meaning, tuple(reasons), cases))
    return found


def remarks(settings: Sequence[Setting]) -> list[Reason]:
    """What the records with figures say about them; where one says several things, each by itself."""
    return by_reason(settings, lambda entry: entry.record.status == "ok", lambda entry: entry.record.reasons)


def by_reason(settings: Sequence[Setting], test: Test, texts: Callable[[Entry], Iterable[str]]) -> list[Reason]:
    """Entries that pass the test, by their texts; the commonest first."""
    found: dict[str, dict[tuple[str, int], list[Entry]]] = {}
    for setting in settings:
        for entry in filter(test, setting.entries):
            for text in texts(entry):
                found.setdefault(text, {}).setdefault((entry.label, setting.number), []).append(entry)
    by_number = {setting.number: setting for setting in settings}
    count = Counter(setting.title for setting in settings)
    titles = {s.number: s.title if count[s.title] == 1 else f"{s.title}, {s.detail}" for s in settings}
    reasons = [
        Reason(
            text,
            tuple(Item(label, by_number[n], titles[n], tuple(each)) for (label, n), each in items.items()),
        )
        for text, items in found.items()
    ]
    return sorted(reasons, key=lambda reason: -_cases(reason.items))


def _together(entry: Entry) -> list[str]:
    """All reasons as one text, for a record is to be counted once."""
    return ["\n".join(entry.record.reasons) or "No reason was recorded."]


def _cases(items: Iterable[Item]) -> int:
    return sum(len(item.entries) for item in items)
