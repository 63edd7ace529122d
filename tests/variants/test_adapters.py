"""Adapters of other libraries' kernels: what they pass on, shown by stand-ins of the libraries; what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import attnbench
from attnbench.bench.contract.shapes import Shape, draw
from attnbench.variants import external, flash
from attnbench.variants.api import Variant, VariantError
from attnbench.variants.external import External
from attnbench.variants.registry import variant_class
from attnbench.variants.sparse.sliding_window_flex import band_mask

from . import fakes

ADAPTERS = [name for name in attnbench.names() if issubclass(variant_class(name), External)]
LIBRARIES = ("flash_attn", "flash_attn_interface", "fla", "natten")
FLASH_NAMES = ("flash_attn", "sliding_window_flash_attn")

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts stand-ins where libraries are imported from, and lets tensors on a CPU through to them."""
    external.load.cache_clear()

    def put(name: str, **contents: Any) -> None:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None, origin="a stand-in")
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)

    monkeypatch.setattr(External, "check_device", lambda self, q: None)
    monkeypatch.setattr(flash, "capability", lambda device: 9)
    yield put
    external.load.cache_clear()


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No library of kernels is installed."""
    external.load.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in LIBRARIES]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name.split(".")[0] in LIBRARIES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    yield
    external.load.cache_clear()


def close(out: Tensor, due: Tensor) -> None:
    allowed = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[out.dtype]
    torch.testing.assert_close(out.to(due.dtype), due, atol=allowed * max(1.0, float(due.abs().max())), rtol=0)


# -- what is passed -----------------------------------------------------------------------------------------------


def whole(attn: Variant, shape: Shape, scale: float | None) -> None:
    q, k, v = draw(shape)
    extras = attnbench.make_extras(attn, q, k, v)
    out = attn(q, k, v, causal=shape.causal, scale=scale, **extras)
    assert out.dtype == q.dtype
    close(out, attn.definition(q, k, v, causal=shape.causal, scale=scale, **extras))


def stepwise(attn: Variant, shape: Shape, scale: float | None) -> None:
    """All but two tokens, then those one by one."""
    q, k, v = draw(shape)
    extras = attnbench.make_extras(attn, q, k, v)

    def part(tokens: slice) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [x[:, :, tokens] for x in (q, k, v)], {name: x[:, :, tokens] for name, x in extras.items()}

    tensors, more = part(slice(shape.n_k - 2))
    out, state = attn.prefill(*tensors, scale=scale, **more)
    parts = [out]
    for t in (shape.n_k - 2, shape.n_k - 1):
        before = {name: x.clone() for name, x in state.tensors.items()}
        tensors, more = part(slice(t, t + 1))
        out, after = attn.decode(*tensors, state, scale=scale, **more)
        assert all(torch.equal(x, before[name]) for name, x in state.tensors.items())
        parts, state = [*parts, out], after
    close(torch.cat(parts, dim=2), attn.definition(q, k, v, causal=True, scale=scale, **extras))


SQUARE = Shape(12, 12, True, "float32", batch=2, heads=4, kv_heads=2, head_dim=8, value_dim=6)


def put_flash(install: Install, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    function = fakes.flash_attn_func_4 if version == "4" else fakes.flash_attn_func
    install(flash.VERSIONS[version].module, flash_attn_func=function)
    monkeypatch.setattr(flash, "installed", lambda module: module == flash.VERSIONS[version].module)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (12, 12), (3, 12), (12, 3)])
@pytest.mark.parametrize("spec", ["flash_attn", *(f"sliding_window_flash_attn(window_size={w})" for w in (1, 4, 50))])
@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_flash_attention(
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    spec: str,
    n_q: int,
    n_k: int,
    causal: bool,
    scale: float | None,
) -> None:
    put_flash(install, monkeypatch, version)
    shape = Shape(n_q, n_k, causal, "float16", heads=4, kv_heads=2, value_dim=16 if n_q == 3 else 8)
    whole(attnbench.get(spec), shape, scale)


@pytest.mark.parametrize("spec", ["flash_attn", "sliding_window_flash_attn(window_size=4)"])
def test_flash_attention_decodes(install: Install, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    put_flash(install, monkeypatch, "2")
    stepwise(attnbench.get(spec), replace(SQUARE, dtype="bfloat16", value_dim=8), 0.3)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [2, 3, 4, 5, 12, 50])
def test_natten(install: Install, window: int, causal: bool, scale: float | None) -> None:
    install("natten", na1d=fakes.na1d, HAS_LIBNATTEN=True)
    attn = attnbench.get("na1d", window_size=window)
    whole(attn, replace(SQUARE, causal=causal, value_dim=8), scale)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n", "window"), [(1, 5), (9, 2), (9, 4), (9, 5), (9, 9), (9, 40)])
def test_counts_of_neighbours(n: int, window: int, causal: bool) -> None:
    attn = attnbench.get("na1d", window_size=window)
    q, k, _ = draw(Shape(n, n, causal, batch=1, heads=1, kv_heads=1))
    seen = attn.weights(q, k, causal=causal, scale=1.0, rows=torch.arange(n))
    assert attn.visible_pairs(n, n, causal) == int(seen.count_nonzero())


RECURRENCES = (
    "gla_fla",
    "delta_fla",
    "delta_fla(normalize_queries=False)",
    "gated_delta_fla",
    "gated_delta_fla(normalize_queries=False)",
    "kda_fla",
    "kda_fla(normalize_queries=False)",
    "retention_fla",
    "retention_fla(decay='lightning')",
    "retention_fla(gamma=0.9)",
    "linear_elu_fla",
)


def put_fla(install: Install) -> None:
    install("fla")
    for module, functions in fakes.FLA.items():
        install(module, **functions)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("form", [whole, stepwise])
@pytest.mark.parametrize("spec", RECURRENCES)
def test_recurrences_of_fla(install: Install, spec: str, form: Callable[..., None], scale: float | None) -> None:
    put_fla(install)
    attn = attnbench.get(spec)
    dtype = "float32" if "float32" in attn.supports.dtypes else "float16"
    form(attn, replace(SQUARE, dtype=dtype), scale)


def test_every_recurrence_of_fla_is_tested() -> None:
    assert {spec.split("(")[0] for spec in RECURRENCES} == {
        name for name in ADAPTERS if name.endswith("_fla") and name != "nsa_fla"
    }


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("form", [whole, stepwise])
def test_nsa_of_fla(
    install: Install, monkeypatch: pytest.MonkeyPatch, form: Callable[..., None], scale: float | None
) -> None:
    put_fla(install)
    install("flash_attn")
    monkeypatch.setattr(
        variant_class("nsa_fla"), "check_dtype", lambda self, q: None
    )  # float32 chooses as float64 does
    attn = attnbench.get("nsa_fla", block_size=16, num_selected=4, window_size=5)
    form(attn, Shape(100, 100, True, "float32", batch=1, heads=32, kv_heads=2), scale)


# -- the band of sliding_window_flex --------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 2, 127, 128, 129, 130, 256, 257, 1000])
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 1), (128, 128), (300, 300), (5, 300), (130, 257), (700, 700), (257, 130)])
def test_band_of_blocks_covers_what_is_seen_and_nothing_else(n_q: int, n_k: int, window: int, causal: bool) -> None:
    before, after = window - 1, 0 if causal else window - 1
    n_q = min(n_q, n_k + after)  # rows that see nothing are not asked for
    mask = band_mask(n_q, n_k, before, after, torch.device("cpu"), backward=False)
    q_idx, kv_idx = torch.arange(n_q)[:, None], torch.arange(n_k)[None]
    distance = q_idx + n_k - n_q - kv_idx
    seen = (distance <= before) & (distance >= -after)
    assert torch.equal(mask.mask_mod(0, 0, q_idx, kv_idx), seen)
    for row in range(mask.kv_num_blocks.shape[-1]):
        full = mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]].tolist()
        part = mask.kv_indices[0, 0, row, : mask.kv_num_blocks[0, 0, row]].tolist()
        kinds = seen[row * 128 : (row + 1) * 128].split(128, dim=1)
        assert full == [j for j, block in enumerate(kinds) if block.shape == (128, 128) and block.all()]
        assert sorted(full + part) == [j for j, block in enumerate(kinds) if block.any()]


# -- what is refused ------------------------------------------------------------------------------------------------

ON_GPU = Shape(64, 64, True, "float32", head_dim=64, value_dim=64, device="cuda")


def test_the_adapters_are_found() -> None:
    assert {"flash_attn", "sliding_window_flash_attn", "na1d", "nsa_fla", "gla_fla", "linear_elu_fla"} <= set(ADAPTERS)


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("name", ADAPTERS)
def test_every_reason_is_given_and_is_a_clean_clause(name: str) -> None:
    on_cpu = attnbench.get(name).reasons_against(replace(ON_GPU, device="cpu", dtype="float64"))
    assert "runs on cuda, not on cpu" in on_cpu
    assert any(reason.startswith("runs in ") and reason.endswith("not float64") for reason in on_cpu)
    assert any("installed" in reason and "pip install " in reason for reason in on_cpu)
    assert len(set(on_cpu)) == len(on_cpu)
    for reason in on_cpu:
        assert len(reason) < 200
        assert "\n" not in reason
        assert not reason.endswith(".")


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_missing_gpu_is_said_beside_a_missing_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reasons = attnbench.get(name).reasons_against(ON_GPU)
    assert "torch finds no CUDA device here" in reasons
    assert any("installed" in reason for reason in reasons)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_call_on_a_cpu_is_refused(name: str) -> None:
    attn = attnbench.get(name)
    q, k, v = draw(Shape(4, 4, True, "float16", heads=16, kv_heads=1))
    with pytest.raises(VariantError, match="runs on cuda, not on cpu"):
        attn(q, k, v, causal=True, **attnbench.make_extras(attn, q, k, v))


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_call_without_the_library_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(External, "check_device", lambda self, q: None)
    attn = attnbench.get(name)
    dtype = attn.supports.dtypes[0]
    q, k, v = draw(Shape(4, 4, True, dtype, heads=16, kv_heads=1))
    with pytest.raises(VariantError, match="installed"):
        attn(q, k, v, causal=True, **attnbench.make_extras(attn, q, k, v))


@pytest.mark.usefixtures("absent")
def test_a_library_that_breaks_at_import_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "fla" / "ops" / "gla"
    broken.mkdir(parents=True)
    for folder in (broken.parent.parent, broken.parent):
        (folder / "__init__.py").touch()
    (broken / "__init__.py").write_text("raise OSError('libcudart.so:\\n cannot open')")
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])  # it is not absent
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    said = "fla cannot be imported: OSError: libcudart.so: cannot open"
    assert attnbench.get("gla_fla").reasons_against(ON_GPU) == [said]


def test_a_version_of_fla_that_lacks_a_kernel_is_named(install: Install) -> None:
    install("fla")
    install("fla.ops.gla")
    q, k, v = draw(Shape(4, 4, True, "float32"))
    attn = attnbench.get("gla_fla")
    with pytest.raises(VariantError, match=r"fla\.ops\.gla has no chunk_gla"):
        attn(q, k, v, causal=True, **attnbench.make_extras(attn, q, k, v))


def test_natten_without_its_kernels_is_refused(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("natten", na1d=fakes.na1d, HAS_LIBNATTEN=False)
    attn = attnbench.get("na1d")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert any("built without its CUDA kernels" in reason for reason in attn.reasons_against(ON_GPU))
    with pytest.raises(VariantError, match="built without its CUDA kernels"):
        attn(*draw(Shape(8, 8, True, "float32")), causal=True)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("flash_attn", {"head_dim": 512}, "runs head dimensions up to 256, not 512"),
        ("na1d", {"head_dim": 20}, "multiples of 8, not 20"),
        ("na1d", {"n_q": 1, "n_k": 1}, "needs at least 2 tokens"),
        ("delta_fla", {"head_dim": 512}, "head dimensions up to 256, not 512"),
        ("delta_fla", {"dtype": "float32"}, "not float32"),
        ("linear_elu_fla", {"dtype": "float16"}, "not float16"),
        ("nsa_fla", {"heads": 8, "kv_heads": 1}, "at least 16, of query heads for each key head, not 8"),
        ("nsa_fla", {"heads": 48, "kv_heads": 2}, "for each key head, not 24"),
    ],
)
def test_sizes_that_a_kernel_lacks(name: str, change: dict[str, Any], said: str) -> None:
    assert any(said in reason for reason in attnbench.get(name).reasons_against(replace(ON_GPU, **change)))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("flash_attn(version='5')", "unknown version '5'"),
        ("nsa_fla(num_selected=5)", "num_selected must be a power of two, not 5"),
        ("nsa_fla(num_selected=64)", "num_selected must be at most block_size / 2"),
        ("na1d(window_size=1)", "window_size must be a whole number of at least 2"),
        ("retention_fla(decay='none')", "decay must be"),
    ],
)
def test_bad_parameters(spec: str, said: str) -> None:
    with pytest.raises(VariantError, match=said):
        attnbench.get(spec)


@pytest.mark.parametrize(
    ("there", "major", "chosen"),
    [("23", 8, "2"), ("234", 9, "3"), ("24", 9, "4"), ("23", 10, "2"), ("34", 10, "4"), ("3", 8, None), ("", 9, None)],
)
def test_auto_takes_the_version_written_for_the_gpu(
    monkeypatch: pytest.MonkeyPatch, there: str, major: int, chosen: str | None
) -> None:
    present = {flash.VERSIONS[number].module for number in there}
    monkeypatch.setattr(flash, "installed", lambda module: module in present)
    attn = attnbench.get("flash_attn")
    assert isinstance(attn, flash.FlashAttention)
    assert attn.chosen(major) == chosen


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("fourth", [True, False])
def test_versions_are_told_apart_by_their_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: bool, fourth: bool
) -> None:
    """Versions 2 and 4 share a folder, in which version 4 is a package of its own and has no __init__.py above it."""
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    if second:
        (tmp_path / "flash_attn" / "__init__.py").write_text("raise AssertionError('imported')")
    if fourth:
        (tmp_path / "flash_attn" / "cute" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[1:])
    monkeypatch.syspath_prepend(str(tmp_path))
    assert external.installed("flash_attn") == second
    assert external.installed("flash_attn.cute") == fourth


def test_nothing_is_imported_to_list_show_or_refuse() -> None:
    code = (
        "import sys, attnbench\n"
        "from attnbench.bench.contract.shapes import Shape\n"
        "for name in attnbench.names():\n"
        "    if name != 'xformers': attnbench.get(name).reasons_against(Shape(64, 64, True, 'float32'))\n"
        f"assert not set({[*LIBRARIES, 'triton']!r}) & set(sys.modules), set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""
