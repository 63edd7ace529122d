"""The methods of a report: what the variants of its runs said of themselves when they were measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .load import LoadedRun
from .palette import FAMILIES, family_of
from .words import listed, plural


@dataclass(frozen=True)
class Card:
    """One method, for a reader."""

    name: str
    family: str
    kind: str
    colour: str
    about: str
    facts: tuple[tuple[str, str], ...]


def cards(runs: Sequence[LoadedRun]) -> list[Card]:
    """A card for each variant of the runs that keep cards, by family; where runs differ, the first run's."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        for card in run.cards:
            found.setdefault(card["name"], card)
    made = [_card(card) for card in found.values()]
    return sorted(made, key=lambda card: (FAMILIES.index(card.colour), card.name))


def uncarded(runs: Sequence[LoadedRun]) -> str:
    """Which runs say nothing of their methods; empty where all do."""
    without = [run.name for run in runs if not run.cards]
    if not without:
        return ""
    return (
        f"{plural(len(without), 'run')} ({listed(without)}) kept no cards of its methods: it was made by an older "
        "version, or from a benchmark's file. `attnbench show NAME` prints one."
    )


def _card(card: Mapping[str, Any]) -> Card:
    supports, complexity = _mapping(card.get("supports")), _mapping(card.get("complexity"))
    about = _mapping(card.get("params_about"))
    parameters = [
        f"{name}={value!r}: {_words(about.get(name))}" for name, value in _mapping(card.get("params")).items()
    ]
    extras = [f"{e.get('name')}: {_words(e.get('about'))}" for e in card.get("extras") or () if isinstance(e, Mapping)]
    facts = {
        "Paper": _words(card.get("paper")),
        "Formula": _words(card.get("formula")),
        "Complexity": _words(complexity.get("text")),
        "Parameters": "; ".join(parameters),
        "Extra inputs": "; ".join(extras),
        "Supports": "; ".join(", ".join(map(str, each)) for each in supports.values() if each),
        "Reduces to": _words(card.get("reduces_to")),
        "Tested to be": _words(card.get("identities")),
    }
    family = _words(card.get("family"))
    kept = tuple((label, text) for label, text in facts.items() if text)
    return Card(card["name"], family, _words(card.get("kind")), family_of(family), _words(card.get("about")), kept)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _words(value: Any) -> str:
    """Text on one line, whatever stands in the file."""
    if value is None:
        return ""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "; ".join(map(str, value))
    return " ".join(str(value).split())
