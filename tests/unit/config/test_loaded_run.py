"""A real run of the tiny policy, read back."""

import shutil
from pathlib import Path

import pytest

from rlrt.config.loaded_run import load_run
from rlrt.errors import UserError


def test_stop_tokens_are_read_once_and_a_lost_file_is_one_sentence(
    run_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder / "export", tmp_path / "export")
    loaded, again = (load_run(run_folder, str(tmp_path / "export")) for _ in range(2))
    assert loaded.tokenizer.eos_token_id in loaded.stop_token_ids
    shutil.rmtree(tmp_path / "export")
    assert loaded.tokenizer.eos_token_id in loaded.stop_token_ids
    with pytest.raises(UserError):
        _ = again.stop_token_ids
