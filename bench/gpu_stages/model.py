"""Model folders made on the spot, where no hub can be asked: a shape, and the tiny policy's tokenizer."""

import shutil
from pathlib import Path

from workload import TINY, Shape

NOT_TAKEN = ("config.json", "model.safetensors")


def write_model(shape: Shape, folder: Path) -> str:
    """A folder without weights, for random ones; returns its name.

    The head has far more entries than the tokenizer has tokens: random weights sample ids without text.
    """
    folder.mkdir(parents=True)
    shape.config().save_pretrained(folder)
    for file in Path(TINY).iterdir():
        if file.name not in NOT_TAKEN:
            shutil.copy(file, folder)
    return str(folder)
