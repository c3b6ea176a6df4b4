"""The vLLM adapter: the one file that imports vllm. The engine lives in the trainer's process."""

import gc
import importlib.util
import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlrt.batch import Response
from rlrt.engine.engine import EngineSpec, Sampling

PREFILL_TOKENS = 8192  # read at a time by the CPU build


class VLLMEngine:
    """Colocated vLLM, CPU or GPU build, that gets its weights from the trainer and none from disk.

    ``max_sequences`` are decoded at a time; ``gpu_memory_utilization`` is the share of a GPU that
    weights and cache may take; ``cpu_cache_gib`` the cache of the CPU build.
    """

    def __init__(
        self,
        max_sequences: int = 256,
        gpu_memory_utilization: float = 0.4,
        cpu_cache_gib: int = 1,
        enforce_eager: bool = False,
        max_logprob_gap: float | None = None,
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "engine=vllm needs vLLM, which is not installed: run scripts/setup.sh without "
                "--no-vllm, or choose engine=hf"
            )
        if max_sequences < 1:
            raise ValueError(f"engine.max_sequences is {max_sequences}, it must be at least 1")
        if not 0 < gpu_memory_utilization <= 1:
            raise ValueError(
                f"engine.gpu_memory_utilization is {gpu_memory_utilization}, it must lie in (0, 1]"
            )
        if cpu_cache_gib < 1:
            raise ValueError(f"engine.cpu_cache_gib is {cpu_cache_gib}, it must be at least 1")
        self.max_sequences = max_sequences
        self.gpu_memory_utilization = gpu_memory_utilization
        self.cpu_cache_gib = cpu_cache_gib
        self.enforce_eager = enforce_eager
        if max_logprob_gap is not None and max_logprob_gap <= 0:
            raise ValueError(f"engine.max_logprob_gap is {max_logprob_gap}, it must be null or > 0")
        self.max_logprob_gap = max_logprob_gap
        self.asleep = False

    def start(self, policy: PreTrainedModel, spec: EngineSpec) -> None:
        # before the import: the engine in this process, no usage reports, its own log kept short
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(self.cpu_cache_gib)
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        logging.getLogger("vllm").addHandler(logging.NullHandler())
        logging.getLogger("vllm").setLevel(logging.ERROR)
        from vllm import LLM

        self.on_gpu = policy.device.type == "cuda"
        self.stop_token_ids = list(spec.stop_token_ids)
        self.llm = LLM(
            spec.model_path,
            dtype=str(spec.dtype).removeprefix("torch."),
            load_format="dummy",
            # The CPU build keeps a stale output head when tied embeddings are reloaded: untie them
            # in the engine and send lm_head.weight by itself.
            hf_overrides={"tie_word_embeddings": False},
            max_model_len=spec.max_model_tokens,
            max_num_seqs=self.max_sequences,
            gpu_memory_utilization=self.gpu_memory_utilization,
            enforce_eager=self.enforce_eager or not self.on_gpu,
            enable_sleep_mode=self.on_gpu,
            logprobs_mode="processed_logprobs",  # after temperature; the default is before it
            generation_config="vllm",  # sampling comes from the caller alone
            disable_log_stats=True,
            # The CPU build cannot take back the random number that a half-read prompt of a seeded
            # request draws ("CPU Generator does not use offset"): prompts are read whole there.
            enable_chunked_prefill=self.on_gpu,
            max_num_batched_tokens=None
            if self.on_gpu
            else max(spec.max_model_tokens, PREFILL_TOKENS),
        )

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if self.asleep:
            self.llm.wake_up(tags=["weights"])
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        if self.asleep:
            self.llm.wake_up(tags=["kv_cache"])
        self.asleep = False

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Response]:
        from vllm import SamplingParams, TokensPrompt

        self.llm.reset_prefix_cache()  # cached keys and values may come from older weights
        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        parameters = [
            SamplingParams(
                max_tokens=sampling.max_response_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed,
                logprobs=0,
                flat_logprobs=True,  # lists of numbers, not an object per token
                stop_token_ids=self.stop_token_ids,
                detokenize=False,
            )
            for seed in seeds
        ]
        # The sampler's few compiled functions would need a C++ compiler on the CPU, and seconds.
        with torch.compiler.set_stance("default" if self.on_gpu else "force_eager"):
            outputs = self.llm.generate(requests, parameters, use_tqdm=False)
        return [_response(output.outputs[0]) for output in outputs]

    def sleep(self) -> None:
        if self.on_gpu:  # the CPU build has nothing to give back
            self.llm.sleep(level=2)
            self.asleep = True

    def close(self) -> None:
        del self.llm
        gc.collect()  # it refers to itself, and holds the cache until it is collected


def _response(output: Any) -> Response:
    ids, flat = tuple(output.token_ids), output.logprobs
    sampled = [flat.token_ids[start] for start in flat.start_indices]
    assert tuple(sampled) == ids, "the first log-prob of a position is the sampled token's"
    logprobs = tuple(flat.logprobs[start] for start in flat.start_indices)
    return Response(ids, logprobs, truncated=output.finish_reason == "length")
