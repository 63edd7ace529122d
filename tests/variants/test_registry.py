"""How variants are found and made: names, parameters, plugins, entry points, and modules that fail."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import attnbench
from attnbench.variants import registry
from attnbench.variants.api import VariantError
from attnbench.variants.registry import load_plugin, parse_spec, split_specs

PLUGIN = """
from dataclasses import dataclass
import attnbench
from attnbench.variants.api import Complexity, Supports, Variant

@attnbench.register(
    "{name}", family="{family}", kind="exact", supports=Supports(), complexity=Complexity(2, 2, ""),
    paper="", formula="",
)
@dataclass(frozen=True)
class Mine(Variant):
    width: float = 1.0
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leaves the registry and the loaded plugins as they were."""
    registry.discover()
    before = dict(registry._variants), dict(registry._failures)
    modules = set(sys.modules)
    yield
    for table, kept in zip((registry._variants, registry._failures), before, strict=True):
        table.clear()
        table.update(kept)
    registry._discovered = True
    for name in set(sys.modules) - modules:
        if name.startswith("attnbench_plugin_"):
            del sys.modules[name]


def plugin(folder: Path, text: str, name: str = "plugin.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def mine(name: str = "mine", family: str = "full") -> str:
    return PLUGIN.format(name=name, family=family)


# -- names and parameters -----------------------------------------------------------------------------------------


def test_names_are_listed_by_family() -> None:
    names = attnbench.names()
    families = [registry.variant_class(name).family for name in names]
    assert families == sorted(families, key=registry.FOLDERS.index)
    assert {"naive", "sdpa", "xformers", "flex", "chunked_exact", "block_local", "sliding_window"} <= set(names)
    assert {"sink_window", "linear_elu", "performer", "nystrom"} <= set(names)
    assert registry.failures() == {}


def test_parameters_by_keyword_and_in_the_spec_are_the_same() -> None:
    by_keyword = attnbench.get("sliding_window", window_size=128)
    assert by_keyword == attnbench.get("sliding_window(window_size=128)")
    assert by_keyword.spec == "sliding_window(window_size=128)"
    assert attnbench.get("sliding_window").spec == "sliding_window"
    assert attnbench.get(by_keyword.spec) == by_keyword


def test_a_keyword_wins_over_the_spec() -> None:
    assert attnbench.get("sliding_window(window_size=128)", window_size=64).window_size == 64


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("sliding_windw", "did you mean 'sliding_window'"),
        ("sliding_window(window_sise=3)", "no parameter 'window_sise'; did you mean 'window_size'"),
        ("sliding_window(window_size='3')", "window_size must be of type int, not '3'"),
        ("sliding_window(window_size=True)", "window_size must be of type int"),
        ("sliding_window(window_size=3.0)", "window_size must be of type int"),
        ("sliding_window(window_size=0)", "whole number of at least 1"),
        ("sliding_window(3)", "write it as name or name(parameter=value, …)"),
        ("sliding_window(", "is not a variant"),
        ("sliding_window(**x)", "is not a variant"),
        ("a.b(c=1)", "is not a variant"),
        ("", "is not a variant"),
        ("sliding_window(window_size=f())", "must be a plain value"),
        ("sliding_window(window_size=other)", "must be a plain value"),
    ],
)
def test_a_wrong_spec_is_one_sentence(spec: str, words: str) -> None:
    with pytest.raises(VariantError) as caught:
        attnbench.get(spec)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_specs_are_data_and_never_run() -> None:
    with pytest.raises(VariantError):
        parse_spec("x(y=__import__('os').getpid())")
    assert parse_spec(" x(a=-1, b='c', d=None) ") == ("x", {"a": -1, "b": "c", "d": None})


def test_specs_are_split_outside_brackets() -> None:
    assert split_specs("a,b(x=1,y=2), c ,") == ["a", "b(x=1,y=2)", "c"]
    assert split_specs("") == []


# -- plugins ------------------------------------------------------------------------------------------------------


def test_a_plugin_brings_its_variants(tmp_path: Path) -> None:
    path = plugin(tmp_path, mine())
    assert load_plugin(path) == ["mine"]
    assert load_plugin(path) == ["mine"], "loading it twice is loading it once"
    assert attnbench.get("mine(width=2)").width == 2.0
    assert "mine" in attnbench.names()


def test_a_plugin_that_raises_leaves_nothing(tmp_path: Path) -> None:
    path = plugin(tmp_path, mine("half_done") + "\nraise RuntimeError('no kernel')")
    with pytest.raises(VariantError, match="raised RuntimeError at import: no kernel"):
        load_plugin(path)
    assert "half_done" not in attnbench.names()
    path.write_text(mine("half_done"))
    assert load_plugin(path) == ["half_done"], "mended, it loads"


def test_a_plugin_that_exits_is_an_error_and_no_exit(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match="SystemExit"):
        load_plugin(plugin(tmp_path, "raise SystemExit(3)"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "registers no variant"),
        ("def f(:", "SyntaxError"),
        (mine("naive"), "variant name 'naive' is taken"),
        (mine("Not_Snake"), "must be lower_snake_case"),
        (mine(family="spars"), "unknown family 'spars'; did you mean 'sparse'"),
        (mine().replace("frozen=True", "frozen=False"), "must derive from Variant and be a @dataclass(frozen=True)"),
        (mine().replace("(Variant)", "()"), "must derive from Variant"),
        (mine().replace(" = 1.0", ""), "the parameters width need defaults"),
        (mine().replace('kind="exact"', 'kind="exakt"'), "did you mean 'exact'"),
    ],
)
def test_a_plugin_that_is_wrong_says_how(tmp_path: Path, text: str, words: str) -> None:
    before = attnbench.names()
    with pytest.raises(VariantError) as caught:
        load_plugin(plugin(tmp_path, text))
    assert words in str(caught.value)
    assert attnbench.names() == before


def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match="does not exist or is not a file"):
        load_plugin(tmp_path / "nothing.py")
    with pytest.raises(VariantError, match="does not exist or is not a file"):
        load_plugin(tmp_path)
    with pytest.raises(VariantError, match=r"must be a Python file \(.py\)"):
        load_plugin(plugin(tmp_path, "x", name="notes.txt"))


def test_two_plugins_may_not_share_a_name(tmp_path: Path) -> None:
    load_plugin(plugin(tmp_path, mine(), "one.py"))
    with pytest.raises(VariantError, match=r"'mine' is taken by .*one\.py"):
        load_plugin(plugin(tmp_path, mine(), "two.py"))


# -- discovery ----------------------------------------------------------------------------------------------------


def entry(name: str, load: object) -> SimpleNamespace:
    return SimpleNamespace(name=name, value=f"{name}_package:thing", load=load)


def rediscover(monkeypatch: pytest.MonkeyPatch, *entries: SimpleNamespace) -> None:
    asked = []

    def entry_points(*, group: str) -> tuple[SimpleNamespace, ...]:
        asked.append(group)
        return entries

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry._discovered = False
    registry.discover()
    assert asked == ["attnbench.variants"]


def test_an_entry_point_brings_its_variants(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugin(tmp_path, mine("from_afar"), "attnbench_plugin_afar.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    rediscover(monkeypatch, entry("good", lambda: importlib.import_module("attnbench_plugin_afar")))
    assert registry.failures() == {}
    assert "from_afar" in attnbench.names()


def test_an_entry_point_that_fails_is_reported_and_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libfast.so is missing")

    rediscover(monkeypatch, entry("bad", broken))
    assert registry.failures() == {"entry point bad = bad_package:thing": "ImportError: libfast.so is missing"}
    assert "naive" in attnbench.names()
    with pytest.raises(VariantError, match="Not loaded: entry point bad"):
        attnbench.get("fast")


def test_a_module_of_the_package_that_fails_is_reported_and_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.importlib.import_module

    def fails_for_one(name: str) -> object:
        if name.endswith("sparse.sliding_window"):
            raise RuntimeError("broken")
        return real(name)

    monkeypatch.setattr(registry.importlib, "import_module", fails_for_one)
    rediscover(monkeypatch)
    assert registry.failures() == {"variants/sparse/sliding_window.py": "RuntimeError: broken"}
    assert "naive" in attnbench.names()
