"""Batches of unlike requests in one string, as serving benchmarks write them: `2q2k_32q1s1k`.

The grammar is that of vLLM's attention benchmarks (benchmarks/attention_benchmarks/batch_spec.py in
https://github.com/vllm-project/vllm):

    batch    = requests *( "_" requests )
    requests = [count] "q" size [ "s" size ]
    size     = digits [ "k" ]                  k: times 1024

`count` requests (1 by default) have as many new tokens as `q` says; `s` is the whole length of each sequence, its new
tokens included, and equals `q` where it is not given. So `q2k` is a prompt of 2,048 tokens, `8q1s1k` are 8 decode steps
whose token is the last of 1,024, `4q16s1k` are 4 times 16 tokens at the end of 1,024.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import ResultsError

K = 1024
PART = re.compile(r"(?P<count>\d+)?q(?P<q>\d+)(?P<qk>k?)(?:s(?P<s>\d+)(?P<sk>k?))?", re.ASCII)
MOST = 1 << 31
"""Tokens of a batch, at most: kernels for packed sequences count them in 32 bits."""
DIGITS = 12
"""A longer number is a slip, and Python would refuse to read very long ones."""


@dataclass(frozen=True)
class Requests:
    """Requests of a batch that have the same lengths."""

    count: int
    n_q: int
    """New tokens of each."""
    n_k: int
    """All tokens of each, the new ones included."""

    @property
    def spec(self) -> str:
        """As the grammar writes them, in its shortest form."""
        count = "" if self.count == 1 else str(self.count)
        past = "" if self.n_k == self.n_q else f"s{_size(self.n_k)}"
        return f"{count}q{_size(self.n_q)}{past}"

    @property
    def words(self) -> str:
        """E.g. `2 prefills of 2k`, `32 decode steps at 1k`, `4 extensions by 16 to 1k`."""
        several = "" if self.count == 1 else "s"
        if self.n_q == self.n_k:
            return f"{self.count} prefill{several} of {_size(self.n_q)}"
        if self.n_q == 1:
            return f"{self.count} decode step{several} at {_size(self.n_k)}"
        return f"{self.count} extension{several} by {_size(self.n_q)} to {_size(self.n_k)}"


def parse(spec: str) -> tuple[Requests, ...]:
    """The requests of a batch, those of like lengths together, in the order written. Raises ResultsError."""
    found: dict[tuple[int, int], int] = {}
    for part in spec.strip().split("_"):
        match = PART.fullmatch(part)
        if match is None or max(map(len, re.findall(r"\d+", part))) > DIGITS:
            raise ResultsError(
                f"batch spec {spec!r}: {part!r} is not <count>q<tokens>s<length>; write 2q2k_32q1s1k for two prompts "
                "of 2,048 tokens and 32 decode steps at 1,024"
            )
        count = int(match["count"] or 1)
        n_q = int(match["q"]) * (K if match["qk"] else 1)
        n_k = int(match["s"]) * (K if match["sk"] else 1) if match["s"] else n_q
        if 0 in (count, n_q, n_k):
            raise ResultsError(f"batch spec {spec!r}: {part!r} has a zero; leave out what is not there")
        if n_q > n_k:
            raise ResultsError(
                f"batch spec {spec!r}: {part!r} has {n_q} new tokens in a sequence of {n_k}; s is the whole length, "
                "its new tokens included"
            )
        found[n_q, n_k] = found.get((n_q, n_k), 0) + count
    requests = tuple(Requests(count, n_q, n_k) for (n_q, n_k), count in found.items())
    if tokens(requests)[1] >= MOST:
        raise ResultsError(
            f"batch spec {spec!r} has {tokens(requests)[1]:,} tokens; fewer than {MOST:,} can be measured"
        )
    return requests


def canonical(spec: str) -> str:
    """The one way to write a batch: `q2048_q2k` and `2q2k` are the same case. Raises ResultsError."""
    return "_".join(requests.spec for requests in parse(spec))


def words(spec: str) -> str:
    """E.g. `2 prefills of 2k and 32 decode steps at 1k`. Raises ResultsError."""
    *before, last = [requests.words for requests in parse(spec)]
    return f"{', '.join(before)} and {last}" if before else last


def tokens(requests: tuple[Requests, ...]) -> tuple[int, int]:
    """New tokens, and all tokens, of the whole batch."""
    return sum(r.count * r.n_q for r in requests), sum(r.count * r.n_k for r in requests)


def _size(tokens: int) -> str:
    return f"{tokens // K}k" if tokens % K == 0 else str(tokens)
