"""The page and its Markdown twin: templates filled in, every value that comes from a record escaped."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from . import palette, words
from .charts import Chart

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>&#|~$])")


def html(context: dict[str, Any], charts: Sequence[Chart]) -> str:
    """The self-contained page: style, scripts and data inside, and a policy that lets it fetch nothing.

    Scripts are allowed by their hashes alone. The charts' expressions are interpreted rather than compiled, so
    that not even `unsafe-eval` is needed; anything else that looked like a script would not run.
    """
    scripts = [_bundle(), _read("charts.js")] if charts else []
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}" if scripts else "script-src 'none'",
            "style-src 'unsafe-inline'",  # charts and tooltips set style attributes
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    environment = _environment(autoescape=True)
    return environment.get_template("report.html.j2").render(
        **context,
        policy=policy,
        scripts=[Markup(script) for script in scripts],
        specs=Markup(_json([{"id": chart.id, "spec": chart.spec} for chart in charts])),
        style=Markup(_read("style.css").replace("/* palette */", _variables())),
    )


def markdown(context: dict[str, Any]) -> str:
    """The same in Markdown, with the figures as files beside it."""
    environment = _environment(autoescape=False, finalize=_escape_markdown)
    text = environment.get_template("report.md.j2").render(**context)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.globals.update(words=words)
    return environment


def _read(name: str) -> str:
    return importlib.resources.files(f"{__package__}.templates").joinpath(name).read_text(encoding="utf-8")


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    import vl_convert

    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub wants a snippet, it does not
    # within a script element, only these could end it early or change how it is read
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", str(script), flags=re.IGNORECASE)


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _escape_markdown(value: Any) -> Any:
    """Text with every sign that Markdown or HTML would act on made plain; markup of the template passes."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    plain = re.sub(r"\s+", " ", value)
    return _MARKDOWN.sub(lambda match: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(match[1], "\\" + match[1]), plain)


def _variables() -> str:
    light, dark = ("".join(f"--{name}:{colour};" for name, colour in c.items()) for c in (palette.LIGHT, palette.DARK))
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{@media screen{{:root{{{dark}}}}}}}"
