"""A language model that reads packs, and the scores of responses given a prompt, in either view.

Work is done in passes, packs of at most ``token_budget`` tokens. With a sharded policy a pass is
collective, so all ranks make the same number of them; a rank that has none left makes an empty one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from rlrt import distributed
from rlrt.batch import Ids
from rlrt.loss.divergences import Divergence, kl
from rlrt.model.fused_head import Read, distilled_tokens, over_vocabulary, token_logprobs
from rlrt.model.packed_attention import decoder_hidden
from rlrt.model.packing import Packed, joined, pack, split_packs


@dataclass(frozen=True)
class OtherView:
    """What a forward of one view needs of another one, to compare their distributions.

    The other one may be another model, of any width G, with the same vocabulary. ``head_VG`` None: it
    is the same model. Without ``divergence`` nothing but what ``read`` gives is computed.
    """

    hidden_mG: Tensor  # of the compared tokens
    head_VG: Tensor | None
    at_N: Tensor | None = None  # bool, the compared ones of the pack's response tokens; None: all
    divergence: Divergence | None = None  # with gradient to this view
    read: Read | None = None  # without any gradient; as in ``over_vocabulary``


class TokenValues(NamedTuple):
    """What a forward gives for response tokens, row by row; None for what was not asked for.

    A named tuple, since FSDP2 finds the tensors of a module's output in tuples and not in dataclasses.
    """

    anchor: Tensor  # 0; added to a loss it makes the backward pass every layer on every rank
    hidden_NH: Tensor | None = None
    logprobs_n: Tensor | None = None
    entropy_n: Tensor | None = None  # no gradient
    divergence_m: Tensor | None = None  # of the tokens that are compared
    compared_logprobs_m: Tensor | None = None  # of the same tokens, no gradient
    read: dict[str, Tensor] | None = None  # likewise


class Policy(nn.Module):
    """A causal language model as a reader of packs: ``forward`` gives values of response tokens.

    It holds the model's own modules under their own names, so that both have one state dict.
    ``causal_lm`` is the model as transformers has it. Sharded, ``forward`` and ``generate`` gather what
    they need, and nothing else may call the layers.
    """

    def __init__(self, causal_lm: PreTrainedModel) -> None:
        super().__init__()
        for name, module in causal_lm.named_children():
            self.add_module(name, module)
        self._causal_lm = (causal_lm,)  # in a tuple it is no module of this one
        self.training = causal_lm.training
        # of the layers while they compute; ``shard`` may lower it
        self.compute_dtype = causal_lm.dtype
        # some families divide their logits by a constant (Granite): a temperature of their own
        self.logits_divisor = float(getattr(causal_lm.config, "logits_scaling", None) or 1)

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The model as transformers has it; it shares every tensor."""
        return self._causal_lm[0]

    @property
    def config(self) -> PretrainedConfig:
        return self.causal_lm.config

    @property
    def device(self) -> torch.device:
        return self.causal_lm.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters as they are kept; sharded ones may be gathered in another."""
        return self.causal_lm.dtype

    def get_output_embeddings(self) -> Any:
        """The output head, a layer whose ``weight`` is ``[V, H]``."""
        return self.causal_lm.get_output_embeddings()

    def generate(self, *args: Any, **settings: Any) -> Any:
        """As transformers' ``generate``."""
        return self.causal_lm.generate(*args, **settings)

    def forward(
        self,
        packed: Packed | None,
        ids_N: Tensor | None = None,
        temperature: float = 1.0,
        at_N: Tensor | None = None,
        entropy: bool = True,
        other: OtherView | None = None,
        keep_hidden: bool = False,
    ) -> TokenValues:
        """Values of a pack's response tokens ``ids_N``, with gradient; of their hidden states alone
        where there are no ids. Without a pack a single token passes the layers and is not read.

        Log-probs, and entropies where they are asked for, are those of the tokens ``at_N`` (bool; None:
        all); ``other`` says at which tokens the two views are compared. Both at ``temperature`` > 0.
        """
        temperature = temperature * self.logits_divisor
        hidden_NH = self._response_hidden(packed)
        anchor = hidden_NH[:0].sum()
        if ids_N is None:
            return TokenValues(anchor, hidden_NH)
        head_VH, ids_N = self.get_output_embeddings().weight, ids_N.to(hidden_NH.device)
        logprobs_n = entropy_n = divergence_m = compared_m = read = None
        if at_N is None:
            logprobs_n, entropy_n = token_logprobs(hidden_NH, head_VH, ids_N, temperature, entropy)
        elif at_N.any():
            chosen = hidden_NH[at_N], head_VH, ids_N[at_N]
            logprobs_n, entropy_n = token_logprobs(*chosen, temperature, entropy)
        if other is not None:
            states_mH, ids_m = hidden_NH, ids_N
            if other.at_N is not None:
                states_mH, ids_m = hidden_NH[other.at_N], ids_N[other.at_N]
            other_head_VG = head_VH.detach() if other.head_VG is None else other.head_VG
            first, second = (states_mH, head_VH), (other.hidden_mG, other_head_VG)
            if other.read is not None:
                read = over_vocabulary(first, second, ids_m, temperature, other.read)
            if other.divergence is not None:
                divergence_m, compared_m = distilled_tokens(
                    *first, *second, ids_m, temperature, other.divergence
                )
        if logprobs_n is None and divergence_m is None:
            # FSDP2 reduces only what has a gradient, and an untied head would have none on this rank
            anchor = anchor + head_VH[:0].sum()
        hidden = hidden_NH if keep_hidden else None
        return TokenValues(anchor, hidden, logprobs_n, entropy_n, divergence_m, compared_m, read)

    def _response_hidden(self, packed: Packed | None) -> Tensor:
        """Last hidden states ``[N, H]`` that predict all response tokens, row by row."""
        if packed is None:
            return decoder_hidden(self.causal_lm, pack([(0,)], [()]))[:0]
        hidden_LH = decoder_hidden(self.causal_lm, packed)
        # a shared prompt predicts several first tokens; plain indexing would add their gradients in
        # any order
        return hidden_LH.index_select(0, packed.predicting_N.to(hidden_LH.device))

    def gathered_head(self) -> Tensor:
        """The output head ``[V, H]``, all of it, without gradient, in the dtype of ``forward``; collective.

        For a forward of another model, which cannot gather this one's.
        """
        weight: Tensor = self.get_output_embeddings().weight.detach()
        return distributed.full_tensor(weight.to(self.compute_dtype))  # cast before it travels


def packed_rows(
    prompts: Sequence[Ids],
    responses: Sequence[Ids],
    rows: Sequence[int],
) -> Packed | None:
    """The pack of these rows; None without rows. The ids are read as they are, never tokenized again."""
    if not rows:
        return None
    return pack([prompts[row] for row in rows], [responses[row] for row in rows])


def passes(
    prompts: Sequence[Ids], responses: Sequence[Ids], rows: Sequence[int], token_budget: int
) -> list[list[int]]:
    """These rows in passes of at most ``token_budget`` tokens, as many on every rank; collective."""
    chosen = [prompts[row] for row in rows], [responses[row] for row in rows]
    own = [[rows[index] for index in indices] for indices in split_packs(*chosen, token_budget)]
    # layers are gathered together: a rank with fewer passes than another would leave it waiting
    return own + [[] for _ in range(distributed.largest(len(own)) - len(own))]


def with_tokens(responses: Sequence[Ids]) -> list[int]:
    """The rows whose response is not empty."""
    return [row for row, response in enumerate(responses) if len(response)]


def score_responses(
    policy: Policy,
    prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies ``[B, T]`` on the CPU, without gradient; 0 after each response's end.

    In nats, at ``temperature`` > 0. An empty response costs nothing. Collective with a sharded policy.
    """
    logprobs_BT, entropy_BT = _empty_scores(policy, responses), _empty_scores(policy, responses)
    with torch.no_grad():
        for rows in passes(prompts, responses, with_tokens(responses), token_budget):
            packed = packed_rows(prompts, responses, rows)
            values = policy(packed, joined([responses[row] for row in rows]), temperature)
            _fill(logprobs_BT, rows, responses, values.logprobs_n)
            _fill(entropy_BT, rows, responses, values.entropy_n)
    return logprobs_BT, entropy_BT


class BothViews(NamedTuple):
    """Log-probs and entropies of two views and ``KL(student || teacher)``, each ``[B, T]`` on the CPU."""

    student_logprobs_BT: Tensor
    student_entropy_BT: Tensor
    teacher_logprobs_BT: Tensor
    teacher_entropy_BT: Tensor
    divergence_BT: Tensor


def score_both_views(
    student: Policy,
    teacher: Policy,
    student_prompts: Sequence[Ids],
    teacher_prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
) -> BothViews:
    """Both views of the same responses and ``D̄_t = KL(P_S || P_T)`` over the vocabulary
    (arXiv:2605.10781, eq. 3), each view read once.

    As in ``score_responses``. Collective with sharded policies.
    """
    both = BothViews(*(_empty_scores(student, responses) for _ in BothViews._fields))
    with torch.no_grad():
        for rows in passes(teacher_prompts, responses, with_tokens(responses), token_budget):
            ids_N = joined([responses[row] for row in rows])
            packed = packed_rows(teacher_prompts, responses, rows)
            second = teacher(packed, ids_N, temperature, keep_hidden=True)
            packed = packed_rows(student_prompts, responses, rows)
            head_VG = None if teacher is student else teacher.gathered_head()
            other = OtherView(second.hidden_NH, head_VG, read=_kl)
            first = student(packed, ids_N, temperature, other=other)
            values = (first.logprobs_n, first.entropy_n, second.logprobs_n, second.entropy_n)
            for filled_BT, values_N in zip(both, (*values, first.read["kl"]), strict=True):
                _fill(filled_BT, rows, responses, values_N)
    return both


def compare(
    first: Policy,
    second: Policy,
    first_prompts: Sequence[Ids],
    second_prompts: Sequence[Ids],
    responses: Sequence[Ids],
    temperature: float,
    token_budget: int,
    read: Read,
) -> list[dict[str, Tensor]]:
    """What ``read`` makes of the two distributions at every token of each response, on the CPU.

    Student and teacher view of one policy, or two policies given one prompt: the same work. ``read`` is
    as in ``over_vocabulary``; each of its tensors comes back as ``[T, …]`` for a response of T tokens.
    The ids are scored as they are, at ``temperature``, without gradient, in passes of at most
    ``token_budget`` tokens; no [T, V] tensor is kept. An empty response has an empty dict. Collective
    with sharded policies.
    """
    compared: list[dict[str, Tensor]] = [{} for _ in responses]
    with torch.no_grad():
        for rows in passes(second_prompts, responses, with_tokens(responses), token_budget):
            hidden_NG = second(packed_rows(second_prompts, responses, rows)).hidden_NH
            packed = packed_rows(first_prompts, responses, rows)
            ids_N = joined([responses[row] for row in rows])
            head_VG = None if second is first else second.gathered_head()
            nothing_N = torch.zeros_like(ids_N, dtype=torch.bool)
            other = OtherView(hidden_NG, head_VG, read=read)
            values = first(packed, ids_N, temperature, at_N=nothing_N, other=other).read
            sizes = [len(responses[row]) for row in rows]
            for name, values_N in values.items():
                for row, values_T in zip(rows, values_N.cpu().split(sizes), strict=True):
                    compared[row][name] = values_T
    return compared


def response_states(
    policy: Policy,
    prompts: Sequence[Ids],
    responses: Sequence[Ids],
    token_budget: int,
) -> Tensor:
    """Last hidden states ``[N, H]`` that predict all response tokens, row by row, without gradient.

    In passes of its own; collective.
    """
    hidden_states: list[Tensor] = [torch.empty(0)] * len(responses)
    with torch.no_grad():
        for rows in passes(prompts, responses, range(len(responses)), token_budget):
            packed = packed_rows(prompts, responses, rows)
            hidden_NH = policy(packed).hidden_NH
            sizes = [len(responses[row]) for row in rows]
            for row, hidden_TH in zip(rows, hidden_NH.split(sizes), strict=True):
                hidden_states[row] = hidden_TH
    if not responses:
        return torch.empty(0, policy.config.hidden_size)
    return torch.cat(hidden_states)


def _kl(student_nV: Tensor, teacher_nV: Tensor, ids_n: Tensor) -> dict[str, Tensor]:
    return {"kl": kl(student_nV, teacher_nV)}


def _empty_scores(policy: Policy, responses: Sequence[Ids]) -> Tensor:
    """Zeros ``[B, T]`` on the CPU, in float64 for a policy of float64 and in float32 for all others."""
    longest = max((len(response) for response in responses), default=0)
    dtype = torch.float64 if policy.dtype == torch.float64 else torch.float32
    return torch.zeros(len(responses), longest, dtype=dtype)


def _fill(
    values_BT: Tensor, rows: Sequence[int], responses: Sequence[Ids], values_N: Tensor
) -> None:
    """Put flat values of the responses of some rows, row by row, where they belong."""
    sizes = [len(responses[row]) for row in rows]
    for row, size, values_t in zip(rows, sizes, values_N.cpu().split(sizes), strict=True):
        values_BT[row, :size] = values_t
