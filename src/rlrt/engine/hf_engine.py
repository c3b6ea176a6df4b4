"""Plain transformers generation with the trainer's own policy: slow, small, and always there."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
)

from rlrt.batch import Ids, Response, as_array
from rlrt.engine.engine import EngineSpec, OnFinished, Sampling, engine_weights
from rlrt.model.fused_head import product
from rlrt.model.policy import Policy
from rlrt.validation import validated


class _SeededSampler(LogitsProcessor):
    """Draws each row's token with that row's own generator and leaves generate() no other choice.

    generate() itself has one random state for the whole batch, so a response would depend on its
    neighbors; and its scores of every step would have to be kept to know the log-probs.
    """

    def __init__(self, seeds: Sequence[int], sampling: Sampling) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.sampling = sampling
        self.logprobs: list[Tensor] = []  # per step, [B]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        greedy = self.sampling.temperature == 0
        logits_BV = scores.float() / (1.0 if greedy else self.sampling.temperature)
        logprobs_BV = torch.log_softmax(_nucleus(logits_BV, self.sampling.top_p), dim=-1)
        if greedy:
            chosen_B = logprobs_BV.argmax(-1)
        else:
            # Gumbel-max: one uniform per token of the vocabulary, from the row's own generator
            uniform = torch.stack(
                [torch.rand(scores.shape[1], generator=g) for g in self.generators]
            )
            noise_BV = -(-uniform.clamp(min=1e-20).log()).log()
            chosen_B = (logprobs_BV + noise_BV.to(logits_BV.device)).argmax(-1)
        self.logprobs.append(logprobs_BV.gather(-1, chosen_B[:, None]).squeeze(-1).cpu())
        forced_BV = torch.full_like(scores, -torch.inf)
        return forced_BV.scatter(-1, chosen_B[:, None], 0.0)


def _nucleus(logits_BV: Tensor, top_p: float) -> Tensor:
    """Logits with all but the smallest set of tokens of mass ``top_p`` at minus infinity."""
    if top_p == 1:
        return logits_BV
    sorted_BV, order_BV = logits_BV.sort(-1, descending=True)
    before_BV = sorted_BV.softmax(-1).cumsum(-1) - sorted_BV.softmax(-1)
    sorted_BV = sorted_BV.masked_fill(before_BV >= top_p, -torch.inf)
    return torch.empty_like(logits_BV).scatter(-1, order_BV, sorted_BV)


def _exact_logits(head: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """As the trainer has them: a layer of bfloat16 would round its own to it."""
    (hidden,) = inputs
    return product(hidden.flatten(0, -2), head.weight.T).unflatten(0, hidden.shape[:-1])


class HFEngine:
    """Generates with the live policy. ``batch_size`` responses are drawn at a time."""

    @validated("engine")
    def __init__(
        self,
        batch_size: PositiveInt = 128,
        max_logprob_gap: Annotated[
            PositiveFloat | None, Field(description="it must be null or > 0")
        ] = None,
    ) -> None:
        self.batch_size = batch_size
        self.max_logprob_gap = max_logprob_gap

    def require_ranks(self, count: int) -> None:
        if count > 1:  # the layers of a sharded policy are called by all ranks or none
            raise ValueError(
                "engine=hf samples with the trainer's own policy, in a single process: choose "
                "engine=vllm"
            )

    def require_shape(self, shape: PretrainedConfig) -> None:
        """It serves every shape."""

    def start(self, policy: Policy, spec: EngineSpec) -> None:
        self.policy = policy
        self.stop_token_ids = spec.stop_token_ids
        self.dtype = spec.dtype

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Nothing to do: it samples with the trainer's own tensors."""

    def differing(self, weights: Iterable[tuple[str, Tensor]]) -> list[str]:
        own, sent = dict(engine_weights(self.policy, self.dtype)), dict(weights)
        shared = own.keys() & sent.keys()
        return [n for n in own | sent if n not in shared or not torch.equal(own[n], sent[n])]

    def sample(
        self,
        prompts: Sequence[Ids],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished | None = None,
    ) -> list[Response]:
        """Responses count as finished when those of their batch are."""
        responses: list[Response] = []
        for start in range(0, len(prompts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = self._sample_batch(prompts[rows], seeds[rows], sampling)
            responses += batch
            for index, response in enumerate(batch, start):
                if on_finished is not None:
                    on_finished(index, response)
        return responses

    def _sample_batch(
        self, prompts: Sequence[Ids], seeds: Sequence[int], sampling: Sampling
    ) -> list[Response]:
        longest = max(len(prompt) for prompt in prompts)
        input_ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):  # padded on the left: generation continues the end
            input_ids[row, longest - len(prompt) :] = torch.from_numpy(as_array(prompt))
            mask[row, longest - len(prompt) :] = 1
        sampler = _SeededSampler(seeds, sampling)
        causal_lm, training = self.policy.causal_lm, self.policy.training
        model_settings = causal_lm.generation_config
        # generate() fills what its argument leaves open from the model's own settings, and a
        # repetition penalty or a minimum length there would change the distribution
        causal_lm.generation_config = GenerationConfig()
        self.policy.eval()  # dropout off; gradient checkpointing would switch the cache off
        exact = self.policy.get_output_embeddings().register_forward_hook(_exact_logits)
        with torch.no_grad():
            output = self.policy.generate(
                input_ids.to(self.policy.device),
                attention_mask=mask.to(self.policy.device),
                logits_processor=LogitsProcessorList([sampler]),
                generation_config=GenerationConfig(
                    max_new_tokens=sampling.max_response_tokens,
                    do_sample=False,
                    use_cache=True,
                    eos_token_id=list(self.stop_token_ids),
                    pad_token_id=self.stop_token_ids[0],
                ),
            )
        exact.remove()
        if isinstance(self.policy, FSDPModule):
            self.policy.reshard()  # what stays gathered would miss the next update
        self.policy.train(training)
        causal_lm.generation_config = model_settings
        logprobs_BT = torch.stack(sampler.logprobs, dim=1)
        rows = zip(output[:, longest:].cpu().numpy(), logprobs_BT.numpy(), strict=True)
        return [self._response(ids, logprobs) for ids, logprobs in rows]

    def _response(self, ids_T: NDArray[np.int64], logprobs_T: NDArray[np.float32]) -> Response:
        (ends,) = np.isin(ids_T, self.stop_token_ids).nonzero()
        length = ends[0] + 1 if len(ends) else len(ids_T)
        return Response(ids_T[:length], logprobs_T[:length].copy(), truncated=not len(ends))

    def sleep(self) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to give back."""
