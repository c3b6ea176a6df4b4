"""Where the two views part: D̄ and D̂ along a response, and the tokens that either view would rather take.

arXiv:2605.10781, figures 2, 10, 12 and 13.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt.analysis.text import pieces_of, visible
from rlrt.batch import Rollout
from rlrt.errors import UserError
from rlrt.loss.divergences import kl
from rlrt.model.comparison import compare

UNION_TOP, SHOWN = 100, 4  # of each view; of each side
SIGNS = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})


@dataclass(frozen=True)
class Positions:
    """Both views at every token of one response, natural logarithms at the sampling temperature.

    ``divergence_T`` is ``D̄_t = KL(P_S || P_T)``. Of the C candidates the first half are those with
    the largest P_S - P_T (explore), the second those with the largest P_T - P_S (exploit), largest
    first: both are chosen from the union of the views' top 100.
    """

    divergence_T: Tensor
    student_logprobs_T: Tensor
    teacher_logprobs_T: Tensor
    candidate_ids_TC: Tensor
    candidate_student_TC: Tensor  # probabilities
    candidate_teacher_TC: Tensor

    @property
    def log_ratio_T(self) -> Tensor:
        """``D̂_t = log P_S - log P_T`` of the sampled token: positive where the student is surer."""
        return self.student_logprobs_T - self.teacher_logprobs_T

    def critical(self, count: int) -> list[int]:
        """Positions of the largest D̄, largest first; of equal ones the earlier."""
        order = self.divergence_T.sort(descending=True, stable=True).indices
        return [int(t) for t in order[:count]]


@dataclass(frozen=True)
class Candidate:
    """A token that a view could have taken; ``side`` is explore or exploit."""

    side: str
    id: int
    text: str
    student: float  # P_S
    teacher: float  # P_T


@dataclass(frozen=True)
class Trajectory:
    """One response with its views, its texts per token, and its credit (NaN where it has none)."""

    rollout: Rollout
    step: int
    advantage: float | None
    texts: list[str]
    positions: Positions
    credit_T: Tensor
    candidates: dict[int, list[Candidate]]  # at the critical positions, the most critical first

    @property
    def label(self) -> str:
        """Which rollout it is."""
        return f"step {self.step}, group {self.rollout.group}, sample {self.rollout.sample}"


def read_both(student_nV: Tensor, teacher_nV: Tensor, ids_n: Tensor) -> dict[str, Tensor]:
    """The fields of ``Positions`` for n positions, from both views' logits and the sampled ids."""
    total_n1, teacher_total_n1 = (
        logits.logsumexp(-1, keepdim=True) for logits in (student_nV, teacher_nV)
    )

    def logprobs(ids_nK: Tensor) -> tuple[Tensor, Tensor]:
        of_teacher_nK = teacher_nV.gather(-1, ids_nK) - teacher_total_n1
        return student_nV.gather(-1, ids_nK) - total_n1, of_teacher_nK

    count = min(UNION_TOP, student_nV.shape[-1])
    both = [logits.topk(count, dim=-1).indices for logits in (student_nV, teacher_nV)]
    union_nU = torch.cat(both, dim=-1).sort(dim=-1).values
    again_nU = torch.zeros_like(union_nU, dtype=torch.bool)  # ids of both lists stand twice
    again_nU[:, 1:] = union_nU[:, 1:] == union_nU[:, :-1]
    student_nU, teacher_nU = (part.exp() for part in logprobs(union_nU))
    leans_nU = student_nU - teacher_nU
    chosen = [
        side.masked_fill(again_nU, -torch.inf).topk(min(SHOWN, count), dim=-1).indices
        for side in (leans_nU, -leans_nU)
    ]
    chosen_nC = torch.cat(chosen, dim=-1)
    student_n1, teacher_n1 = logprobs(ids_n[:, None])
    return {
        "divergence_T": kl(student_nV, teacher_nV),
        "student_logprobs_T": student_n1[:, 0],
        "teacher_logprobs_T": teacher_n1[:, 0],
        "candidate_ids_TC": union_nU.gather(-1, chosen_nC),
        "candidate_student_TC": student_nU.gather(-1, chosen_nC),
        "candidate_teacher_TC": teacher_nU.gather(-1, chosen_nC),
    }


def read_positions(
    policy: PreTrainedModel,
    student_prompts: Sequence[Sequence[int]],
    teacher_prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float,
    token_budget: int,
) -> list[Positions]:
    """Both views of one policy at every token; no response may be empty.

    Memory does not grow with tokens × vocabulary.
    """
    prompts = (student_prompts, teacher_prompts)
    found = compare(policy, policy, *prompts, responses, temperature, token_budget, read_both)
    return [Positions(**values) for values in found]


def trajectory(
    rollout: Rollout,
    record: dict[str, Any],
    positions: Positions,
    tokenizer: PreTrainedTokenizerBase,
    top: int,
) -> Trajectory:
    """A response with what its record says of it; candidates at the ``top`` largest D̄.

    UserError where the tokenizer does not turn its ids into its text.
    """
    ids, pieces = rollout.response.ids.tolist(), pieces_of(tokenizer)
    texts = pieces(ids, rollout.text)
    if texts is None:
        raise UserError("the tokenizer is not the one that the records were written with")

    def name(token: int) -> str:
        return (pieces([token], tokenizer.decode([token], skip_special_tokens=True)) or [""])[0]

    credit = record["credit"] if record["credit"] is not None else [torch.nan] * len(ids)
    return Trajectory(
        rollout,
        record["step"],
        record["advantage"],
        texts,
        positions,
        torch.tensor(credit),
        {t: _candidates(positions, t, name) for t in positions.critical(top)},
    )


def _candidates(positions: Positions, t: int, name: Callable[[int], str]) -> list[Candidate]:
    ids = positions.candidate_ids_TC[t].tolist()
    sides = ["explore"] * (len(ids) // 2) + ["exploit"] * (len(ids) // 2)
    student = positions.candidate_student_TC[t].tolist()
    teacher = positions.candidate_teacher_TC[t].tolist()
    return [
        Candidate(side, id, name(id), mine, other)
        for side, id, mine, other in zip(sides, ids, student, teacher, strict=True)
    ]


def compact(text: str, longest: int = 24) -> str:
    """The text on one line, white space as signs, cut where it is long."""
    text = visible(text).translate(SIGNS)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def rows(trajectories: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """A row per token, and behind the tokens of a response a row per candidate."""
    found = []
    for one in trajectories:
        where = {
            "step": one.step,
            "group": one.rollout.group,
            "sample": one.rollout.sample,
            "reward": one.rollout.reward,
        }
        at = one.positions
        columns = zip(
            one.rollout.response.ids.tolist(),
            one.texts,
            at.divergence_T.tolist(),
            at.log_ratio_T.tolist(),
            at.student_logprobs_T.exp().tolist(),
            at.teacher_logprobs_T.exp().tolist(),
            one.credit_T.tolist(),
            strict=True,
        )
        names = ("id", "token", "divergence", "log_ratio", "P_S", "P_T", "credit")
        for t, values in enumerate(columns):
            cells = dict(zip(names, values, strict=True))
            kept = {**cells, "token": compact(cells["token"]), "credit": _or_none(cells["credit"])}
            found.append({**where, "kind": "token", "position": t, **kept})
        found += [
            {**where, "kind": c.side, "position": t, "id": c.id, "token": compact(c.text),
             "P_S": c.student, "P_T": c.teacher}
            for t, candidates in one.candidates.items()
            for c in candidates
        ]  # fmt: skip
    return found


def _or_none(value: float) -> float | None:
    return None if value != value else value
