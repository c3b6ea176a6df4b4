"""Both engines keep the same protocol; vLLM is the real one."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice

import numpy as np
import pytest
import torch
from tests.paths import TINY
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlrt.batch import Response
from rlrt.data.prompts import Prompts
from rlrt.engine.engine import Engine, EngineSpec, Sampling, engine_weights
from rlrt.engine.hf_engine import HFEngine
from rlrt.engine.probe import (
    Gap,
    StaleEngineError,
    logprob_gap,
    require_fresh,
    require_same_weights,
)
from rlrt.engine.vllm_engine import VLLMEngine
from rlrt.model.load import load_policy, load_tokenizer, stop_token_ids
from rlrt.model.policy import Policy, score_responses

SAMPLING = Sampling(max_response_tokens=40, temperature=0.9)


@pytest.fixture(scope="module")
def served() -> PreTrainedModel:
    """The policy that the engines of this module serve."""
    return load_policy(TINY, torch.float32)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("vllm", marks=pytest.mark.vllm),
        pytest.param("hf"),
    ],
)
def engine(request: pytest.FixtureRequest, served: PreTrainedModel) -> Iterator[Engine]:
    started: Engine = VLLMEngine() if request.param == "vllm" else HFEngine(batch_size=5)
    stops = stop_token_ids(TINY, load_tokenizer(TINY))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    started.start(Policy(served), EngineSpec(TINY, stops, torch.float32, 256))
    assert torch.get_num_threads() == threads + 1, "the engine took the trainer's threads"
    torch.set_num_threads(threads)
    assert torch.get_num_threads() == threads, "the number cannot be set any more"
    yield started
    started.close()


@pytest.fixture
def prompts(tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    questions = [f"Compute {a} + {b} + 7." for a, b in [(3, 4), (12, 5), (9, 9), (1, 2), (20, 13)]]
    return [Prompts(tokenizer).student_ids(question) for question in questions for _ in range(3)]


def sample(
    engine: Engine,
    served: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    sampling: Sampling = SAMPLING,
) -> list[Response]:
    engine.sync(engine_weights(served, torch.float32))
    return engine.sample(prompts, list(range(len(prompts))), sampling)


@pytest.mark.vllm
@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_decoding_has_its_own_threads(
    engine: VLLMEngine,
    served: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, where vLLM compiles for one; the trainer has its number back, also after an error."""
    threads = torch.get_num_threads()
    seen = []

    def finished(index: int, response: Response) -> None:
        seen.append(torch.get_num_threads())
        if len(seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "decoding_threads", threads + 1)
    engine.sync(engine_weights(served, torch.float32))
    with pytest.raises(KeyboardInterrupt):
        engine.sample(prompts, range(len(prompts)), SAMPLING, finished)
    assert seen == [threads + 1] * 2
    assert torch.get_num_threads() == threads


def gap(engine: Engine, policy: PreTrainedModel, prompts: list[tuple[int, ...]]) -> Gap:
    return logprob_gap(
        engine,
        lambda p, r: score_responses(Policy(policy), p, r, SAMPLING.temperature, 10**5)[0],
        prompts,
        list(range(len(prompts))),
        SAMPLING,
    )


def test_logprobs_are_the_trainers_at_the_sampling_temperature(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    engine.sync(engine_weights(served, torch.float32))
    assert gap(engine, served, prompts).max <= 1e-4


def test_new_weights_are_served_after_a_sync(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    engine.sync(engine_weights(served, torch.float32))
    before = {name: tensor.clone() for name, tensor in served.state_dict().items()}
    with torch.no_grad():
        for parameter in served.parameters():
            parameter.mul_(1.05)
    try:
        engine.sync(engine_weights(served, torch.float32))
        assert gap(engine, served, prompts).max <= 1e-4
    finally:
        served.load_state_dict(before)


@pytest.mark.vllm
@pytest.mark.parametrize("kept", ["all", "head"])
def test_a_stale_engine_is_caught(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]], kept: str
) -> None:
    """Neither an engine that missed the sync, nor one whose tied output head stayed behind."""
    if isinstance(engine, HFEngine):
        pytest.skip("it samples with the trainer's own tensors")
    engine.sync(engine_weights(served, torch.float32))
    trained = load_policy(TINY, torch.float32)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(
                2e-3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
    if kept == "head":
        weights = engine_weights(trained, torch.float32)
        engine.sync(islice(weights, len(list(trained.parameters()))))
    measured = gap(engine, trained, prompts)
    with pytest.raises(StaleEngineError, match="the engine computes something else"):
        require_fresh(measured, torch.float32, None, step=3)


def _flipped(tensor: Tensor) -> Tensor:
    """The lowest bit of the last element."""
    found = tensor.clone()
    found.view(torch.int32).flatten()[-1] ^= 1
    return found


def _swapped(tensor: Tensor, dim: int) -> Tensor:
    order = torch.arange(tensor.shape[dim])
    order[[0, 1]] = order[[1, 0]]
    return tensor.index_select(dim, order)


def _other_zero(tensor: Tensor) -> Tensor:
    found = tensor.clone()
    found.flatten()[0] = -0.0 if found.flatten()[0].signbit() == 0 else 0.0
    return found


@pytest.mark.parametrize("kind", ["flipped", "rows", "columns", "zero"])
def test_a_single_difference_is_named_whatever_tensor_it_is_in(
    engine: Engine, served: PreTrainedModel, kind: str
) -> None:
    """Those that the engine concatenates, divides, pads, unties or packs included."""
    change: dict[str, Callable[[Tensor], Tensor]] = {
        "flipped": _flipped,
        "rows": lambda tensor: _swapped(tensor, 0),
        "columns": lambda tensor: _swapped(tensor, 1),
        "zero": _other_zero,
    }
    sent = dict(engine_weights(served, torch.float32))
    engine.sync(sent.items())
    assert require_same_weights(engine, sent.items(), 0) == len(sent) == 47
    for name, tensor in sent.items():
        if kind == "columns" and tensor.dim() == 1:
            continue
        other = sent | {name: change[kind](tensor)}
        if torch.equal(other[name].view(torch.int32), tensor.view(torch.int32)):
            continue  # norms whose elements are all the same
        assert engine.differing(other.items()) == [name]


def test_swapped_keys_and_values_and_layers_are_named(
    engine: Engine, served: PreTrainedModel
) -> None:
    sent = dict(engine_weights(served, torch.float32))
    engine.sync(sent.items())
    layers = "model.layers.0", "model.layers.1"
    for first, second in [
        *(
            (f"{layer}.self_attn.k_proj.weight", f"{layer}.self_attn.v_proj.weight")
            for layer in layers
        ),
        *((f"{layer}.mlp.gate_proj.weight", f"{layer}.mlp.up_proj.weight") for layer in layers),
        tuple(f"{layer}.self_attn.o_proj.weight" for layer in layers),
        tuple(f"{layer}.input_layernorm.weight" for layer in layers),
    ]:
        other = sent | {first: sent[second], second: sent[first]}
        assert engine.differing(other.items()) == [first, second]
    left_out = {name: sent[name] for name in sent if name != "model.layers.1.mlp.up_proj.weight"}
    assert engine.differing(left_out.items()) == ["model.layers.1.mlp.up_proj.weight"]


@pytest.mark.vllm
@pytest.mark.parametrize("how", ["not sent", "sent wrong", "not packed"])
def test_a_sync_that_goes_wrong_in_one_tensor_is_stopped(
    engine: Engine, served: PreTrainedModel, how: str
) -> None:
    if not isinstance(engine, VLLMEngine):
        pytest.skip("nothing is sent to the trainer's own tensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    sent = dict(engine_weights(served, torch.float32))
    engine.sync(sent.items())
    after = {key: tensor + 1e-3 for key, tensor in sent.items()}
    if how == "not sent":
        engine.sync((key, tensor) for key, tensor in after.items() if key != name)
    elif how == "sent wrong":
        engine.sync((after | {name: _flipped(after[name])}).items())
    else:
        engine.llm.apply_model(lambda model: model.load_weights(after.items()))
        name = r"model.layers.0.self_attn.qkv_proj.weight \(packed\), .* and 14 more"
    told = rf"weight sync of step 7 .* of 47 tensors differ \({name}\)"
    with pytest.raises(StaleEngineError, match=told):
        require_same_weights(engine, after.items(), 7)


@pytest.mark.parametrize(
    ("gap", "dtype", "max_gap", "fresh"),
    [
        (Gap(9e-5, 1e-5), torch.float32, None, True),
        (Gap(2e-4, 1e-5), torch.float32, None, False),
        (Gap(2e-4, 1e-5), torch.float32, 1e-3, True),
        (Gap(4.0, 0.064), torch.bfloat16, None, True),  # of a pair that is right
        (Gap(0.9, 0.3), torch.bfloat16, None, False),
        (Gap(0.9, 0.02), torch.bfloat16, 0.5, False),
        (Gap(float("nan"), float("nan")), torch.float32, None, False),
    ],
)
def test_the_limits_of_each_dtype(
    gap: Gap, dtype: torch.dtype, max_gap: float | None, fresh: bool
) -> None:
    with nullcontext() if fresh else pytest.raises(StaleEngineError):
        require_fresh(gap, dtype, max_gap, step=0)


def test_generation_settings_of_the_model_do_not_bend_the_samples(
    served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    engine = HFEngine()
    engine.start(Policy(served), EngineSpec(TINY, (2,), torch.float32, 256))
    own = served.generation_config
    served.generation_config = GenerationConfig(repetition_penalty=1.5, min_new_tokens=30)
    try:
        assert gap(engine, served, prompts).max <= 1e-4
        assert served.generation_config.repetition_penalty == 1.5
    finally:
        served.generation_config = own


def ids_of(response: Response) -> tuple[int, ...]:
    return tuple(response.ids.tolist())


def test_a_response_depends_on_its_own_seed_and_prompt_alone(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    first = sample(engine, served, prompts)
    assert first == sample(engine, served, prompts)
    groups = [{ids_of(response) for response in first[i : i + 3]} for i in range(0, len(first), 3)]
    assert max(len(group) for group in groups) > 1, "seeds make no difference"
    backwards = engine.sample(prompts[::-1], list(range(len(prompts)))[::-1], SAMPLING)
    assert [*map(ids_of, backwards[::-1])] == [*map(ids_of, first)]


def test_each_response_is_told_once_as_it_is_returned(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    engine.sync(engine_weights(served, torch.float32))
    told: list[tuple[int, Response]] = []
    seeds = list(range(len(prompts)))
    found = engine.sample(prompts, seeds, SAMPLING, lambda *finished: told.append(finished))
    assert sorted(index for index, _ in told) == seeds
    assert all(response is found[index] for index, response in told)


def test_no_prompts_have_no_responses(engine: Engine, served: PreTrainedModel) -> None:
    engine.sync(engine_weights(served, torch.float32))
    assert engine.sample([], [], SAMPLING, lambda *finished: pytest.fail("told of nothing")) == []


@pytest.mark.vllm
def test_responses_are_told_while_others_are_sampled_and_are_those_of_generate(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    """To the bit what ``LLM.generate`` gives, which hands all out at the end."""
    if not isinstance(engine, VLLMEngine):
        pytest.skip("about vLLM")
    from vllm import SamplingParams, TokensPrompt

    engine.sync(engine_weights(served, torch.float32))
    unfinished: list[int] = []
    found = engine.sample(
        prompts,
        list(range(len(prompts))),
        SAMPLING,
        lambda *_: unfinished.append(engine.llm.llm_engine.get_num_unfinished_requests()),
    )
    assert unfinished[0] > 0
    with torch.compiler.set_stance("force_eager"):
        outputs = engine.llm.generate(
            [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts],
            [
                SamplingParams(
                    max_tokens=SAMPLING.max_response_tokens,
                    temperature=SAMPLING.temperature,
                    seed=seed,
                    logprobs=0,
                    stop_token_ids=engine.stop_token_ids,
                )
                for seed in range(len(prompts))
            ],
            use_tqdm=False,
        )
    for response, output in zip(found, outputs, strict=True):
        assert ids_of(response) == tuple(output.outputs[0].token_ids)
        told = output.outputs[0].logprobs
        expected = [at_t[token].logprob for token, at_t in zip(response.ids, told, strict=True)]
        assert np.array_equal(response.engine_logprobs, np.array(expected, np.float32))


@pytest.mark.vllm
def test_a_groups_prompt_is_computed_once(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    """All whole blocks of it; and the samples are those of an engine that computes every prompt."""
    if not isinstance(engine, VLLMEngine):
        pytest.skip("about vLLM")
    from vllm import SamplingParams, TokensPrompt

    group = [prompts[0]] * 3
    assert 32 < len(prompts[0]) < 64
    found = sample(engine, served, group)
    engine.llm.reset_prefix_cache()
    with torch.compiler.set_stance("force_eager"):
        outputs = engine.llm.generate(
            [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in group],
            SamplingParams(max_tokens=1),
            use_tqdm=False,
        )
    assert [output.num_cached_tokens for output in outputs] == [0, 32, 32]
    for seed in range(3):  # a call of its own forgets what earlier ones computed
        assert engine.sample([prompts[0]], [seed], SAMPLING) == [found[seed]]


def test_an_engine_goes_on_after_it_was_interrupted(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    whole = sample(engine, served, prompts)

    def interrupt(index: int, response: Response) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.sample(prompts, list(range(len(prompts))), SAMPLING, interrupt)
    assert engine.sample(prompts[:3], [0, 1, 2], SAMPLING) == sample(engine, served, prompts[:3])
    assert sample(engine, served, prompts) == whole


def test_responses_end_with_the_stop_token_or_are_truncated(
    engine: Engine,
    served: PreTrainedModel,
    prompts: list[tuple[int, ...]],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    whole = sample(engine, served, prompts, Sampling(60))
    short = sample(engine, served, prompts, Sampling(5))
    assert {response.truncated for response in whole} == {False}
    for response in whole:
        assert response.ids[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in response.ids[:-1]
    for response, cut in zip(whole, short, strict=True):
        assert cut.truncated
        assert ids_of(cut) == ids_of(response)[:5]


def test_greedy_sampling_needs_no_seed(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    engine.sync(engine_weights(served, torch.float32))
    greedy = Sampling(40, temperature=0.0)
    first = engine.sample(prompts, [1] * len(prompts), greedy)
    second = engine.sample(prompts, [2] * len(prompts), greedy)
    assert [*map(ids_of, first)] == [*map(ids_of, second)]
    assert ids_of(first[0]) == ids_of(first[1])


def test_top_p_draws_from_the_nucleus_alone(
    engine: Engine, served: PreTrainedModel, prompts: list[tuple[int, ...]]
) -> None:
    narrow = sample(engine, served, prompts, Sampling(40, temperature=1.0, top_p=1e-6))
    greedy = engine.sample(prompts, [0] * len(prompts), Sampling(40, temperature=0.0))
    assert [*map(ids_of, narrow)] == [*map(ids_of, greedy)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_response_tokens": 0}, "max_response_tokens is 0"),
        ({"max_response_tokens": 5, "temperature": -1.0}, "temperature is -1.0"),
        ({"max_response_tokens": 5, "top_p": 0.0}, "top_p is 0.0"),
    ],
)
def test_sampling_out_of_range_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "setting", "share", "expected"),
    [
        (torch.bfloat16, None, None, 0.4),
        (torch.bfloat16, None, 0.55, 0.55),
        (torch.bfloat16, 0.3, 0.55, 0.3),
        (torch.float32, None, None, 0.4),
    ],
)
def test_what_an_engine_on_a_card_is_built_with(
    dtype: torch.dtype, setting: float | None, share: float | None, expected: float
) -> None:
    """Logits in float32; the setting before what the run leaves; graphs that sleep too."""
    engine = VLLMEngine(gpu_memory_utilization=setting, attention_backend="TRITON_ATTN")
    engine.on_gpu, engine.launched = True, False
    built = engine.arguments(EngineSpec(TINY, (2,), dtype, 64, share))
    assert built["gpu_memory_utilization"] == expected
    assert built["attention_backend"] == "TRITON_ATTN"
    assert built["enable_sleep_mode"]
    assert built["sleep_mode_offload_cudagraph"]
    head = None if dtype == torch.float32 else "float32"
    assert built["hf_overrides"].get("head_dtype") == head
