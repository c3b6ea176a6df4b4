"""Revisions, slow answers and a hub that cannot be reached, by the real client against a local hub.

In one process of its own: the hub's libraries read their settings when they are imported.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from tests.hub_server import NEW, OLD, Files, Hub, files_of, serving
from tests.paths import ROOT, TINY
from tests.runs import SIZES

from rlrt.config.components import build_components, config_with_commits
from rlrt.config.compose import compose
from rlrt.config.stored_policies import find_policy, policies_by_step
from rlrt.errors import UserError

ABSENT = "a" * 40
PROGRAM = """
import json, sys
from omegaconf import OmegaConf
import rlrt.hub
from rlrt.config.compose import compose
from rlrt.config.components import config_with_commits, pin_commits
from rlrt.config.components import build_components
from rlrt.config.assembly import build_run
from rlrt.config.stored_policies import find_policy
from rlrt.data.rows import read_hub
from rlrt.errors import UserError
rlrt.hub.ANSWER_S = 1
work = json.loads(sys.stdin.readline())
for kind, *words in map(json.loads, sys.stdin):
    try:
        if kind == "rows":
            said = [row.columns["answer"] for row in read_hub("o/d", None, "train", revision=words[0])]
        elif kind == "policy":
            said = find_policy(words[0]).local_folder(weights=True)
        elif kind == "pin":
            config = compose(words)
            stored = config_with_commits(config, pin_commits(build_components(config)))
            said = [OmegaConf.select(stored, f"{g}.commit") for g in ("model", "teacher", "data")]
        else:
            build_run(compose(words[1:]), __import__("pathlib").Path(words[0]), 0)
            said = "built"
    except (UserError, ValueError) as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said), flush=True)
"""


def parquet(*answers: str) -> bytes:
    rows = [{"problem": f"Compute {n} + {a}.", "answer": a} for n, a in enumerate(answers)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def data(*answers: str) -> Files:
    return {"README.md": b"numbers", "train-00000-of-00001.parquet": parquet(*answers)}


class Client:
    """A process whose hub is at ``url`` and whose cache is in ``home``; it answers one word at a time."""

    def __init__(self, url: str, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"},
        )
        self._tell([])

    def __call__(self, *words: str | None) -> Any:
        self._tell(words)
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).startswith(("[", '"', "null")):
            assert line, "the client has ended"
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    def _tell(self, words: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()


@pytest.mark.slow
def test_a_life_with_the_hub(tmp_path: Path) -> None:
    """One client from its first request until the hub is gone."""
    tiny = files_of(Path(TINY))
    repositories = {
        "models/o/m": {OLD: tiny, NEW: tiny | {"note.json": b"{}"}},
        "models/o/other": {OLD: tiny, NEW: tiny},
        "datasets/o/d": {OLD: data("1"), NEW: data("1", "2")},
    }
    hub = Hub(repositories)
    hub.delay_s = 3
    snapshots = tmp_path / "hub" / "models--o--m" / "snapshots"
    with serving(hub), Client(hub.url, tmp_path) as ask:
        # one slow answer costs one request: the cache knows nothing, and the next is asked again
        hub.slow_answers = 1
        assert ask("policy", "o/m@v1").startswith("UserError: model.revision is v1: the hub cannot")
        hub.slow_answers = 1
        assert ask("rows", "v1").startswith(
            "ValueError: data.revision is v1: the hub cannot be asked"
        )
        assert ask("policy", "o/m") == str(snapshots / NEW)
        assert ask("policy", "o/m@v1") == str(snapshots / OLD)
        assert ask("policy", f"o/m@{OLD}") == str(snapshots / OLD)
        assert ask("rows", None) == ["1", "2"]
        assert ask("rows", "v1") == ["1"]
        # a run keeps what its revisions stood for
        settings = ["engine=hf", "model.path=o/m", "model.revision=v1"]
        settings += ["data=hub", "data.name=o/d", "data.held_out_problems=1"]
        assert ask("pin", *settings, "teacher=separate", "teacher.path=o/m") == [OLD, NEW, NEW]
        assert ask("pin", *settings, f"data.commit={OLD}") == [OLD, None, OLD]
        assert ask("pin", "engine=hf") == [None, None, None]
        # what does not exist is one sentence, before anything loads
        folder = str(tmp_path / "run")
        for wrong in ("nope", ABSENT):
            for setting in ("model.revision", "teacher.revision", "data.revision"):
                words = [
                    *settings,
                    "teacher=separate",
                    "teacher.path=o/m",
                    f"{setting}={wrong}",
                ]
                said = ask("run", folder, *SIZES, *words)
                assert said.startswith(f"UserError: {setting} is {wrong}: o/"), said
                assert said.endswith("on the hub has no such branch, tag or commit"), said
        assert not Path(folder).exists()
        # the hub is gone: what is cached is there, and no other commit passes for one that is not
        hub.slow_answers = 1_000
        assert ask("policy", "o/m") == str(snapshots / NEW)
        assert ask("policy", f"o/m@{OLD}") == str(snapshots / OLD)
        assert ask("rows", OLD) == ["1"]
        assert "is v2: the hub cannot be asked what that is of o/m" in ask("policy", "o/m@v2")
        assert "nor in the local Hugging Face cache" in ask("policy", f"o/m@{ABSENT}")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("model.revision=v1", r"model\.revision is v1, and model\.path is a local copy"),
        (f"model.commit={OLD}", r"model\.commit is 0+1, and model\.path is a local copy"),
        ("model.path=o/m model.revision=''", r"model\.revision is empty"),
        ("model.path=o/m model.commit=v1", r"model\.commit is v1, it must be null or 40 hex"),
        (
            f"teacher=separate teacher.path={TINY} teacher.revision=a",
            r"teacher\.revision is a, and",
        ),
        (
            f"data=gsm8k data.path={ROOT}/x.jsonl data.revision=a",
            r"data\.revision is a, and data\.path",
        ),
        (
            f"data=dapo_math_17k data.path={ROOT}/x.jsonl data.revision=a",
            r"data\.revision is a, and",
        ),
        (
            f"data=hub data.name={TINY} data.revision=a",
            r"data\.revision is a, and data\.name is a loc",
        ),
    ],
)
def test_a_revision_of_a_local_copy_is_refused(settings: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build_components(compose(["engine=hf", *settings.split()]))


def test_the_start_of_a_run_is_read_at_the_commit_that_it_began_with(tmp_path: Path) -> None:
    config = compose(["engine=hf", "model.path=o/m", "model.revision=v1", f"model.commit={OLD}"])
    OmegaConf.save(config_with_commits(config, build_components(config)), tmp_path / "config.yaml")
    assert policies_by_step(tmp_path) == {0: f"o/m@{OLD}"}
    start = find_policy(f"o/m@{OLD}")
    assert (start.folder, start.revision) == ("o/m", OLD)
