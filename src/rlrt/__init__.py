"""rlrt: reinforcement learning with verifiable rewards, and which tokens deserve the credit."""

import os

# for all commands; PyTorch reads it when it is imported, which nothing may do before this
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
