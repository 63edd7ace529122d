"""The command `recommend`: which variants to use for a length, a mode and a budget, and why."""

from __future__ import annotations

import click

from .output import echo_json, json_option, whole_number


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@click.option("--seq-len", metavar="N", required=True, help="Tokens; when decoding, those before the new one and it.")
@click.option("--mode", default="forward", show_default=True, metavar="M", help="forward, train, or decode.")
@click.option("--causal/--no-causal", default=True, show_default=True)
@click.option("--max-memory", metavar="SIZE", help="E.g. 8GiB: of one call with its inputs, or state, in all layers.")
@click.option("--min-recall", metavar="SHARE", help="E.g. 0.9, of trained MQAR where there is one, or of the probe.")
@click.option("--recall-load", metavar="N", default="64", show_default=True, help="Pairs to recall: 32, 64, 128, 256.")
@click.option("--max-error", metavar="SHARE", help="E.g. 0.1: largest relative distance from softmax attention.")
@click.option("--inputs", metavar="I", default="captured", show_default=True, help="On which inputs that counts.")
@click.option("--kinds", metavar="K,…", help="exact, approximate, own; all by default.")
@click.option("--dtype", metavar="T", help="Of the records; the one with most evidence by default.")
@click.option("--device", metavar="D", help="Of the records; the one with most evidence by default.")
@click.option("--threads", metavar="N", help="Of the records; those with most evidence by default.")
@click.option(
    "--attention-share", metavar="SHARE", help="Of a model's time with the fastest exact variant: tells what it gains."
)
@click.option(
    "--layers", metavar="N", default="1", show_default=True, help="For memory: of states, and of what training keeps."
)
@click.option("--batch", metavar="N", help="For memory; that of the records by default.")
@json_option
def recommend(
    runs: tuple[str, ...],
    seq_len: str,
    mode: str,
    causal: bool,
    max_memory: str | None,
    min_recall: str | None,
    recall_load: str,
    max_error: str | None,
    inputs: str,
    kinds: str | None,
    dtype: str | None,
    device: str | None,
    threads: str | None,
    attention_share: str | None,
    layers: str,
    batch: str | None,
    as_json: bool,
) -> None:
    """Which variants to use, from the records of RUNs: of sweeps, and of trained tasks where there are any.

    Ranked by time in tiers: variants whose times cannot be told apart share one. Every variant of the runs appears
    once, kept or rejected with its reason, or with the command that makes what is missing. Beyond the measured lengths
    figures are extrapolated, and marked so. Without RUN the published runs of the package answer, where there are any.
    """
    from ..reports.advice_text import lines, plain
    from ..reports.question import KINDS, Question, parse_bytes
    from ..reports.recommend import recommend as answer

    question = Question(
        seq_len=whole_number("seq_len", seq_len),
        mode=mode,
        causal=causal,
        max_memory_bytes=None if max_memory is None else parse_bytes(max_memory),
        min_recall=_number("min-recall", min_recall),
        recall_load=whole_number("recall_load", recall_load),
        max_error=_number("max-error", max_error),
        inputs=inputs,
        kinds=KINDS if kinds is None else tuple(kind.strip() for kind in kinds.split(",") if kind.strip()),
        dtype=dtype,
        device=device,
        threads=None if threads is None else whole_number("threads", threads),
        attention_share=_number("attention-share", attention_share),
        layers=whole_number("layers", layers),
        batch=None if batch is None else whole_number("batch", batch),
    )
    advice = answer(runs, question)
    if as_json:
        echo_json(plain(advice))
        return
    for line in lines(advice):
        click.echo(line)


def _number(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number", param_hint=f"--{option}") from None
