"""What the processes of a run tell each other, alone and as three."""

import json
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from tests.processes import call_ranks

from rlrt import distributed, errors


def three(folder: Path) -> None:
    """What one of three ranks learns of the others."""
    me = distributed.get_rank()
    distributed.barrier()
    found = [
        me,
        distributed.all_reduce_sum(torch.tensor([me, 10.5])).tolist(),
        distributed.all_reduce_max(torch.tensor([me, -me])).tolist(),
        distributed.largest(me * 7),
        distributed.all_gather_object("abc"[me]),
        distributed.groups_of_rank(12, 6),
        distributed.all_to_all_object(
            [f"{me} to {other}" * (me + 2 * other) for other in range(3)]
        ),
    ]
    (folder / f"{me}.json").write_text(json.dumps(found))
    distributed.barrier()


def test_one_process_answers_for_itself() -> None:
    assert (distributed.get_rank(), distributed.get_world_size()) == (0, 1)
    assert distributed.all_reduce_sum(torch.tensor([1.0, 2])).tolist() == [1, 2]
    assert distributed.all_reduce_max(torch.tensor([1.0, 2])).tolist() == [1, 2]
    assert distributed.largest(7) == 7
    assert distributed.all_gather_object("own") == ["own"]
    assert distributed.all_to_all_object(["own"]) == ["own"]
    assert distributed.groups_of_rank(4, 2) == [0, 1, 2, 3]


@pytest.mark.slow
def test_three_processes_sum_compare_gather_and_share_every_update(tmp_path: Path) -> None:
    call_ranks(3, three, tmp_path)
    rows = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [row[0] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row[1:5] == [[3.0, 31.5], [2, 0], 14, ["a", "b", "c"]]
    for me, row in enumerate(rows):
        assert row[6] == [f"{other} to {me}" * (other + 2 * me) for other in range(3)]
    # two updates of six groups: each rank has two of either
    assert [row[5] for row in rows] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


SRUN = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_NAME": "train"}
JSRUN = dict.fromkeys(sorted(errors.JSRUN), "4")
TORCHRUN = {"LOCAL_RANK": "0", "GROUP_RANK": "1", "WORLD_SIZE": "16"}
NAMES = {
    *SRUN,
    *JSRUN,
    *TORCHRUN,
    "RANK",
    "NODE_RANK",
    "JSM_NAMESPACE_RANK",
    "OMPI_COMM_WORLD_RANK",
}


@pytest.mark.parametrize(
    ("environment", "leads", "together"),
    [
        ({}, True, False),
        (TORCHRUN | {"RANK": "0", "GROUP_RANK": "0"}, True, True),
        (TORCHRUN | {"RANK": "8"}, False, True),  # its second machine
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, True, False),
        (TORCHRUN | {"RANK": "0"} | SRUN, True, True),  # one torchrun in a task of each machine
        (TORCHRUN | {"RANK": "8"} | SRUN | {"SLURM_PROCID": "0"}, False, True),
        # children of Lightning's launcher, and their parents
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, False, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False, True),
        ({"LOCAL_RANK": "0", "GROUP_RANK": "1"}, False, True),
        ({"NODE_RANK": "1"}, False, True),
        ({"NODE_RANK": "0"}, True, True),
        (SRUN, False, True),
        (SRUN | {"SLURM_PROCID": "0"}, True, True),
        (SRUN | {"SLURM_NTASKS": "1"}, True, False),
        (SRUN | {"SLURM_PROCID": "2", "LOCAL_RANK": "0", "NODE_RANK": "0"}, True, True),
        # a shell of SLURM's, in which Lightning takes no part of srun's
        (SRUN | {"SLURM_JOB_NAME": "bash"}, True, False),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, True, False),
        (SRUN | {"SLURM_JOB_NAME": "interactive", "LOCAL_RANK": "1"}, False, True),
        ({"SLURM_PROCID": "3", "SLURM_JOB_ID": "7"}, True, False),  # of no step of srun's
        (JSRUN | {"JSM_NAMESPACE_RANK": "2"}, False, True),
        (JSRUN | {"JSM_NAMESPACE_RANK": "0"}, True, True),
        ({"JSM_NAMESPACE_RANK": "2"}, True, False),
        # mpirun, which Lightning follows where mpi4py is installed, as here it is not
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, True, False),
    ],
)
def test_rank_0_leads(
    environment: dict[str, str], leads: bool, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert errors.is_rank_zero() == leads
    assert errors.launched_together() == together


@pytest.mark.parametrize("environment", [SRUN, SRUN | {"SLURM_JOB_NAME": "bash"}, {}])
def test_lightning_sees_srun_where_rank_zero_does(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert SLURMEnvironment.detect() == errors.launched_together()


def test_where_mpi4py_is_ranks_of_mpirun_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(errors, "find_spec", lambda name: name == "mpi4py" or None)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    for rank, expected in (("0", True), ("3", False)):
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
        assert errors.is_rank_zero() == expected
