"""The optimiser's state on the host and back: memory freed, values kept, the same next step."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from rlrt.training.offload import HostOptimizerState, is_freed, require_restored

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


def trained(device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[nn.Module, AdamW]:
    torch.manual_seed(0)
    model = nn.Linear(5, 3).to(device, dtype)
    optimizer = AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    parameter = next(model.parameters())
    model(
        torch.ones(2, 5, device=parameter.device, dtype=parameter.dtype)
    ).square().sum().backward()
    optimizer.step()


def moments(optimizer: Optimizer) -> list[torch.Tensor]:
    values = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in values if value.dim() > 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_freed_and_values_come_back_in_the_same_tensors(
    device: str, dtype: torch.dtype
) -> None:
    _, optimizer = trained(device, dtype)
    before = moments(optimizer)
    before[0].view(-1)[0] = float("nan")  # whatever the bits are
    kept = [tensor.clone() for tensor in before]
    host = HostOptimizerState(optimizer)
    for _ in range(2):  # the second time into the same copies
        with host.on_host():
            host.offload()  # again: nothing more happens
            assert [tensor.untyped_storage().size() for tensor in before] == [0] * 4
            with pytest.raises(AssertionError, match="4 tensors of the optimiser's state"):
                require_restored(optimizer)
        require_restored(optimizer)
        host.restore()
        assert all(now is then for now, then in zip(moments(optimizer), before, strict=True))
        for tensor, value in zip(before, kept, strict=True):
            torch.testing.assert_close(tensor, value, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
def test_the_next_steps_are_those_without_it(device: str) -> None:
    (one, plain), (two, moved) = trained(device), trained(device)
    host = HostOptimizerState(moved)
    for _ in range(3):
        step(one, plain)
        with host.on_host():
            pass
        step(two, moved)
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.bias, two.bias)


def test_state_that_is_not_there_yet_or_has_been_loaded_anew() -> None:
    model = nn.Linear(5, 3)
    optimizer = AdamW(model.parameters())
    host = HostOptimizerState(optimizer)
    with host.on_host():
        pass  # before the first step
    step(model, optimizer)
    with host.on_host():
        assert all(map(is_freed, moments(optimizer)))
    optimizer.load_state_dict(trained()[1].state_dict())
    expected = [tensor.clone() for tensor in moments(optimizer)]
    with host.on_host():
        assert all(map(is_freed, moments(optimizer)))
    assert all(map(torch.equal, moments(optimizer), expected))


def test_an_error_of_the_engine_leaves_the_state_in_place() -> None:
    _, optimizer = trained()
    with pytest.raises(RuntimeError, match="the engine"), HostOptimizerState(optimizer).on_host():
        raise RuntimeError("the engine is out of memory")
    require_restored(optimizer)


def test_an_optimizer_without_state_and_tensors_that_share_memory() -> None:
    model = nn.Linear(5, 3)
    sgd = SGD(model.parameters())
    with HostOptimizerState(sgd).on_host():
        step(model, sgd)  # it needs none
    both = torch.arange(8.0)
    sgd.state[model.weight] = {"one": both[:4], "two": both[4:]}
    with HostOptimizerState(sgd).on_host():
        assert is_freed(both)
    assert torch.equal(both, torch.arange(8.0))


SHARDED = """
import copy, sys
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from rlrt.training.offload import HostOptimizerState, is_freed

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=rank, world_size=2)
models = []
for _ in range(2):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 1))  # one row: a rank has nothing of it
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    models.append((model, torch.optim.AdamW(model.parameters(), lr=0.1)))
host = HostOptimizerState(models[1][1])
for _ in range(3):
    for model, optimizer in models:
        optimizer.zero_grad()
        model(torch.ones(2, 5)).sum().backward()
        optimizer.step()
    host.offload()
    local = [value.to_local() for state in models[1][1].state.values()
             for value in state.values() if value.dim()]
    assert all(is_freed(value) for value in local if value.numel()), local
    host.restore()
for one, two in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
    assert torch.equal(one.full_tensor(), two.full_tensor())
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_each_rank_moves_its_part_of_a_sharded_policys_state(tmp_path: object) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(tmp_path), str(rank)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ends = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], ends
