"""The vLLM adapter: the one file that imports vllm. The engine lives in the trainer's process."""

import gc
import importlib.util
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from transformers import PretrainedConfig

from rlrt import distributed
from rlrt.batch import Ids, Response, as_array
from rlrt.engine.engine import EngineSpec, OnFinished, Sampling
from rlrt.engine.vllm_weights import differing
from rlrt.errors import RunStoppedError
from rlrt.model.policy import Policy
from rlrt.validation import validated

# What vLLM 0.20 to 0.32 and PyTorch say: the cache holds not even one sequence, or memory is full.
_CACHE_TOO_SMALL = re.compile(r"No available memory for the cache blocks|KV\s+cache is needed")
_MEMORY_FULL = re.compile(
    r"out of memory|can't allocate memory|Free memory on device|Available memory on node",
    re.IGNORECASE,
)


class EngineMemoryError(RunStoppedError):
    """The engine does not fit in the memory that it may take."""


@contextmanager
def within_memory(share: str, doing: str) -> Iterator[None]:
    """EngineMemoryError for whatever an engine raises where memory does not suffice.

    ``share``: the setting that says how much it takes; ``doing``: what it did, in the past tense.
    """
    try:
        yield
    except (RuntimeError, ValueError, MemoryError) as error:
        message = str(error).strip()
        if _CACHE_TOO_SMALL.search(message):
            cure = f"raise engine.{share} or lower training.max_response_tokens"
        elif isinstance(error, MemoryError) or _MEMORY_FULL.search(message):
            cure = f"lower engine.{share}, engine.max_sequences or training.max_response_tokens"
        else:
            raise
        why = re.split(r"(?<=\.)\s", message)[0] or type(error).__name__
        raise EngineMemoryError(
            f"the engine ran out of memory when it {doing}: {cure} ({' '.join(why.split())})"
        ) from error


T = TypeVar("T")


class EngineRanks:
    """The ``size`` neighboring ranks that share an engine, of which this one is ``place``.

    Made on all ranks at the same time; ``size`` divides their number. vLLM schedules on each of these
    ranks by itself, so all of them have to hand in the same requests in the same order.
    """

    def __init__(self, size: int) -> None:
        self.place = distributed.get_rank() % size
        self._size = size
        if size > 1:
            self._group, _ = dist.new_subgroups(size, backend="gloo")

    def all_gather_object(self, part: T) -> list[T]:
        """What each of them gave, in their order, on all of them; collective among them."""
        if self._size == 1:
            return [part]
        parts: list[T | None] = [None] * self._size
        dist.all_gather_object(parts, part, group=self._group)
        return parts  # type: ignore[return-value]


@contextmanager
def process_group_kept() -> Iterator[None]:
    """Keeps vLLM from ending the default process group, the trainer's, together with its engine."""
    destroy = dist.destroy_process_group

    def destroy_own(group: dist.ProcessGroup | None = None) -> None:
        if group is not None:
            destroy(group)

    dist.destroy_process_group = destroy_own
    try:
        yield
    finally:
        dist.destroy_process_group = destroy


def name_this_rank(device: torch.device) -> None:
    """Set what torchrun sets and vLLM reads; other launchers leave some of it out."""
    local = device.index if device.index is not None else distributed.get_rank()
    os.environ |= {
        "RANK": str(distributed.get_rank()),
        "WORLD_SIZE": str(distributed.get_world_size()),
    }
    os.environ.setdefault("LOCAL_RANK", str(local))
    # The process group stands already: nobody connects to these any more.
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")


PREFILL_TOKENS = 8192  # read at a time by the CPU build
GPU_SHARE = 0.4  # where neither a setting nor the run says more
GIB = 2**30


class VLLMEngine:
    """Colocated vLLM, CPU or GPU build, that gets its weights from the trainer and none from disk.

    ``max_sequences`` are decoded at a time; ``gpu_memory_utilization`` is the share of a GPU that
    weights and cache may take, null for what the spec says is left; ``cpu_cache_gib`` the cache of the
    CPU build, of each process. ``tensor_parallel``: so many neighboring ranks hold one engine
    together. ``attention_backend`` is one of vLLM's names, null for its own choice.
    """

    @validated("engine")
    def __init__(
        self,
        max_sequences: PositiveInt = 256,
        gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None,
        cpu_cache_gib: PositiveInt = 1,
        enforce_eager: bool = False,
        tensor_parallel: PositiveInt = 1,
        attention_backend: str | None = None,
        max_logprob_gap: Annotated[
            PositiveFloat | None, Field(description="it must be null or > 0")
        ] = None,
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "engine=vllm needs vLLM, which is not installed: run scripts/setup.sh without "
                "--no-vllm, or choose engine=hf"
            )
        machine_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        if cpu_cache_gib > machine_gib:
            raise ValueError(
                f"engine.cpu_cache_gib is {cpu_cache_gib}, this machine has {machine_gib:.1f} GiB of "
                "memory in all"
            )
        self.max_sequences = max_sequences
        self.gpu_memory_utilization = gpu_memory_utilization
        self.cpu_cache_gib = cpu_cache_gib
        self.enforce_eager = enforce_eager
        self.tensor_parallel = tensor_parallel
        self.attention_backend = attention_backend
        self.max_logprob_gap = max_logprob_gap
        self.asleep: list[str] = []  # which of "weights" and "kv_cache"
        self.decoding_threads: int | None = None  # null: the trainer's

    def require_ranks(self, count: int) -> None:
        if count % self.tensor_parallel:
            raise ValueError(
                f"engine.tensor_parallel is {self.tensor_parallel}, it must divide the number of "
                f"processes, {count}"
            )

    def require_shape(self, shape: PretrainedConfig) -> None:
        heads, keys, size = (
            shape.num_attention_heads,
            shape.num_key_value_heads,
            self.tensor_parallel,
        )
        if heads % size or (keys % size and size % keys):
            raise ValueError(
                f"engine.tensor_parallel is {size}, it must divide the model's {heads} attention heads, "
                f"and divide its {keys} key/value heads or be a multiple of them"
            )

    def start(self, policy: Policy, spec: EngineSpec) -> None:
        # before the import: the engine in this process, no usage reports, its own log kept short
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(self.cpu_cache_gib)
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        logging.getLogger("vllm").addHandler(logging.NullHandler())
        logging.getLogger("vllm").setLevel(logging.ERROR)
        from vllm import LLM

        self.on_gpu = policy.device.type == "cuda"
        self.share = "gpu_memory_utilization" if self.on_gpu else "cpu_cache_gib"
        self.stop_token_ids = list(spec.stop_token_ids)
        self.engine_ranks = EngineRanks(self.tensor_parallel)
        self.launched = distributed.is_initialized()  # the trainer's processes are the engine's
        if self.launched:
            name_this_rank(policy.device)
        with within_memory(self.share, "started"), _threads_kept(), _weights_kept():
            self.llm = LLM(spec.model_path, **self.arguments(spec))
            if self.on_gpu:
                self.decoding_threads = torch.get_num_threads()

    def arguments(self, spec: EngineSpec) -> dict[str, Any]:
        """What vLLM is built with."""
        on_cpu = {
            # The CPU build cannot take back the random number that a half-read prompt of a seeded
            # request draws ("CPU Generator does not use offset"): prompts are read whole.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(spec.max_model_tokens, PREFILL_TOKENS),
            # Whole blocks of a prompt are computed once for its group. The default of 128 tokens
            # shares nothing of a short prompt; 32 is the least that the kernels like.
            "block_size": 32,
        }
        share = self.gpu_memory_utilization or spec.gpu_memory_share or GPU_SHARE
        # Logits in float32, as the trainer's, though the weights are those of ``dtype``.
        float32_head = {} if spec.dtype == torch.float32 else {"head_dtype": "float32"}
        return {
            "runner": "generate",  # a config.json without "architectures" would get a model without a head
            "dtype": str(spec.dtype).removeprefix("torch."),
            "load_format": "dummy",
            # The head is sent by itself: the CPU build's products read a copy of it.
            "hf_overrides": {"tie_word_embeddings": False, **float32_head},
            "max_model_len": spec.max_model_tokens,
            "max_num_seqs": self.max_sequences,
            "gpu_memory_utilization": share,
            "enforce_eager": self.enforce_eager or not self.on_gpu,
            "enable_sleep_mode": self.on_gpu,
            "sleep_mode_offload_cudagraph": self.on_gpu,  # graphs leave the card as well
            "attention_backend": self.attention_backend,
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",  # after temperature; the default is before it
            "generation_config": "vllm",  # sampling comes from the caller alone
            "disable_log_stats": True,
            "distributed_executor_backend": "external_launcher" if self.launched else None,
            "tensor_parallel_size": self.tensor_parallel,
            **({} if self.on_gpu else on_cpu),
        }

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        rest = iter(weights)
        with within_memory(self.share, "took the weights"):
            self._wake("weights")
            self.llm.apply_model(lambda model: _load(model, rest))
            for _ in rest:  # gathering them is collective, whatever this engine left
                pass

    def differing(self, weights: Iterable[tuple[str, Tensor]]) -> list[str]:
        names: list[list[str]] = self.llm.apply_model(lambda model: differing(model, weights))
        return names[0]  # this process has one worker

    def _wake(self, part: str) -> None:
        if part in self.asleep:
            self.llm.wake_up(tags=[part])
            self.asleep.remove(part)

    def sample(
        self,
        prompts: Sequence[Ids],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished | None = None,
    ) -> list[Response]:
        by_rank = self.engine_ranks.all_gather_object([*zip(prompts, seeds, strict=True)])
        before = sum(len(requests) for requests in by_rank[: self.engine_ranks.place])
        own: dict[int, Response] = {}

        def finished(index: int, response: Response) -> None:
            if not 0 <= index - before < len(prompts):
                return
            own[index - before] = response
            if on_finished is not None:
                on_finished(index - before, response)

        with within_memory(self.share, "sampled"):
            self._wake("kv_cache")  # as late as that: casts of the weights have had its room
            self._generate([*chain.from_iterable(by_rank)], sampling, finished)
        return [own[index] for index in range(len(prompts))]

    def _generate(
        self,
        requests: Sequence[tuple[Ids, int]],
        sampling: Sampling,
        finished: OnFinished,
    ) -> None:
        """``LLM.generate`` of (prompt, seed), but for its handing out all responses at the end."""
        if not requests:
            return
        self.llm.reset_prefix_cache()  # cached keys and values may come from older weights
        engine, ids = self.llm.llm_engine, self._enqueue(requests, sampling)
        index_of = {_number(request_id): index for index, request_id in enumerate(ids)}
        try:
            with _threads(self.decoding_threads):
                while engine.has_unfinished_requests():
                    for output in self._step():
                        index = index_of[_number(output.request_id)]
                        finished(index, response_of(output.outputs[0]))
        finally:
            if engine.has_unfinished_requests():  # an exception or Ctrl-C on the way
                engine.abort_request(ids, internal=True)

    def _enqueue(self, requests: Sequence[tuple[Ids, int]], sampling: Sampling) -> list[str]:
        """The names that the engine gave the requests."""
        from vllm import SamplingParams, TokensPrompt

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
            for _, seed in requests
        ]
        prompts = [
            TokensPrompt(prompt_token_ids=as_array(prompt).tolist()) for prompt, _ in requests
        ]
        names: list[str] = self.llm.enqueue(prompts, parameters, use_tqdm=False)
        return names

    def _step(self) -> list[Any]:
        """One step of the engine: the requests that it finished."""
        # The sampler's few compiled functions would need a C++ compiler on the CPU, and seconds.
        with torch.compiler.set_stance("default" if self.on_gpu else "force_eager"):
            return [output for output in self.llm.llm_engine.step() if output.finished]

    def sleep(self) -> None:
        if self.on_gpu:  # the CPU build has nothing to give back
            self._wake("kv_cache")  # vLLM puts all to sleep, or nothing
            self.llm.sleep(level=2)
            self.asleep = ["weights", "kv_cache"]

    def close(self) -> None:
        with process_group_kept() if self.launched else nullcontext():
            self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()  # it refers to itself, and holds the cache until it is collected


@torch.no_grad()
def _load(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copy weights into the parameters of a vLLM model, where they are.

    ``reload_weights`` would build every layer anew, load that, and copy it back: for quantized weights,
    which nothing here has.
    """
    model.load_weights(weights)  # type: ignore[operator]
    for module in model.modules():
        if hasattr(module, "cpu_linear"):
            _pack(module)


def _pack(module: nn.Module) -> None:
    """Have the CPU build's products read a matrix as it is now; they read a packed copy."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    module.cpu_linear = None  # type: ignore[assignment]  # the older copy makes room for the new one
    dispatch_cpu_unquantized_gemm(module, remove_weight=False)


@contextmanager
def _weights_kept() -> Iterator[None]:
    """Keeps the matrices that the CPU build drops as soon as it has packed them: what is not there
    cannot be written to or compared. They take their memory twice, on the host.
    """
    from vllm.model_executor.layers import utils, vocab_parallel_embedding

    embedding = vocab_parallel_embedding.VocabParallelEmbedding
    pack = utils.dispatch_cpu_unquantized_gemm

    def pack_only(layer: nn.Module, remove_weight: bool) -> None:
        if type(layer) is not embedding:  # it is read by row, and the head is untied
            pack(layer, remove_weight=False)

    utils.dispatch_cpu_unquantized_gemm = pack_only
    try:
        yield
    finally:
        utils.dispatch_cpu_unquantized_gemm = pack


@contextmanager
def _threads_kept() -> Iterator[None]:
    """Gives PyTorch back the threads that vLLM takes away: they are the trainer's too.

    The GPU build leaves one; the CPU build as many as it has cores, and no way to set another number.
    """
    count, set_count = torch.get_num_threads(), torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = set_count
        if torch.get_num_threads() != count:
            torch.set_num_threads(count)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """PyTorch with as many threads as vLLM's GPU build has compiled for: with another number compiled
    functions are compiled anew, and threads that wait take the decoding loop's cycles.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count is not None:
            torch.set_num_threads(before)


def _number(request_id: str) -> int:
    """Requests are counted; the name that vLLM uses inside has a random end after a dash."""
    return int(request_id.partition("-")[0])


def response_of(output: Any) -> Response:
    """The finished output of a request, whose log-probs are flat."""
    ids, flat = np.array(output.token_ids, np.int32), output.logprobs
    starts = np.array(flat.start_indices, np.int64)
    sampled = np.array(flat.token_ids, np.int32)[starts]
    assert np.array_equal(sampled, ids), "the first log-prob of a position is the sampled token's"
    logprobs = np.array(flat.logprobs, np.float32)[starts]
    return Response(ids, logprobs, truncated=output.finish_reason == "length")
