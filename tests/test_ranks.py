"""What the processes of a run tell each other, alone and as three."""

import json
from pathlib import Path

import pytest
import torch
from tests.processes import run_ranks

from rlrt import ranks
from rlrt.leader import leads

THREE = """
import json, pathlib, sys, torch, torch.distributed as dist
from rlrt import ranks
dist.init_process_group("gloo")
me = ranks.rank()
ranks.wait()
pathlib.Path(sys.argv[1], f"{me}.json").write_text(json.dumps([
    me,
    ranks.total(torch.tensor([me, 10.5])).tolist(),
    ranks.maxima(torch.tensor([me, -me])).tolist(),
    ranks.largest(me * 7),
    ranks.gathered("abc"[me]),
    ranks.own_groups(12, 6),
    ranks.exchanged([f"{me} to {other}" * (me + 2 * other) for other in range(3)]),
]))
ranks.wait()
dist.destroy_process_group()  # whose threads would else end the interpreter's last moments
"""


def test_one_process_answers_for_itself() -> None:
    assert (ranks.rank(), ranks.world_size()) == (0, 1)
    assert ranks.total(torch.tensor([1.0, 2])).tolist() == [1, 2]
    assert ranks.maxima(torch.tensor([1.0, 2])).tolist() == [1, 2]
    assert ranks.largest(7) == 7
    assert ranks.gathered("own") == ["own"]
    assert ranks.exchanged(["own"]) == ["own"]
    assert ranks.own_groups(4, 2) == [0, 1, 2, 3]


def test_three_processes_sum_compare_gather_and_share_every_update(tmp_path: Path) -> None:
    program = tmp_path / "three.py"
    program.write_text(THREE)
    run_ranks(3, str(program), str(tmp_path), timeout_s=120)
    rows = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [row[0] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row[1:5] == [[3.0, 31.5], [2, 0], 14, ["a", "b", "c"]]
    for me, row in enumerate(rows):
        assert row[6] == [f"{other} to {me}" * (other + 2 * me) for other in range(3)]
    # two updates of six groups: each rank has two of either
    assert [row[5] for row in rows] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "16"}, True),  # torchrun
        ({"RANK": "8", "LOCAL_RANK": "0", "WORLD_SIZE": "16"}, False),  # its second machine
        ({"LOCAL_RANK": "1", "NODE_RANK": "0"}, False),  # a child of Lightning's launcher
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "3"}, False),  # srun
        ({"SLURM_PROCID": "0"}, True),
    ],
)
def test_rank_0_leads(
    environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert leads() == expected
