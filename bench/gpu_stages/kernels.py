"""Stage 1: attention, the heads and the optimizer against float64, in small loops; layers' kernels."""

from collections.abc import Callable
from functools import partial

import torch
from gpu_stages.imports import relative
from gpu_stages.layers import layers
from gpu_stages.stage import GIB, Check
from torch import Tensor, nn
from transformers import AttentionInterface

from rlrt.loss.divergences import AlphaDivergence
from rlrt.model.fused_head import distilled_tokens, token_logprobs
from rlrt.model.packed_attention import NAME, Packing
from rlrt.model.packing import Packed, pack
from rlrt.training.optimization import Optimization

HEADS, KV_HEADS, WIDTH = 32, 8, 128  # of Qwen3-4B, as all sizes that follow
HIDDEN, VOCABULARY = 2560, 151_936
STEPS = 3
PARAMETERS = 8  # of the optimizer's; more than pass through the card at a time
# Relative norms that rounding leaves: bfloat16 has 8 bits, and float32 sums many.
ROUNDED = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
LOGPROB = {torch.bfloat16: 1e-3, torch.float32: 1e-4}  # nats, the largest of all tokens


def run(check: Check) -> None:
    """In bfloat16 on a card, in float32 on the CPU."""
    dtype = torch.bfloat16 if check.card else torch.float32
    for part in (attention, head, distillation, optimizer, layers):
        check.doing(part.__name__)
        part(check, dtype)


def attention(check: Check, dtype: torch.dtype) -> None:
    """Outputs and gradients of a pack with shared prompts, and of one without."""
    scale = 100 if check.card else 1
    # prompt and response; the first three share theirs
    lengths = [(7, 5), (7, 13), (7, 1), (3, 20)]
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
        actual = with_gradients(partial(packed_attention, packed), states, slope.transpose(1, 2))
        wanted = with_gradients(
            partial(attention_by_loop, packed),
            [state.double() for state in states],
            slope.double().transpose(1, 2),
        )
        for what, *pair in zip(("output", "query", "key", "value"), actual, wanted, strict=True):
            check.near(f"attention_{name}_{what}", relative(*pair), ROUNDED[dtype])
    note = max(v for k, v in check.content["figures"].items() if k.split("_")[-1] in OF_ATTENTION)
    check.tell(f"attention: relative error up to {note:.1e}")


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
    states_NH, head_VH, ids_N, slope_N = drawn(check, dtype, seed=0)

    def logprobs(states_NH: Tensor, head_VH: Tensor) -> Tensor:
        return token_logprobs(states_NH, head_VH, ids_N, 1.0)[0]

    def plainly(states_NH: Tensor, head_VH: Tensor) -> Tensor:
        return (states_NH @ head_VH.T).log_softmax(-1).gather(1, ids_N[:, None]).squeeze(1)

    actual = with_gradients(logprobs, [states_NH, head_VH], slope_N)
    wanted = with_gradients(plainly, [states_NH.double(), head_VH.double()], slope_N.double())
    with torch.no_grad():
        entropy_N = token_logprobs(states_NH, head_VH, ids_N, 1.0)[1]
        plain_NV = (states_NH.double() @ head_VH.double().T).log_softmax(-1)
    furthest = float((actual[0] - wanted[0]).abs().max())
    check.near("head_logprobs", furthest, LOGPROB[dtype])
    apart_N = entropy_N + (plain_NV.exp() * plain_NV).sum(-1)
    check.near("head_entropy", float(apart_N.abs().max()), LOGPROB[dtype])
    for what, *pair in zip(("states", "weight"), actual[1:], wanted[1:], strict=True):
        check.near(f"head_gradient_{what}", relative(*pair), ROUNDED[dtype])
    leaf_VH = head_VH.clone().requires_grad_()
    for _ in range(2):  # the second backward adds to a gradient that is there
        logprobs(states_NH, leaf_VH).backward(slope_N)
    check.near("head_gradient_added", relative(leaf_VH.grad, 2 * wanted[2]), ROUNDED[dtype])
    check.tell(f"head at V {len(head_VH):,}: log-probs within {furthest:.1e} nats")


def drawn(check: Check, dtype: torch.dtype, seed: int) -> tuple[Tensor, ...]:
    """Hidden states, a head whose logits have a standard deviation of 4, ids, and slopes."""
    tokens, hidden, vocabulary = (1024, HIDDEN, VOCABULARY) if check.card else (32, 64, 5000)
    draw = torch.Generator(check.device).manual_seed(seed)
    states_NH = torch.randn(tokens, hidden, generator=draw, device=check.device).to(dtype)
    head_VH = torch.randn(vocabulary, hidden, generator=draw, device=check.device)
    head_VH = head_VH.mul_(4 / hidden**0.5).to(dtype)
    ids_N = torch.randint(vocabulary, (tokens,), generator=draw, device=check.device)
    return states_NH, head_VH, ids_N, torch.randn(tokens, generator=draw, device=check.device)


def distillation(check: Check, dtype: torch.dtype) -> None:
    """KL(S‖T) over the vocabulary of another view of the same head, and both gradients."""
    states_NH, head_VH, ids_N, slope_N = drawn(check, dtype, seed=0)
    taught_NH = (states_NH + 0.3 * drawn(check, dtype, seed=1)[0]).detach()

    def divergence(states_NH: Tensor, head_VH: Tensor) -> Tensor:
        views = states_NH, head_VH, taught_NH, head_VH.detach()
        score = AlphaDivergence(1.0, None)
        return distilled_tokens(*views, ids_N, 1.0, score, logprobs=False)[0]

    def plainly(states_NH: Tensor, head_VH: Tensor) -> Tensor:
        student_NV = (states_NH @ head_VH.T).log_softmax(-1)
        teacher_NV = (taught_NH.double() @ head_VH.detach().T).log_softmax(-1)
        return (student_NV.exp() * (student_NV - teacher_NV)).sum(-1)

    actual = with_gradients(divergence, [states_NH, head_VH], slope_N)
    wanted = with_gradients(plainly, [states_NH.double(), head_VH.double()], slope_N.double())
    for what, *pair in zip(("value", "states", "weight"), actual, wanted, strict=True):
        check.near(f"distillation_{what}", relative(*pair), ROUNDED[dtype])


def optimizer(check: Check, _: torch.dtype) -> None:
    """AdamW's weights after a few steps, moments on the device and on the host: the same to the bit,
    and those of PyTorch's AdamW in float64; on a card also what each of them takes of it.
    """
    shape = (PARAMETERS, HIDDEN, 9728) if check.card else (PARAMETERS, 64, 32)
    draw = torch.Generator(check.device).manual_seed(0)
    start = torch.randn(shape, generator=draw, device=check.device)
    gradients = [
        torch.randn(shape, generator=draw, device=check.device) * 10.0**-step
        for step in range(STEPS)
    ]
    actual, peak_gib = {}, {}
    for moments in ("device", "host"):
        settings = Optimization(learning_rate=1e-3, warmup_steps=0, moments=moments)
        weights = Weights(start)
        adamw = settings.build(weights)["optimizer"]
        peak_gib[moments] = stepped(adamw, weights, gradients)
        actual[moments] = weights.all_weights()
        del adamw, weights
    check.expect(
        torch.equal(actual["device"], actual["host"]),
        "AdamW with its moments on the host makes other weights than with them on the device",
    )
    note = ""
    if check.card:
        check.note(optimizer_peak_gib=peak_gib)
        note = (
            f"; takes {peak_gib['device']:.2f} GiB, {peak_gib['host']:.2f} with moments on the host"
        )
        check.expect(
            peak_gib["host"] < peak_gib["device"] / 2,
            f"of {PARAMETERS} parameters moments on the host take {peak_gib['host']:.2f} GiB of the "
            f"card in a step, those on the device {peak_gib['device']:.2f}",
        )
    plain = Weights(start.double())
    rates = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    reference = torch.optim.AdamW(plain.parameters(), betas=settings.betas, **rates, foreach=False)
    stepped(reference, plain, [gradient.double() for gradient in gradients])
    moved, wanted = (one.double() - start.double() for one in (actual["host"], plain.all_weights()))
    check.near("optimizer_apart", relative(moved, wanted), 1e-3)  # of the way that the weights went
    check.tell(f"AdamW: {relative(moved, wanted):.1e} off its way{note}")


class Weights(nn.Module):
    """A parameter for every part of ``start``."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.parts = nn.ParameterList(nn.Parameter(part.clone()) for part in start)

    def all_weights(self) -> Tensor:
        return torch.stack([part.detach() for part in self.parts])


def stepped(adamw: torch.optim.Optimizer, weights: Weights, gradients: list[Tensor]) -> float:
    """Makes a step with each gradient; returns the GiB of a card that it took beside them, at most."""
    on_card = gradients[0].is_cuda
    if on_card:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    for gradient in gradients:
        for part, slope in zip(weights.parts, gradient, strict=True):
            part.grad = slope
        adamw.step()
    return (torch.cuda.max_memory_allocated() - held) / GIB if on_card else 0.0


def with_gradients(
    compute: Callable[..., Tensor], inputs: list[Tensor], slope: Tensor
) -> list[Tensor]:
    """What is computed, and the gradient of its product with ``slope`` for every input."""
    leaves = [part.detach().clone().requires_grad_() for part in inputs]
    output = compute(*leaves)
    gradients = torch.autograd.grad((output * slope).sum(), leaves)
    return [output.detach(), *gradients]
