"""Stage 2: the engine beside a trainer: sync, proof, sampling, sleep and wake, several rounds."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import ours
import torch
from gpu import demand_of, device_bytes
from gpu_stages.stage import GIB, Check, attention_backend
from torch import Tensor
from transformers import PreTrainedModel
from workload import TINY, Workload, draw

from rlrt.config.memory import resolve_moments
from rlrt.credit.grpo import GRPO
from rlrt.engine.engine import EngineSpec, Sampling, engine_weights
from rlrt.engine.probe import sync_and_prove
from rlrt.engine.vllm_engine import VLLMEngine
from rlrt.model.load import load_policy
from rlrt.training.module import PolicyModule
from rlrt.training.updates import Update

ROUNDS = 3
ASLEEP_GIB = 3.0  # that a sleeping engine may keep: CUDA graphs, its kernels, what torch holds
GROWTH_GIB = 0.2  # that it may keep more from round to round
ALTERED = "layers.1.mlp.down_proj.weight"  # of which the engine gets one weight wrong, once
CHANGE = 1.01  # factor of all weights between two rounds, so that old ones are noticed


def run(check: Check) -> None:
    """The tiny policy, as it is trained."""
    policy = load_policy(TINY, torch.float32)
    load = draw(8, 8, 64) if check.card else draw(2, 2, 16)
    serve(check, policy, TINY, load, updates=ROUNDS)


def serve(
    check: Check,
    policy: PreTrainedModel,
    folder: str,
    load: Workload,
    updates: int,
    syncs_per_update: int = 1,
) -> None:
    """Rounds as rollout steps have them: sync and proof, sampling, sleep, and an update.

    In bfloat16 on a card, inside a fit of the real trainer; the responses of ``load`` are updated on,
    its prompts are sampled from.
    """
    dtype = torch.bfloat16 if check.card else torch.float32
    backend = attention_backend(check.card)
    check.note(attention_backend=backend)
    engine = VLLMEngine(attention_backend=backend)
    longest, budget = load.longest + 1, max(8192, load.longest)
    spec = EngineSpec(folder, (2,), dtype, longest)
    turns = Turns(check, engine, spec, load, syncs_per_update)
    demand = resolve_moments(demand_of(policy, budget, longest, engine=True), device_bytes())
    check.note(moments=demand.moments)
    module = ours.module_of(policy, budget, moments=demand.moments)
    precision = "bf16-mixed" if check.card else "32-true"
    ours.run(module, turns, precision, "gpu" if check.card else "cpu", rounds=updates)
    engine.close()
    gc.collect()
    seconds = turns.seconds
    last = ", ".join(f"{name} {seconds[name][-1]:.3f} s" for name in ("sync", "proof", "probe"))
    speed = turns.figures["tokens_per_s"][-1]
    check.tell(f"start {seconds['start'][0]:.0f} s, {last}, {speed:,.0f} tokens/s")
    mean, most = (max(turns.figures[f"gap_{name}"]) for name in ("mean", "max"))
    check.tell(f"gap: mean {mean:.2g}, maximum {most:.2g} nats")
    if check.card:
        judge_memory(check, turns)


def judge_memory(check: Check, turns: "Turns") -> None:
    """Whether the sleeping engine has given its memory back, every time."""
    free = turns.figures
    kept = [turns.free_before - asleep for asleep in free["free_asleep_gib"]]
    taken = [turns.free_before - awake for awake in free["free_awake_gib"]]
    check.note(asleep_gib=kept, awake_gib=taken)
    check.tell(
        f"holds {taken[-1]:.1f} GiB awake, {kept[-1]:.2f} asleep; sleep "
        f"{turns.seconds['sleep'][-1]:.2f} s, wake and sync {turns.seconds['sync'][-1]:.2f} s"
    )
    check.expect(
        max(kept) <= ASLEEP_GIB, f"asleep it keeps {max(kept):.2f} GiB, at most {ASLEEP_GIB:g}"
    )
    grown = kept[-1] - kept[0]
    check.expect(grown <= GROWTH_GIB, f"over the rounds it keeps {grown:.2f} GiB more and more")
    check.expect(min(taken) > 2 * max(kept), "awake it holds hardly more than asleep")


@dataclass
class Turns:
    """One round after the other, as what prepares the updates of ``ours.run``."""

    check: Check
    engine: VLLMEngine
    spec: EngineSpec
    load: Workload
    syncs_per_update: int
    free_before: float = 0.0  # GiB of the card, before the engine starts
    seconds: dict[str, list[float]] = field(default_factory=dict)  # of each round
    figures: dict[str, list[float]] = field(default_factory=dict)
    round: int = 0

    def __call__(self, module: PolicyModule) -> list[Update]:
        """The rounds before an update."""
        if not self.round:
            self.free_before = self.free()
            with self.clock("start"):
                self.engine.start(module.policy, self.spec)
        for _ in range(self.syncs_per_update):
            self.turn(module)
            self.round += 1
        return ours.one_update(ours.rollouts_of(self.load), GRPO())(module)

    def turn(self, module: PolicyModule) -> None:
        """New weights, served, proven, sampled with; then the engine sleeps."""
        module.policy.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter in module.policy.parameters():
                parameter.mul_(CHANGE)
        sampling, prompts = Sampling(self.load.limit), self.load.prompts
        if not self.round:
            self.control(module)
        self.check.doing(f"round {self.round}: sync and proof")
        synced = sync_and_prove(  # wakes a sleeping engine
            self.engine,
            lambda: engine_weights(module.policy, self.spec.dtype),
            lambda prompts, responses: module.score(prompts, responses)[0],
            prompts[:: self.load.samples],
            sampling,
            seed=0,
            step=self.round,
            dtype=self.spec.dtype,
        )
        for name in ("sync", "proof", "probe"):
            self.spent(name, synced[f"time/{name}_s"])
        with self.clock("sample"):
            responses = self.engine.sample(prompts, range(len(prompts)), sampling)
        tokens = sum(len(response.ids) for response in responses)
        self.keep(tokens_per_s=tokens / self.seconds["sample"][-1])
        self.keep(
            gap_mean=synced["sync/logprob_gap_mean"],
            gap_max=synced["sync/logprob_gap"],
            proven_tensors=synced["sync/proven_tensors"],
        )
        self.keep(free_awake_gib=self.free())
        with self.clock("sleep"):
            self.engine.sleep()
        self.keep(free_asleep_gib=self.free())

    def control(self, module: PolicyModule) -> None:
        """An engine that was sent one wrong weight of one layer is noticed, by the name of its tensor."""

        def right() -> Iterable[tuple[str, Tensor]]:
            return engine_weights(module.policy, self.spec.dtype)

        with self.clock("control"):
            self.engine.sync(altered(right()))
            named = self.engine.differing(right())
        self.check.note(control_named=named)
        self.check.expect(
            len(named) == 1 and named[0].endswith(ALTERED),
            f"with one wrong weight in {ALTERED} the proof names {named}",
        )

    def free(self) -> float:
        """GiB of the card that nobody holds; what torch caches is given back first."""
        if not self.check.card:
            return 0.0
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0] / GIB

    def keep(self, **figures: float) -> None:
        """Adds a round's figures."""
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)
        self.check.note(**self.figures)

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Adds a round's seconds."""
        self.check.doing(f"round {self.round}: {name}")
        began = ours.clock()
        yield
        self.spent(name, ours.clock() - began)

    def spent(self, name: str, seconds: float) -> None:
        """Adds a round's seconds, as measured."""
        self.seconds.setdefault(name, []).append(seconds)
        self.check.note(**{f"{name}_s": self.seconds[name]})


def altered(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """The weights, but for the first of ``ALTERED``."""
    for name, tensor in weights:
        if name.endswith(ALTERED):
            tensor = tensor.clone()
            tensor[0, 0] += 1
        yield name, tensor
