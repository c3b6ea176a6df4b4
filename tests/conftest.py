"""What all tests share."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tests.paths import ROOT, TINY
from tests.runs import tiny_run
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt.model.load import load_policy, load_tokenizer

# the first draw pays for imports, and a run must be repeatable
settings.register_profile("rlrt", deadline=None, derandomize=True)
settings.load_profile("rlrt")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the project, which is not part of it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        if os.environ.get("RLRT_REQUIRE_SHARED"):  # set by .ci/run: there they must not skip
            pytest.fail("no ../shared folder beside the project")
        pytest.skip("no ../shared folder beside the project")
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny policy by RLRT, 3 rollout steps with a checkpoint each. Only read it."""
    return tiny_run(tmp_path_factory)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """The tiny policy's tokenizer."""
    return load_tokenizer(TINY)


@pytest.fixture
def tiny() -> PreTrainedModel:
    """The tiny policy with its trained weights, float32."""
    return load_policy(TINY, torch.float32)


@pytest.fixture
def random_policy() -> Callable[[torch.dtype], PreTrainedModel]:
    """The tiny policy's architecture with random weights, in the dtype asked for."""
    return lambda dtype: load_policy(TINY, dtype, random_init_seed=0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vllm") and find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
