"""What torch.compile needs on a CPU, and what of it this machine does not have."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def lacks_of_cpu() -> tuple[tuple[str, str], ...]:
    """Each thing that is missing, with why or what to do about it; () where nothing is."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    lacks = []
    try:
        get_cpp_compiler()
    except Exception as error:  # torch raises more than one kind, each with its own words
        lacks.append(("a C++ compiler", first_line(str(error))))
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        lacks.append(("Python's C headers (Python.h)", "install the python3-dev package"))
    return tuple(lacks)


def first_line(text: str) -> str:
    """The first line with anything in it, of a compiler's whole output say; at most 300 characters."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]
