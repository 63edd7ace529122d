"""What stands beside a sweep in a report, made of plausible figures: variants inside a model, and published claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attnbench.results.claim_record import ClaimRecord, Quantity, claim_id
from attnbench.results.claims import ClaimFolder
from attnbench.results.dropin_record import DropinRecord, append_dropins, dropin_id
from attnbench.results.store import RunFolder

from . import synthetic

STAMP = {"machine": "f00d" * 4, "started_at": "2026-11-22T12:00:00+00:00"}


def dropin(
    variant: str, *, cosine: float | None = None, perplexity: float | None = None, **fields: Any
) -> DropinRecord:
    """One variant inside an encoder, by its cosine, or inside a language model, by its perplexity; none: it failed."""
    family, kind, params = synthetic.VARIANTS[variant][:3]
    language = bool(fields.pop("language", perplexity is not None))
    figures: dict[str, Any] = {"embedding_cosine_uniform": 0.612, "ranking_agreement_uniform": 0.31}
    if language:
        figures = {"perplexity_uniform": 913.4, "next_token_agreement_uniform": 0.071}
        figures |= {"perplexity_original": 14.25}
    if cosine is not None:
        figures |= {"embedding_cosine": cosine, "embedding_cosine_low": cosine - 0.08, "ranking_agreement": cosine**2}
    if cosine is not None and kind == "approximate":
        figures |= {"embedding_cosine_window": cosine - 0.021, "ranking_agreement_window": cosine**3}
    if perplexity is not None:
        figures |= {"perplexity": perplexity, "next_token_agreement": 14.25 / perplexity}
        figures |= {"perplexity_window": 31.8} if kind == "approximate" else {}
    identity = {
        "weights_sha256": "ab" * 32 if language else "cd" * 32,
        "text_sha256": "ef" * 32,
        "seq_len": 512,
        "windows": 24,
        "variant": variant,
        "params": params,
    }
    about = {
        "model": "tiny-llama" if language else "all-MiniLM-L6",
        "model_type": "llama" if language else "bert",
        "text": "pydoc_data.topics",
        "causal": language,
        "metric": "perplexity" if language else "embedding",
        "family": family,
        "kind": kind,
        "status": "ok",
        "budget": 64 if kind == "approximate" else None,
        "budget_unit": "keys" if kind == "approximate" else None,
        "keys": 63.4 if family == "sparse" else None,
        "window_keys": 64 if kind == "approximate" else None,
        **STAMP,
    }
    return DropinRecord(dropin_id=dropin_id(identity), **{**identity, **about, **figures, **fields})


def write_dropins(path: Path, records: list[DropinRecord]) -> Path:
    """A folder as `attnbench dropin` leaves it: its file of a sweep's records is there, and empty."""
    RunFolder.create(path, synthetic.run(0)).close()
    append_dropins(path, records)
    return path


def quantity(value: float, published: float | None, **fields: Any) -> Quantity:
    """One figure that agrees where it lies within a fifth of the published."""
    middle = value if published is None else published
    given: dict[str, Any] = {
        "name": "speed-up",
        "unit": " ×",
        "published": published,
        "obtained": "from table 1",
        "within_low": 0.8 * middle,
        "within_high": 1.2 * middle,
        "value": value,
        "low": 0.95 * value,
        "high": 1.05 * value,
        "of": "95 % over 20 rounds",
        "difference": None if published is None else value - published,
        "verdict": "holds" if abs(value - middle) <= 0.2 * middle else "does not hold",
        "sure": True,
    }
    return Quantity(**{**given, **fields})


def claim(name: str, quantities: list[Quantity], **fields: Any) -> ClaimRecord:
    """One claim with its figures; its verdict is that of the first."""
    identity = {
        "name": name,
        "text": f"What {name} says of its speed",
        "source": "Example et al. 2020, table 1",
        "setting": "one GPU, 16 heads of 64",
        "here": "a CPU with 2 threads; the ratio alone is compared",
        "targets": [one.name for one in quantities],
    }
    about = {key: value for key, value in identity.items() if key != "targets"}
    verdict = quantities[0].verdict if quantities else None
    rest = {
        "claim_id": claim_id(identity),
        "status": "ok",
        "verdict": verdict,
        "quantities": quantities,
        "wall_s": 12.5,
        "shared_s": 3.0,
        **STAMP,
    }
    return ClaimRecord(**{**about, **rest, **fields})


def write_claims(path: Path, records: list[ClaimRecord]) -> Path:
    """A folder as `attnbench reproduce` leaves it."""
    folder = ClaimFolder.create(path, synthetic.run(len(records)))
    folder.append(records)
    folder.close()
    return path


def some_dropins() -> list[DropinRecord]:
    """An encoder's and a language model's, one of them failed."""
    encoder = [
        dropin(name, cosine=near) for name, near in (("sliding_window", 0.951), ("naive", 1.0), ("nystrom", 0.774))
    ]
    encoder.append(dropin("performer", status="oom", reasons=["memory ran out: 4.8 GiB were asked for"]))
    language = [dropin(name, perplexity=value) for name, value in (("block_local", 19.37), ("naive", 14.25))]
    return [*encoder, *language, dropin("linear_elu", perplexity=1284.6)]


def some_claims() -> list[ClaimRecord]:
    """One that holds, one of two figures that does not, one that could not be tested, one that crashed."""
    unlike = quantity(0.0137, 0.05, name="error", unit="", of="the range over 4 seeds", sure=False)
    untestable = {"status": "untestable", "verdict": "not testable here", "reasons": ["it needs a GPU"]}
    return [
        claim("fast_window", [quantity(4.21, 4.0)]),
        claim("slow_features", [quantity(1.37, 2.9), unlike]),
        claim("in_words", [quantity(131.0, None, name="longest length", unit=" tokens")]),
        claim("needs_gpu", [], **untestable),
        claim("broken", [], status="crashed", reasons=["RuntimeError: not today"]),
    ]
