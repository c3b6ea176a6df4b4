"""The tiny policy with an output head of its own, as the 8B policies have one."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file
from tests.paths import TINY


def untied_tiny(folder: Path) -> str:
    """Write it to ``folder``: it computes what the tied one does, until they are trained."""
    shutil.copytree(TINY, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)
