"""Kernels of other libraries: what they refuse, in whose words, and that they are not run where they are refused."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys

import pytest
import torch

import attnbench
from attnbench.bench.contract.checks import check_forward
from attnbench.bench.contract.shapes import Shape, draw
from attnbench.variants.api import VariantError
from attnbench.variants.full import flex, xformers

HERE = Shape(64, 64, True, "float32", head_dim=64, value_dim=64)


def test_sdpa_unknown_backend() -> None:
    with pytest.raises(VariantError, match="did you mean 'flash'"):
        attnbench.get("sdpa", backend="flahs")


@pytest.mark.parametrize("backend", ["mem_efficient", "cudnn"])
def test_sdpa_says_which_backends_a_cpu_has_not(backend: str) -> None:
    assert attnbench.get("sdpa", backend=backend).reasons_against(HERE) == [
        f"torch's {backend} kernel runs on CUDA only"
    ]


def test_sdpa_flash_on_a_cpu_names_the_shape_it_cannot_do() -> None:
    q, k, v = draw(Shape(8, 8, True, "float32", value_dim=4))
    with pytest.raises(VariantError, match="needs Dv = D, not 4 and 8"):
        attnbench.get("sdpa", backend="flash")(q, k, v, causal=True)


def test_xformers_refuses_a_cpu_in_the_words_of_its_operators() -> None:
    pytest.importorskip("xformers")
    reasons = attnbench.get("xformers").reasons_against(HERE)
    assert reasons[0] == "runs on cuda, not on cpu"
    assert any(reason.startswith("device=cpu (supported: {'cuda'})") for reason in reasons)


def test_xformers_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "xformers":
                raise ModuleNotFoundError("No module named 'xformers'", name="xformers")

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    xformers.load.cache_clear()
    try:
        assert "xformers is not installed: pip install xformers" in attnbench.get("xformers").reasons_against(HERE)
    finally:
        xformers.load.cache_clear()


def test_xformers_that_breaks_at_import_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").write_text("raise OSError('libcudart.so: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    xformers.load.cache_clear()
    try:
        reasons = attnbench.get("xformers").reasons_against(HERE)
        assert "xformers cannot be imported: OSError: libcudart.so: cannot open" in reasons
    finally:
        xformers.load.cache_clear()


def test_xformers_is_imported_quietly_and_only_when_asked() -> None:
    pytest.importorskip("xformers")
    code = (
        "import sys, attnbench; attnbench.names(); assert 'xformers' not in sys.modules\n"
        "from attnbench.variants.full.xformers import load\n"
        "load(); assert 'xformers' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""
    assert logging.getLogger("xformers").propagate


def test_flex_has_no_backward_pass_on_a_cpu() -> None:
    attn = attnbench.get("flex")
    train = Shape(64, 64, True, "float32", mode="train")
    assert "torch's flex_attention has no backward pass on a CPU" in attn.reasons_against(train)
    q, k, v = draw(HERE)
    with pytest.raises(VariantError, match=r"no backward pass on a CPU; call it under torch\.no_grad"):
        attn(q.requires_grad_(), k, v, causal=True)


def test_flex_refuses_float64() -> None:
    q, k, v = draw(Shape(8, 8, True))
    with pytest.raises(VariantError, match="not float64"):
        attnbench.get("flex")(q, k, v, causal=True)


def test_flex_names_a_missing_compiler() -> None:
    import torch._inductor.config
    from torch._inductor import cpp_builder

    def forget() -> None:
        flex._lacks_of_cpu.cache_clear()
        cpp_builder.cpp_compiler_search.cache_clear()

    forget()
    try:
        with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
            assert any("needs a C++ compiler" in reason for reason in attnbench.get("flex").reasons_against(HERE))
    finally:
        forget()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_q", "n_k"), [(2, 2), (127, 127), (128, 128), (129, 129), (300, 300), (5, 300), (130, 257)])
def test_flex_block_mask_covers_what_is_seen_and_nothing_else(n_q: int, n_k: int, causal: bool) -> None:
    """Each pair of positions is in a block that is listed once, as full only where all of its pairs are seen."""
    mask = flex.block_mask(n_q, n_k, causal, torch.device("cpu"))
    q_idx, kv_idx = torch.arange(n_q)[:, None], torch.arange(n_k)[None]
    seen = kv_idx <= q_idx + (n_k - n_q if causal else n_k)
    assert torch.equal(mask.mask_mod(0, 0, q_idx, kv_idx), seen)
    for row in range(mask.kv_num_blocks.shape[-1]):
        full = mask.full_kv_indices[0, 0, row, : mask.full_kv_num_blocks[0, 0, row]].tolist()
        part = mask.kv_indices[0, 0, row, : mask.kv_num_blocks[0, 0, row]].tolist()
        rows = seen[row * 128 : (row + 1) * 128]
        kinds = [rows[:, j * 128 : (j + 1) * 128] for j in range(-(-n_k // 128))]
        whole = [j for j, block in enumerate(kinds) if block.all() and (j + 1) * 128 <= n_k]
        assert set(full) <= set(whole)
        assert sorted(full + part) == [j for j, block in enumerate(kinds) if block.any()]


needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no compiler"
)


@needs_compiler
@pytest.mark.parametrize("causal", [True, False])
def test_flex_smoke(causal: bool) -> None:
    """One compilation: the contract's tests of `flex` are slow, and this is not."""
    assert check_forward(attnbench.get("flex"), Shape(200, 200, causal, "float32", head_dim=16, value_dim=16)) < 1e-5


@needs_compiler
@pytest.mark.slow
def test_flex_one_compilation_serves_all_lengths_of_more_than_a_block() -> None:
    import torch._dynamo

    attn = attnbench.get("flex")
    # three blocks: torch takes sizes that are equal at first, such as two blocks and a batch of two, to be so for ever
    check_forward(attn, Shape(300, 300, True, "float32", head_dim=64, value_dim=64))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n, causal in ((131, True), (257, False), (1000, True), (1000, False)):
            check_forward(attn, Shape(n, n, causal, "float32", head_dim=64, value_dim=64))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("n_q", "n_k"), [(1, 24), (64, 24)])
def test_flex_is_right_where_vectors_of_eight_leave_half_a_tile_of_keys(n_q: int, n_k: int) -> None:
    """For AVX2 on any machine. torch 2.13 by itself is wrong here."""
    import torch._inductor.config

    torch.compiler.reset()
    with torch._inductor.config.patch({"cpp.simdlen": 256}):
        check_forward(attnbench.get("flex"), Shape(n_q, n_k, False, "float32", head_dim=16, value_dim=16))
    torch.compiler.reset()
