"""Stage 1: packed attention, the fused head and the optimiser against float64, in small loops."""

from collections.abc import Callable
from functools import partial

import torch
from gpu_stages.imports import relative
from gpu_stages.stage import GIB, Check
from torch import Tensor, nn
from transformers import AttentionInterface

from rlrt.functional.logprobs import token_logprobs
from rlrt.functional.packing import Packed, pack
from rlrt.model.packed_attention import NAME, Packing
from rlrt.training.optimization import Optimization

HEADS, KV_HEADS, WIDTH = 32, 8, 128  # of Qwen3-4B, as all sizes that follow
HIDDEN, VOCABULARY = 2560, 151_936
STEPS = 3
# Relative norms that rounding leaves: bfloat16 has 8 bits, and float32 sums many.
ROUNDED = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
LOGPROB = {torch.bfloat16: 1e-3, torch.float32: 1e-4}  # nats, the largest of all tokens


def run(check: Check) -> None:
    """In bfloat16 on a card, in float32 on the CPU."""
    dtype = torch.bfloat16 if check.card else torch.float32
    for part in (attention, head, optimizer):
        check.doing(part.__name__)
        part(check, dtype)


def attention(check: Check, dtype: torch.dtype) -> None:
    """Outputs and gradients of a pack with shared prompts, and of one without."""
    scale = 100 if check.card else 1
    lengths = [
        (7, 5),
        (7, 13),
        (7, 1),
        (3, 20),
    ]  # prompt and response; the first three share theirs
    prompts = [[length] * length * scale for length, _ in lengths]
    responses = [[0] * length * scale for _, length in lengths]
    for name, rows in (("shared", slice(None)), ("alone", slice(2, None))):
        packed = pack(prompts[rows], responses[rows]).to(check.device)
        draw = torch.Generator(check.device).manual_seed(0)
        parts = [
            torch.randn(1, heads, packed.tokens, WIDTH, generator=draw, device=check.device)
            for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)
        ]
        *states, slope = (part.to(dtype) for part in parts)
        found = with_gradients(partial(packed_attention, packed), states, slope.transpose(1, 2))
        wanted = with_gradients(
            partial(attention_by_loop, packed),
            [state.double() for state in states],
            slope.double().transpose(1, 2),
        )
        for what, *pair in zip(("output", "query", "key", "value"), found, wanted, strict=True):
            check.near(f"attention_{name}_{what}", relative(*pair), ROUNDED[dtype])
    told = max(v for k, v in check.content["figures"].items() if k.split("_")[-1] in OF_ATTENTION)
    check.tell(f"attention: relative error up to {told:.1e}")


OF_ATTENTION = ("output", "query", "key", "value")


def packed_attention(packed: Packed, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The project's attention by the name under which transformers finds it."""
    outputs, _ = AttentionInterface()[NAME](
        nn.Module(), query, key, value, None, packing=Packing(packed), scaling=WIDTH**-0.5
    )
    return outputs


def attention_by_loop(packed: Packed, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax of all scores, one sequence after the other."""
    key, value = (part.repeat_interleave(HEADS // KV_HEADS, dim=1) for part in (key, value))
    outputs = []
    for places in packed.sequence_U.split(list(packed.lengths)):
        scores = query[0, :, places] @ key[0, :, places].mT * WIDTH**-0.5
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        outputs.append(scores.masked_fill(later, -torch.inf).softmax(-1) @ value[0, :, places])
    return torch.cat(outputs, dim=1).transpose(0, 1)[packed.kept_L][None]


def head(check: Check, dtype: torch.dtype) -> None:
    """Log-probs, entropies and both gradients; logits spread as those of a trained policy."""
    tokens, hidden, vocabulary = (1024, HIDDEN, VOCABULARY) if check.card else (32, 64, 5000)
    draw = torch.Generator(check.device).manual_seed(0)
    states_NH = torch.randn(tokens, hidden, generator=draw, device=check.device).to(dtype)
    head_VH = torch.randn(vocabulary, hidden, generator=draw, device=check.device)
    head_VH = head_VH.mul_(4 / hidden**0.5).to(dtype)  # a standard deviation of 4
    ids_N = torch.randint(vocabulary, (tokens,), generator=draw, device=check.device)
    slope_N = torch.randn(tokens, generator=draw, device=check.device)

    def logprobs(states_NH: Tensor, head_VH: Tensor) -> Tensor:
        return token_logprobs(states_NH, head_VH, ids_N, 1.0)[0]

    def plainly(states_NH: Tensor, head_VH: Tensor) -> Tensor:
        return (states_NH @ head_VH.T).log_softmax(-1).gather(1, ids_N[:, None]).squeeze(1)

    found = with_gradients(logprobs, [states_NH, head_VH], slope_N)
    wanted = with_gradients(plainly, [states_NH.double(), head_VH.double()], slope_N.double())
    with torch.no_grad():
        entropy_N = token_logprobs(states_NH, head_VH, ids_N, 1.0)[1]
        plain_NV = (states_NH.double() @ head_VH.double().T).log_softmax(-1)
    furthest = float((found[0] - wanted[0]).abs().max())
    check.near("head_logprobs", furthest, LOGPROB[dtype])
    apart_N = entropy_N + (plain_NV.exp() * plain_NV).sum(-1)
    check.near("head_entropy", float(apart_N.abs().max()), LOGPROB[dtype])
    for what, *pair in zip(("states", "weight"), found[1:], wanted[1:], strict=True):
        check.near(f"head_gradient_{what}", relative(*pair), ROUNDED[dtype])
    check.tell(f"head at V {vocabulary:,}: log-probs within {furthest:.1e} nats")


def optimizer(check: Check, _: torch.dtype) -> None:
    """Weights after a few AdamW steps of the project's optimiser, beside PyTorch's in float64."""
    shape = (HIDDEN, 9728) if check.card else (64, 32)
    draw = torch.Generator(check.device).manual_seed(0)
    start = torch.randn(shape, generator=draw, device=check.device)
    gradients = [
        torch.randn(shape, generator=draw, device=check.device) * 10.0**-step
        for step in range(STEPS)
    ]
    settings = Optimization(learning_rate=1e-3, warmup_steps=0)
    ours = Weights(start)
    if check.card:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    stepped(settings.of(ours)["optimizer"], ours, gradients)
    if check.card:
        check.note(optimizer_peak_gib=(torch.cuda.max_memory_allocated() - held) / GIB)
    plain = Weights(start.double())
    rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    reference = torch.optim.AdamW(plain.parameters(), betas=settings.betas, **rates, foreach=False)
    stepped(reference, plain, [gradient.double() for gradient in gradients])
    moved, wanted = (one.weight.double() - start.double() for one in (ours, plain))
    check.near("optimizer_apart", relative(moved, wanted), 1e-3)  # of the way that the weights went
    check.tell(f"AdamW: {relative(moved, wanted):.1e} off its way")


class Weights(nn.Module):
    """One parameter."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.clone())


def stepped(adamw: torch.optim.Optimizer, weights: Weights, gradients: list[Tensor]) -> None:
    """Makes a step with each gradient."""
    for gradient in gradients:
        weights.weight.grad = gradient.clone()
        adamw.step()


def with_gradients(
    compute: Callable[..., Tensor], inputs: list[Tensor], slope: Tensor
) -> list[Tensor]:
    """What is computed, and the gradient of its product with ``slope`` for every input."""
    leaves = [part.detach().clone().requires_grad_() for part in inputs]
    output = compute(*leaves)
    gradients = torch.autograd.grad((output * slope).sum(), leaves)
    return [output.detach(), *gradients]
