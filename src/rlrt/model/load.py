"""Loading a policy and its tokenizer, and the kernels that it computes with."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import snapshot_download
from torch.nn.attention import activate_flash_attention_impl
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlrt.hub import find_commit
from rlrt.model.packed_attention import use_packed_attention

PATTERNS = ("*.json", "*.jinja", "*.txt", "*.model")  # of a hub repository, weights apart
WEIGHTS = "*.safetensors"
SHAPE = (  # of a decoder whose work and memory can be counted
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "max_position_embeddings"),
)
FAMILIES = "llama, qwen2, qwen3, gemma, phi3, olmo2, granite"


def policy_folder(
    path: str, weights: bool = True, setting: str = "model.path", revision: str | None = None
) -> str:
    """The folder of a policy: ``path``, the value of ``setting``, or the local copy of a hub repository.

    A hub repository is brought up to date where the hub can be reached, and taken from the local
    cache where not: its main branch, or ``revision``, a branch, tag or commit; what is cached of a
    commit is not asked for again. ValueError where there is none, or where ``weights`` are asked for
    and it holds none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        patterns = [*PATTERNS, WEIGHTS] if weights else list(PATTERNS)
        commit = find_commit(
            path, "model", revision, f"{setting.rpartition('.')[0] or setting}.revision"
        )
        try:
            folder = Path(snapshot_download(path, revision=commit, allow_patterns=patterns))
        except Exception as error:  # of the network, whichever client the hub's library uses
            raise ValueError(
                f"{setting} is {path}: neither a model folder, nor in the local Hugging Face cache, "
                f"nor to be fetched from the hub ({type(error).__name__})"
            ) from error
    for pattern in ["config.json", WEIGHTS] if weights else ["config.json"]:
        if not any(folder.glob(pattern)):
            raise ValueError(f"{setting} is {path}: it holds no {pattern}")
    return str(folder)


def load_config(folder: str, setting: str = "model.path") -> PretrainedConfig:
    """The model's configuration; ValueError with one sentence where it does not load."""
    with _border(folder, "its config.json does not load", setting):
        config = AutoConfig.from_pretrained(folder)
    lacking = [name for name in SHAPE if not isinstance(getattr(config, name, None), int)]
    if lacking:
        raise ValueError(
            f"{setting} is {folder}: models of the family {config.model_type} are not supported (no "
            f"{', '.join(lacking)} in its config.json); supported are decoders such as {FAMILIES}"
        )
    return config


def parameter_count(config: PretrainedConfig) -> int:
    """Parameters of a policy of this shape, tied ones once; nothing is allocated."""
    with torch.device("meta"):
        policy = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in policy.parameters())


def load_tokenizer(folder: str, setting: str = "model.path") -> PreTrainedTokenizerBase:
    """The tokenizer beside the model; ValueError where there is none."""
    with _border(folder, "it holds no tokenizer that loads", setting):
        return AutoTokenizer.from_pretrained(folder)


def load_policy(
    folder: str,
    dtype: torch.dtype,
    random_init_seed: int | None = None,
    setting: str = "model.path",
) -> PreTrainedModel:
    """The policy in ``dtype`` on the CPU, every parameter trainable.

    With ``random_init_seed`` only the configuration is read and weights are drawn from that seed.
    ValueError where weights are damaged or missing: transformers would draw those at random.
    """
    if random_init_seed is not None:
        config = load_config(folder)
        with torch.random.fork_rng(devices=[]), _border(folder, "its config.json fits no policy"):
            torch.manual_seed(random_init_seed)
            return _prepared(AutoModelForCausalLM.from_config(config, dtype=dtype))
    with _border(folder, "its weights do not load", setting):
        policy, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, output_loading_info=True
        )
    if lacking := sorted(report["missing_keys"]):
        raise ValueError(
            f"{setting} is {folder}: its weights lack {len(lacking)} tensors, such as {lacking[0]}"
        )
    return _prepared(policy)


def hollow_policy(folder: str, setting: str = "model.path") -> PreTrainedModel:
    """The policy's shape in float32 on the meta device, tied where it is tied, without any values."""
    config = load_config(folder, setting)
    with torch.device("meta"), _border(folder, "its config.json fits no policy", setting):
        return _prepared(AutoModelForCausalLM.from_config(config, dtype=torch.float32))


def _prepared(policy: PreTrainedModel) -> PreTrainedModel:
    use_packed_attention(policy)
    return policy.train()


@contextmanager
def _border(folder: str, complaint: str, setting: str = "model.path") -> Iterator[None]:
    """ValueError for whatever transformers and its Rust libraries raise over a damaged file."""
    try:
        yield
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{setting} is {folder}: {complaint} ({why})") from error


def stop_token_ids(folder: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids that end a response: the tokenizer's end-of-text and those of the model's own settings.

    ValueError where neither names one.
    """
    stops = {tokenizer.eos_token_id}
    try:
        configured = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:  # the folder has no generation_config.json
        configured = None
    stops |= set(configured) if isinstance(configured, list) else {configured}
    stop_ids = tuple(sorted(stop for stop in stops if stop is not None))
    if not stop_ids:
        raise ValueError(f"model.path is {folder}: nothing there names an end-of-text token")
    return stop_ids


Kernels = Literal["auto", "liger", "torch"]
Attention = Literal["auto", "fa4", "torch"]
LIGER_MODEL = "qwen3"  # whose layers are known to be replaced one for one
FA4_CARDS = (9, 10)  # compute capability: Hopper, Blackwell


def chosen_kernels(setting: str, model_type: str, device: str) -> str:
    """``liger`` or ``torch`` for ``model.kernels``; auto is liger wherever it runs.

    ValueError for liger where it is not installed, on another device than CUDA, or for another model.
    """
    lacking = [
        *(["a GPU"] if device != "cuda" else []),
        *(["liger-kernel, which is not installed"] if find_spec("liger_kernel") is None else []),
        *([f"a model of type {LIGER_MODEL}"] if model_type != LIGER_MODEL else []),
    ]
    return _chosen("kernels", setting, "liger", lacking)


def chosen_attention(setting: str, device: str) -> str:
    """``fa4`` or ``torch`` for ``model.attention``; auto is FlashAttention-4 wherever it runs.

    ValueError for fa4 where flash-attn-4 is not installed or the card is none that it is made for.
    """
    card = device == "cuda" and torch.cuda.get_device_capability()[0] in FA4_CARDS
    installed = find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None
    lacking = [
        *(["a GPU of compute capability 9.0 or 10.0"] if not card else []),
        *(["flash-attn-4, which is not installed"] if not installed else []),
    ]
    return _chosen("attention", setting, "fa4", lacking)


def _chosen(name: str, setting: str, faster: str, lacking: list[str]) -> str:
    if setting == faster and lacking:
        raise ValueError(
            f"model.{name} is {faster}, which needs {' and '.join(lacking)}: choose auto or torch"
        )
    return "torch" if setting == "torch" or lacking else faster


def use_kernels(policy: PreTrainedModel, kernels: str, attention: str) -> None:
    """Have ``policy`` compute with the chosen kernels; attention is switched for the whole process."""
    if kernels == "liger":
        from liger_kernel.transformers import apply_liger_kernel_to_qwen3

        # the head stays this project's own, which never holds whole rows of logits
        apply_liger_kernel_to_qwen3(fused_linear_cross_entropy=False, model=policy)
    if attention == "fa4":
        activate_flash_attention_impl("FA4")
