"""What proves a sync: which prompts, with which random numbers, and what it raises."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from tests.paths import TINY
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.batch import Response
from rlrt.engine.engine import EngineSpec, OnFinished, Sampling
from rlrt.engine.hf_engine import HFEngine
from rlrt.engine.probe import StaleEngineError, probe
from rlrt.model.policy import Policy, score_responses
from rlrt.seeds import derive_seed

PROMPTS = [(1, 10 + number, 20) for number in range(10)]
Asked = tuple[list[Sequence[int]], list[int], Sampling]


class SpyingEngine(HFEngine):
    """The real one; ``asked`` keeps what it was asked."""

    asked: Asked

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished | None = None,
    ) -> list[Response]:
        self.asked = list(prompts), list(seeds), sampling
        return super().sample(prompts, seeds, sampling, on_finished)


@pytest.fixture
def engine(tiny: PreTrainedModel) -> Iterator[SpyingEngine]:
    started = SpyingEngine()
    started.start(Policy(tiny), EngineSpec(TINY, (2,), torch.float32, 64))
    yield started
    started.close()


@pytest.mark.parametrize(("longest", "probed"), [(50, 8), (5, 5)])
def test_the_first_prompts_shortly_and_always_alike(
    engine: SpyingEngine, tiny: PreTrainedModel, longest: int, probed: int
) -> None:
    def score(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Tensor:
        return score_responses(Policy(tiny), prompts, responses, 0.9, 10**5)[0]

    prompts = iter(PROMPTS)
    gap = probe(engine, score, prompts, Sampling(longest, 0.9), 7, 3, torch.float32)
    assert 0 <= gap.mean <= gap.max <= 1e-4
    seeds = [derive_seed(7, "probe", 3, number) for number in range(8)]
    assert engine.asked == (PROMPTS[:8], seeds, Sampling(probed, 0.9))
    assert next(prompts) == PROMPTS[8], "no more is read than is asked"


def test_other_weights_are_told_with_their_step(
    engine: SpyingEngine, tiny: PreTrainedModel
) -> None:
    def score(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Tensor:
        return score_responses(Policy(tiny), prompts, responses, 0.9, 10**5)[0] - 0.01

    def probed() -> None:
        probe(engine, score, PROMPTS, Sampling(8, 0.9), 7, 3, torch.float32)

    with pytest.raises(StaleEngineError, match="after the weight sync of step 3"):
        probed()
    engine.max_logprob_gap = 0.02
    probed()
