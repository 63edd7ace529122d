"""The error of this folder: always one sentence that names the mistake and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VariantError(ValueError):
    """A variant, a parameter, a plugin or a call that cannot be."""


def suggest(wrong: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: what was probably meant, and what there is."""
    known = sorted(known)
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    there_is = f"here is: {', '.join(known) or 'nothing'}."
    return f"did you mean {close[0]!r}? T{there_is}" if close else f"t{there_is}"
