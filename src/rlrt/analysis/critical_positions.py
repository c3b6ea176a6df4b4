"""Where the two views differ: D̄ and D̂ along a response, and the tokens that each view prefers.

arXiv:2605.10781, figures 2, 10, 12 and 13: as a still picture, and as one page on which a token that
is pointed at shows what both views say of it.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlrt.analysis.figures import COLORS
from rlrt.analysis.pages import pieces_of, render, visible
from rlrt.batch import Rollout
from rlrt.errors import UserError
from rlrt.loss.divergences import kl
from rlrt.model.policy import Policy, compare

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
    policy: Policy,
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
    read = compare(policy, policy, *prompts, responses, temperature, token_budget, read_both)
    return [Positions(**values) for values in read]


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
    student = positions.candidate_student_TC[t].tolist()
    teacher = positions.candidate_teacher_TC[t].tolist()
    return [
        Candidate("explore" if rank < len(ids) // 2 else "exploit", id, name(id), p_s, p_t)
        for rank, (id, p_s, p_t) in enumerate(zip(ids, student, teacher, strict=True))
    ]


def compact(text: str, longest: int = 24) -> str:
    """The text on one line, white space as signs, cut where it is long."""
    text = visible(text).translate(SIGNS)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def rows(trajectories: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """A row per token, and after the tokens of a response a row per candidate."""
    table: list[dict[str, Any]] = []
    for one in trajectories:
        rollout, at = one.rollout, one.positions
        where: dict[str, Any] = {"step": one.step, "group": rollout.group}
        where |= {"sample": rollout.sample, "reward": rollout.reward}
        columns = {
            "id": rollout.response.ids.tolist(),
            "token": list(map(compact, one.texts)),
            "divergence": at.divergence_T.tolist(),
            "log_ratio": at.log_ratio_T.tolist(),
            "P_S": at.student_logprobs_T.exp().tolist(),
            "P_T": at.teacher_logprobs_T.exp().tolist(),
            "credit": [None if isnan(credit) else credit for credit in one.credit_T.tolist()],
        }
        for t, values in enumerate(zip(*columns.values(), strict=True)):
            cells = dict(zip(columns, values, strict=True))
            table.append({**where, "kind": "token", "position": t, **cells})
        table += [
            {**where, "kind": c.side, "position": t, "id": c.id, "token": compact(c.text),
             "P_S": c.student, "P_T": c.teacher}
            for t, candidates in one.candidates.items()
            for c in candidates
        ]  # fmt: skip
    return table


LINE, LINE_WITH_TEXTS, MOST_TEXTS = 250, 24, 240  # tokens
MOST_LABELS = 12  # of lines
DARK = 0.36  # share of the scale above which texts are white


def draw(trajectories: Sequence[Trajectory]) -> Figure:
    """A row per response: its heat map, and the candidates at its most critical position."""
    heights = [_height(one) for one in trajectories]
    figure, axes = plt.subplots(
        len(trajectories),
        2,
        figsize=(15, sum(heights)),
        width_ratios=(3, 1),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    top = max(float(one.positions.divergence_T.max()) for one in trajectories)
    for (left, right), one in zip(axes, trajectories, strict=True):
        image = _draw_tokens(left, one, top)
        _draw_candidates(right, one)
    bar = figure.colorbar(image, ax=axes[:, 0], location="bottom", aspect=60, shrink=0.5)
    bar.set_label("D̄ = KL(P_S ‖ P_T), nats (square-root scale)")
    return figure


def _tokens_in_a_line(one: Trajectory) -> int:
    return LINE_WITH_TEXTS if len(one.texts) <= MOST_TEXTS else LINE


def _height(one: Trajectory) -> float:
    """Inches of a response's row."""
    width = _tokens_in_a_line(one)
    each = 0.45 if width == LINE_WITH_TEXTS else 0.06
    return max(each * -(-len(one.texts) // width) + 0.9, 2.8)


def _draw_tokens(axes: Axes, one: Trajectory, top: float) -> Any:
    """The response line by line, shaded by D̄; the critical positions are framed."""
    width, count = _tokens_in_a_line(one), len(one.texts)
    cells = torch.full((-(-count // width) * width,), torch.nan)
    cells[:count] = one.positions.divergence_T
    norm = PowerNorm(0.5, 0, max(top, 1e-12))
    image = axes.imshow(cells.view(-1, width).numpy(), cmap="YlOrRd", norm=norm, aspect="auto")
    for rank, t in enumerate(one.candidates):
        y, x = divmod(t, width)
        frame = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, lw=2 if rank == 0 else 1)
        axes.add_patch(frame)
    if width == LINE_WITH_TEXTS:
        for t, text in enumerate(one.texts):
            y, x = divmod(t, width)
            dark = float(one.positions.divergence_T[t]) > DARK * top
            axes.text(
                x, y, compact(text, 8), ha="center", va="center", fontsize=8,
                color="white" if dark else "black", parse_math=False,
            )  # fmt: skip
    axes.set(xticks=[], title=f"{one.label}: reward {one.rollout.reward:g}")
    lines = len(cells) // width
    each = -(-lines // MOST_LABELS)
    axes.set_yticks(range(0, lines, each), [str(y * width) for y in range(0, lines, each)])
    axes.set_ylabel("position")
    axes.spines[:].set_visible(False)
    return image


def _draw_candidates(axes: Axes, one: Trajectory) -> None:
    """P_S and P_T of the candidates at the most critical position."""
    t, candidates = next(iter(one.candidates.items()))
    places = np.arange(len(candidates))
    students, teachers = [c.student for c in candidates], [c.teacher for c in candidates]
    axes.barh(places - 0.2, students, height=0.38, color=COLORS[1], label="P_S")
    axes.barh(places + 0.2, teachers, height=0.38, color=COLORS[0], label="P_T")
    names = [f"{compact(c.text, 12)}  {c.side}" for c in candidates]
    axes.set_yticks(places, names, parse_math=False)
    axes.invert_yaxis()
    axes.axhline(len(candidates) / 2 - 0.5, color="gray", lw=0.8)
    axes.set(xlim=(0, 1), xlabel="probability")
    axes.set_title(f"position {t}, D̄ = {float(one.positions.divergence_T[t]):.3f}")
    axes.legend(loc="lower right")


CONTEXT = 40  # characters before a critical position


def heat_map_page(trajectories: Sequence[Trajectory], title: str, about: str) -> str:
    """HTML of one file; ``about`` is a sentence that says where the responses are from."""
    return render(
        "critical_positions",
        title=title,
        about=visible(about),
        trajectories=[_heading(one) for one in trajectories],
        data=[_script_data(one) for one in trajectories],
    )


def _heading(one: Trajectory) -> dict[str, Any]:
    """What the page says of a response without its script."""
    at = one.positions
    return {
        "label": one.label,
        "question": visible(one.rollout.problem.question),
        "reward": one.rollout.reward,
        "tokens": len(one.texts),
        "mean": float(at.divergence_T.mean()),
        "critical": [
            {
                "position": t,
                "before": visible("".join(one.texts[max(t - CONTEXT, 0) : t])[-CONTEXT:]),
                "token": compact(one.texts[t]),
                "divergence": float(at.divergence_T[t]),
                "log_ratio": float(at.log_ratio_T[t]),
                **_cells_by_side(candidates),
            }
            for t, candidates in one.candidates.items()
        ],
    }


def _cells_by_side(candidates: Sequence[Candidate]) -> dict[str, list[list[Any]]]:
    """Text, P_S and P_T of each candidate."""
    return {
        side: [
            [compact(c.text), round(c.student, 4), round(c.teacher, 4)]
            for c in candidates
            if c.side == side
        ]
        for side in ("explore", "exploit")
    }


def _script_data(one: Trajectory) -> dict[str, Any]:
    """What the script reads. P_T follows from log P_S and D̂."""
    at = one.positions
    return {
        "label": one.label,
        "texts": [visible(text) for text in one.texts],
        "divergence": _base64(at.divergence_T),
        "ratio": _base64(at.log_ratio_T),
        "student": _base64(at.student_logprobs_T),
        "credit": _base64(one.credit_T),
        "advantage": one.advantage or 0.0,
        "critical": {t: _cells_by_side(c) for t, c in one.candidates.items()},
    }


def _base64(values_T: Tensor) -> str:
    """Little-endian float32: a third of the same numbers in JSON."""
    return base64.b64encode(values_T.numpy().astype(np.dtype("<f4")).tobytes()).decode()
