"""The error of this folder, and its warnings: one sentence each, of the file, what is wrong, and the next step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError

T = TypeVar("T")


class ResultsError(ValueError):
    """A run folder or a result file that cannot be used."""


class ResultsWarning(UserWarning):
    """Something in a result file was passed over: what, where and why."""


class NewerWarning(ResultsWarning):
    """A file is of a newer schema: nothing was passed over, but not all may have been understood."""


def overheard(read: Callable[[], T]) -> tuple[T, list[str]]:
    """What `read` gives, and what it passed over, in words, for whoever shows both side by side."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResultsWarning)
        found = read()
    return found, [str(warning.message) for warning in caught if issubclass(warning.category, ResultsWarning)]


def in_words(error: ValidationError) -> str:
    """The first thing that is wrong, and where in it."""
    detail = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in detail["loc"])
    return f"{place}: {detail['msg']}" if place else str(detail["msg"])
