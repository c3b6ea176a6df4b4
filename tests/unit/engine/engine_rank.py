"""One process of test_ranks.py: python -m tests.unit.engine.engine_rank TENSOR_PARALLEL FOLDER.

Serves a sharded policy by the real engine and writes what it found to FOLDER/RANK.json. Started by
itself and not by torchrun it is a run of a single process.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from tests.paths import TINY
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from rlrt import distributed
from rlrt.batch import Response
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import EngineSpec, Sampling, engine_weights
from rlrt.engine.probe import logprob_gap
from rlrt.engine.vllm_engine import VLLMEngine
from rlrt.model.load import load_policy, load_tokenizer, stop_token_ids
from rlrt.model.policy import Policy

SAMPLING = Sampling(max_response_tokens=40)
PROMPTS = 9  # of which the last rank has one less


def trained(scale: float) -> PreTrainedModel:
    """The tiny policy after some training."""
    policy = load_policy(TINY, torch.float32)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(scale)
    return policy


def flipped(tensor: Tensor) -> Tensor:
    """The lowest bit of the last element."""
    other = tensor.clone()
    other.view(torch.int32).flatten()[-1] ^= 1
    return other


def naive_score(
    policy: PreTrainedModel, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> Tensor:
    """The trainer's log-probs ``[B, T]``, one sequence at a time."""
    scores_BT = torch.zeros(len(prompts), SAMPLING.max_response_tokens)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        with torch.no_grad():
            logits_LV = policy(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
        logprobs_TV = logits_LV[len(prompt) - 1 : -1].log_softmax(-1)
        chosen_T = torch.tensor(response)[:, None]
        scores_BT[row, : len(response)] = logprobs_TV.gather(1, chosen_T)[:, 0]
    return scores_BT


def main(tensor_parallel: int, folder: Path) -> None:
    """Sync, sample, sync other weights, sample; once without a prompt on the last rank."""
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
        for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            del os.environ[name]  # Lightning's own launcher leaves some of them out
    tokenizer = load_tokenizer(TINY)
    spec = EngineSpec(TINY, stop_token_ids(TINY, tokenizer), torch.float32, 256)
    engine = VLLMEngine(tensor_parallel=tensor_parallel)
    prompts = Prompts(tokenizer)
    own = range(distributed.get_rank(), PROMPTS, distributed.get_world_size())
    asked = [prompts.student_ids(f"Compute {seed} + 3 + 7.") for seed in own]
    found: dict[str, object] = {"own": list(own)}
    engine.start(Policy(trained(1.0)), spec)
    for scale in (1.0, 1.05):
        policy = trained(scale)
        if distributed.is_initialized():
            mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
            for layer in policy.get_decoder().layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(policy, mesh=mesh)
        whole = engine_weights(trained(scale), torch.bfloat16)
        found[f"exact {scale}"] = all(
            name == own_name and torch.equal(tensor, own_tensor)
            for (name, tensor), (own_name, own_tensor) in zip(
                whole, engine_weights(policy, torch.bfloat16), strict=True
            )
        )
        engine.sync(engine_weights(policy, torch.float32))
        sent = dict(engine_weights(trained(scale), torch.float32))
        found[f"differing {scale}"] = engine.differing(engine_weights(policy, torch.float32))
        # the last element of each: another rank's, or where heads are shared everyone's
        named = {
            name: engine.differing((sent | {name: flipped(tensor)}).items())
            for name, tensor in sent.items()
        }
        found[f"named {scale}"] = [name for name in named if named[name] == [name]]
        found["all"] = list(sent)
        first_rank = distributed.get_rank() == 0
        gap = logprob_gap(
            engine,
            lambda p, r, scale=scale: naive_score(trained(scale), p, r),
            asked if first_rank else [],
            list(own) if first_rank else [],
            SAMPLING,
        )
        told: dict[int, Response] = {}
        responses = engine.sample(asked, list(own), SAMPLING, told.__setitem__)
        found[f"gap {scale}"] = gap.max
        found[f"ids {scale}"] = [response.ids.tolist() for response in responses]
        found[f"told {scale}"] = responses == [told[index] for index in range(len(asked))]
    engine.close()
    threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    found["cores"] = [len(os.sched_getaffinity(thread)) for thread in threads]
    # the process group outlives the engine
    found["total"] = int(distributed.all_reduce_sum(torch.tensor(1)))
    (folder / f"{distributed.get_rank()}.json").write_text(json.dumps(found))
    if distributed.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
