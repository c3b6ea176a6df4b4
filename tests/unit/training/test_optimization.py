"""AdamW with moments on the host is AdamW on the device, to the bit, whatever comes between steps."""

import io
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.optimizer import _optimizer_to_device
from tests.processes import call_ranks
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import AdamW, Optimizer

from rlrt.distributed import full_tensor, get_rank
from rlrt.training.optimization import HostAdamW

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
Make = Callable[..., Optimizer]


def fused(parameters: Any, **settings: Any) -> AdamW:
    return AdamW(parameters, fused=True, **settings)


def host(chunk: int) -> Make:
    return lambda parameters, **settings: HostAdamW(parameters, chunk=chunk, **settings)


class Trained:
    """Parameters of uneven sizes in two groups, one without a gradient, and their optimizer."""

    def __init__(self, make: Make, device: str = "cpu") -> None:
        draw = torch.Generator().manual_seed(0)
        sizes = [(50, 7), (3,), (), (0, 4), (129,), (2, 2)]
        self.parameters = [
            nn.Parameter(torch.randn(size, generator=draw).to(device)) for size in sizes
        ]
        groups = [
            {"params": self.parameters[:2], "weight_decay": 0.3, "lr": 0.05},
            {"params": self.parameters[2:], "betas": (0.8, 0.95)},
        ]
        self.optimizer = make(groups, lr=0.01, eps=1e-7)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda done: 1 / (done + 1)
        )
        self.steps = 0

    def train(self, steps: int) -> "Trained":
        for _ in range(steps):
            draw = torch.Generator().manual_seed(100 + self.steps)
            for parameter in self.parameters[:-1]:
                slope = torch.randn(parameter.shape, generator=draw) * 10.0 ** (self.steps - 3)
                parameter.grad = slope.to(parameter.device)
            # no slope at all: the moments coast
            self.parameters[0].grad = torch.zeros_like(self.parameters[0])
            self.optimizer.step()
            self.schedule.step()
            self.steps += 1
        return self

    def same_as(self, other: "Trained") -> bool:
        return all(map(torch.equal, self.parameters, other.parameters))


def moments(optimizer: Optimizer) -> list[Tensor]:
    values = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in values if value.dim() > 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunk", [16, 64, 1 << 20])
def test_the_same_bits_as_on_the_device(device: str, chunk: int) -> None:
    there, here = Trained(fused, device).train(6), Trained(host(chunk), device).train(6)
    assert here.same_as(there)
    for one, two in zip(moments(here.optimizer), moments(there.optimizer), strict=True):
        assert one.device.type == "cpu"
        assert torch.equal(one, two.cpu())
    assert here.parameters[-1] not in here.optimizer.state  # it had no gradient


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("before", "after"), [(fused, host(32)), (host(32), fused), (host(32),) * 2]
)
def test_a_checkpoint_of_either_goes_on_with_the_other(
    device: str, before: Make, after: Make
) -> None:
    """Through a file without pickled objects, and the trainer's move of all state to its device."""
    stopped, whole = Trained(before, device).train(3), Trained(fused, device).train(6)
    saved = io.BytesIO()
    torch.save(stopped.optimizer.state_dict(), saved)
    saved.seek(0)
    resumed = Trained(after, device)
    resumed.parameters = stopped.parameters
    for group, other in zip(
        resumed.optimizer.param_groups, stopped.optimizer.param_groups, strict=True
    ):
        group["params"] = other["params"]
    resumed.optimizer.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True))
    _optimizer_to_device(resumed.optimizer, torch.device(device))
    if after is not fused:
        assert {moment.device.type for moment in moments(resumed.optimizer)} == {"cpu"}
    resumed.schedule.load_state_dict(stopped.schedule.state_dict())
    resumed.steps = 3
    assert resumed.train(3).same_as(whole)


def test_no_two_moments_share_a_page() -> None:
    """Page-locking another tensor's page a second time fails."""
    found = [part for part in moments(Trained(host(64)).train(1).optimizer) if part.numel()]
    assert len(found) == 2 * 3
    for part in found:
        assert part.data_ptr() % mmap.PAGESIZE == 0
        assert part.untyped_storage().nbytes() == part.nbytes


def test_a_state_dict_is_that_of_adamw() -> None:
    one, two = (Trained(make).train(2).optimizer.state_dict() for make in (fused, host(64)))
    assert one["param_groups"] == two["param_groups"]
    assert one["state"].keys() == two["state"].keys()
    for name, state in one["state"].items():
        assert type(two["state"][name]) is dict
        for key, value in state.items():
            torch.testing.assert_close(two["state"][name][key], value, rtol=0, atol=0)


def sharded(folder: Path) -> None:
    """One of two ranks: AdamW on the device and with moments on the host over the same shards."""
    models = []
    for make in (fused, host(16)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 1))  # one row: a rank has nothing of it
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        models.append((model, make(model.parameters(), lr=0.1)))
    for _ in range(3):
        for model, optimizer in models:
            optimizer.zero_grad()
            model(torch.ones(2, 5)).sum().backward()
            optimizer.step()
    for one, two in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
        assert torch.equal(full_tensor(one), full_tensor(two))
    full = StateDictOptions(full_state_dict=True, cpu_offload=True)
    device, here = (get_optimizer_state_dict(*pair, options=full) for pair in models)
    assert bool(device) == (get_rank() == 0)
    assert device.get("param_groups") == here.get("param_groups")
    for name, state in device.get("state", {}).items():
        for key, value in state.items():
            assert torch.equal(value, here["state"][name][key]), (name, key)
    model, stopped = models[1]
    resumed = HostAdamW(model.parameters(), lr=0.5, chunk=16)
    for parameter in model.parameters():
        parameter.grad = None
    spread = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_optimizer_state_dict(model, resumed, device, options=spread)  # of AdamW, the trainer's way
    assert resumed.param_groups[0]["lr"] == 0.1
    for parameter in model.parameters():
        for name, value in stopped.state[parameter].items():
            found = resumed.state[parameter][name]
            local, other = (getattr(part, "_local_tensor", part) for part in (found, value))
            assert torch.equal(local, other)
    (folder / f"done.{get_rank()}").touch()


@pytest.mark.slow
def test_each_rank_keeps_its_part_of_a_sharded_policys_moments(tmp_path: Path) -> None:
    call_ranks(2, sharded, tmp_path, timeout_s=250)
    assert sorted(path.name for path in tmp_path.glob("done.*")) == ["done.0", "done.1"]
