"""Model folders made on the spot, where no hub can be asked: a shape, and the tiny policy's tokenizer."""

import shutil
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from transformers import AutoConfig, PretrainedConfig
from workload import TINY, TOY

ROOT = Path(__file__).resolve().parents[2]
PRESET = "qwen3_4b_base"
NOT_TAKEN = ("config.json", "model.safetensors")
# Of models/tiny, whose tokenizer serves all shapes.
TOKENS = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}


def shape_of_stage(card: bool) -> PretrainedConfig:
    """That of ``model=qwen3_4b_base``; on the CPU a toy."""
    if not card:
        return TOY.config()
    preset = OmegaConf.load(ROOT / "configs" / "model" / f"{PRESET}.yaml")
    fields: Any = OmegaConf.to_container(preset.shape)
    return AutoConfig.for_model(**fields, **TOKENS)


def write_model(shape: PretrainedConfig, folder: Path) -> str:
    """A folder without weights, for random ones, with the tiny policy's tokenizer; returns its name.

    The head has far more entries than the tokenizer has tokens: random weights sample ids without text.
    """
    folder.mkdir(parents=True)
    shape.save_pretrained(folder)
    for file in Path(TINY).iterdir():
        if file.name not in NOT_TAKEN:
            shutil.copy(file, folder)
    return str(folder)
