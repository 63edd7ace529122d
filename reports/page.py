"""The page and its Markdown twin: templates filled in, every value that comes from a record escaped."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import palette, words

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>&#|~$])")


SCRIPTS = ("words", "store", "state", "filters", "chart", "pointing", "outlook", "kinds", "charts", "table", "start")
"""The page's own script, in the order in which its parts need each other."""


def html(context: dict[str, Any], store: dict[str, Any]) -> str:
    """The self-contained page: style, script and data inside, and a policy that lets it fetch nothing.

    The script is allowed by its hash alone; anything else that looked like one would not run.
    """
    script = _script()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
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
        script=Markup(script),
        store=Markup(_json(store)),
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
def _script() -> str:
    """All parts as one, with a scope of their own."""
    parts = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();'


def still(path: Path) -> str:
    """A static figure as an address that holds it, at half its size and in few colours: a tenth of the bytes."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.convert("RGB").resize((image.width // 2, image.height // 2)).quantize(48)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


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
