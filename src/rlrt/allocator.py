"""How PyTorch takes a card's memory."""

import os

NAMES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # PyTorch's, new and old


def grow_segments() -> None:
    """Have its segments grow instead of lying about in pieces: updates and engine take turns on a card.

    Before CUDA starts. What the user has set stays. vLLM leaves its own pools out of it.
    """
    if not any(name in os.environ for name in NAMES):
        os.environ[NAMES[0]] = "expandable_segments:True"
