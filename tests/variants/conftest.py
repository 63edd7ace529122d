from __future__ import annotations

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's log says one line a use; read when torch is imported

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors are slower on many threads, and the machine may be shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
