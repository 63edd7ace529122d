"""Which numbers a record may hold: a line with others is foreign, and is skipped with its reason as a torn one is.

JSON has numbers of any size, and what reads records divides by times, takes logarithms of bytes and draws axes to both.
The bounds stand far beyond whatever is measured; what they keep out is a damaged file, or a hostile one.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LARGEST_COUNT = 2**63 - 1
"""The largest whole number that numpy holds without objects."""
SMALLEST_SECONDS, LARGEST_SECONDS = 1e-15, 1e10
"""A femtosecond, and three centuries."""
LARGEST_FIGURE = 1e100
"""Above what float32 can hold over the smallest that it can; its square is still a number."""

Size = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
"""Of a thing that is there: a length, a batch."""
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
"""Bytes, operations, rows."""
Duration = Annotated[float, Field(ge=0, le=LARGEST_SECONDS)]
"""Seconds that something took, none at all included."""
Time = Annotated[float, Field(ge=SMALLEST_SECONDS, le=LARGEST_SECONDS)]
"""Seconds of a call: others are divided by it."""
Ratio = Annotated[float, Field(ge=1 / LARGEST_FIGURE, le=LARGEST_FIGURE)]
"""One time over another."""
Share = Annotated[float, Field(ge=0, le=1)]
Figure = Annotated[float, Field(ge=0, le=LARGEST_FIGURE)]
"""An error, a mass, a number of keys."""
Signed = Annotated[float, Field(ge=-LARGEST_FIGURE, le=LARGEST_FIGURE)]
"""An exponent, a cosine."""
