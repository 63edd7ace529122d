"""The text that a model reads under capture, and the windows it is cut into."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from .errors import InputsError


def read_text(text: str | Path | None) -> tuple[str, str]:
    """The name and the content of the text."""
    if text is None:
        return _topics()
    try:
        content = Path(text).read_bytes().decode("utf-8")
    except OSError as error:
        raise InputsError(f"cannot read the text {text}: {error.strerror}; name a text file in UTF-8") from None
    except UnicodeDecodeError as error:
        raise InputsError(f"the text {text} is not UTF-8 (byte {error.start}); convert it, or name another") from None
    return str(text), content


def _topics() -> tuple[str, str]:
    """English text that every CPython ships: what `help()` says of the language, topic after topic."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InputsError("this Python does not ship pydoc_data.topics; name a text of your own with --text") from None
    content = "\n\n".join(topics[key] for key in sorted(topics))
    # a heading's underline would be a row of one and the same token, as prose never has it
    content = re.sub(r"(?m)^[^\w\n]+\n", "", content)
    return f"pydoc_data.topics of Python {platform.python_version()}, without underlines", content


def cut(
    tokenizer: Any, text: str, seq_len: int, windows: int, *, spread: bool = False
) -> tuple[list[list[int]], list[int], int]:
    """Pieces of the text as token ids, where each starts, and how many tokens the text has.

    They follow each other from the start of the text; with `spread`, they lie evenly over all of it.
    """
    bare = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    framed = tokenizer(text, verbose=False)["input_ids"]
    special = len(framed) - len(bare)
    # what the tokenizer itself puts before and after a text, e.g. [CLS] and [SEP]
    before = next((n for n in range(special + 1) if framed[n : n + len(bare)] == bare), None)
    if before is None:
        raise InputsError(
            "the model's tokenizer changes a text's tokens where it adds special ones; windows cannot be cut"
        )
    step = seq_len - special
    if step < 1:
        raise InputsError(
            f"a window of {seq_len} tokens holds nothing but the model's {special} special ones; choose more"
        )
    if len(bare) < step * windows:
        each = f"{seq_len} tokens ({special} of them special)" if special else f"{seq_len} tokens"
        raise InputsError(
            f"the text has {len(bare)} tokens and needs {step * windows} for windows of {each}, {windows} in number; "
            "name a longer text, or ask for fewer or shorter windows"
        )
    head, tail = framed[:before], framed[before + len(bare) :]
    stride = max(step, (len(bare) - step) // max(1, windows - 1)) if spread else step
    offsets = [stride * window for window in range(windows)]
    return [[*head, *bare[start : start + step], *tail] for start in offsets], offsets, len(bare)
