"""Distribution shift (arXiv:2605.10781, Fig. 7): where a tuned policy has left its base, token by token.

On responses of the tuned policy, at every position both policies' distributions over the vocabulary
are compared: how far apart they are, whether they rank the same tokens first, and what the base
thought of the token that the tuned policy now ranks first.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from rlrt.analysis.figures import legend_below, look, plain, tidy
from rlrt.batch import Rollout, Verdict
from rlrt.loss.divergences import GeneralizedJSD
from rlrt.model.policy import Policy, compare

TOP = 20  # largest k of the overlap
SHIFTED = 0.1  # nats of JS above which a position counts as shifted
MOST = math.log(2)  # nats, the largest JS there is
DISTANCES = np.geomspace(1e-4, MOST, 61)  # x of panel a
THRESHOLDS = np.geomspace(1e-4, 1, 41)  # of base probability, panel c
JENSEN_SHANNON = GeneralizedJSD(beta=0.5)

Row = dict[str, Any]


@dataclass(frozen=True)
class Shift:
    """All positions of one tuned policy's responses, one after the other."""

    label: str
    js_N: Tensor  # JS(tuned ‖ base), nats
    overlap_NK: Tensor  # share of the k likeliest tokens in common, column k - 1
    base_probability_N: Tensor  # that the base gave to the tuned policy's likeliest token

    @property
    def shifted_N(self) -> Tensor:
        return self.js_N > SHIFTED


def read_shift(tuned_nV: Tensor, base_nV: Tensor, ids_n: Tensor) -> dict[str, Tensor]:
    """What ``Shift`` holds at n positions, from both policies' logits, in the order of its fields.

    ``JS = ½ KL(P ‖ M) + ½ KL(Q ‖ M)``, ``M = (P + Q) / 2``: symmetric, in [0, ln 2] nats.
    """
    js_n = JENSEN_SHANNON(tuned_nV, base_nV, ids_n)
    tuned_nK, base_nK = likeliest(tuned_nV, TOP), likeliest(base_nV, TOP)
    base_logprobs_n1 = base_nV.log_softmax(-1).gather(-1, tuned_nK[:, :1])
    return {
        "js_N": js_n.clamp(0, MOST),  # rounding leaves the ends by 1e-8
        "overlap_NK": top_overlap(tuned_nK, base_nK),
        "base_probability_N": base_logprobs_n1.exp().squeeze(-1),
    }


def likeliest(logits_nV: Tensor, count: int) -> Tensor:
    """The ids of the ``count`` largest logits (at most V), largest first; of equal ones the lower id."""
    count = min(count, logits_nV.shape[-1])
    ids_nK = logits_nV.topk(count, dim=-1).indices.sort(-1).values
    values_nK = logits_nV.gather(-1, ids_nK)
    ids_nK = ids_nK.gather(-1, values_nK.sort(dim=-1, descending=True, stable=True).indices)
    # topk takes any of the ids that tie for the last place: such rows, few, are sorted completely
    least_n1 = values_nK.amin(-1, keepdim=True)
    tied_n = (logits_nV >= least_n1).sum(-1) > count
    if tied_n.any():
        order_mV = logits_nV[tied_n].sort(dim=-1, descending=True, stable=True).indices
        ids_nK[tied_n] = order_mV[:, :count]
    return ids_nK


def top_overlap(first_nK: Tensor, second_nK: Tensor) -> Tensor:
    """``|first k ∩ second k| / k`` for every k up to K, ``[n, K]``, of ids in order of likelihood."""
    same_nKK = (first_nK[:, :, None] == second_nK[:, None, :]).float()
    common_nK = same_nKK.cumsum(1).cumsum(2).diagonal(dim1=1, dim2=2)
    return common_nK / torch.arange(1, first_nK.shape[1] + 1, device=first_nK.device)


def shift_of(
    label: str,
    tuned: Policy,
    base: Policy,
    rollouts: Sequence[Rollout],
    temperature: float,
    token_budget: int,
) -> Shift:
    """Both policies given the same prompts, at every token of the rollouts.

    Memory does not grow with T × V.
    """
    prompts = [rollout.prompt_ids for rollout in rollouts]
    responses = [rollout.response.ids for rollout in rollouts]
    read = compare(tuned, base, prompts, prompts, responses, temperature, token_budget, read_shift)
    read = [values for values in read if values]  # an empty response has none
    return Shift(label, **{name: torch.cat([values[name] for values in read]) for name in read[0]})


def hardest(rollouts: Sequence[Rollout], count: int) -> list[int]:
    """The groups with the smallest share of right rollouts, smallest first; of equal ones the first."""
    groups: dict[int, list[bool]] = defaultdict(list)
    for rollout in rollouts:
        groups[rollout.group].append(rollout.verdict is Verdict.RIGHT)
    return sorted(groups, key=lambda group: (fmean(groups[group]), group))[:count]


def shift_rows(shifts: Sequence[Shift]) -> list[Row]:
    """The lines of the three panels, point by point; b and c without values where nothing shifted.

    a: share of positions with ``JS > x``. b: mean overlap of the x likeliest tokens, over shifted
    positions (JS > 0.1). c: share of shifted positions whose new top token, the tuned policy's
    likeliest, had a base probability below x. At k = 1 panel b is the share that kept its top token.
    """
    rows: list[Row] = []
    for shift in shifts:
        shifted_N = shift.shifted_N
        count = {"a": len(shifted_N), "b": int(shifted_N.sum()), "c": int(shifted_N.sum())}
        probability_S = shift.base_probability_N[shifted_N].double()
        points = [
            *(("a", x, (shift.js_N.double() > x).double().mean()) for x in DISTANCES.tolist()),
            *(("b", k, mean) for k, mean in enumerate(shift.overlap_NK[shifted_N].mean(0), 1)),
            *(("c", x, (probability_S < x).double().mean()) for x in THRESHOLDS.tolist()),
        ]
        rows += [
            {"panel": panel, "policy": shift.label, "x": x, "positions": count[panel]}
            | ({"value": float(value)} if count[panel] else {})
            for panel, x, value in points
        ]
    return rows


def draw(rows: Sequence[Row], base: str, title: str) -> Figure:
    """The three panels; a policy that nowhere shifted has no line in b and c."""
    panels = {
        "a": ("JS above x", "x [nats]", "share of positions"),
        "b": (f"top-k overlap where JS > {SHIFTED}", "k", f"share in common with {plain(base)}"),
        "c": (
            f"new top token where JS > {SHIFTED}",
            f"its probability under {plain(base)} is below",
            "share of these positions",
        ),
    }
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    for place, (panel, (heading, x_label, y_label)) in zip(axes, panels.items(), strict=True):
        for number, policy in enumerate(policies):
            own = [r for r in rows if (r["panel"], r["policy"]) == (panel, policy) and "value" in r]
            place.plot(
                [row["x"] for row in own],
                [row["value"] for row in own],
                label=plain(policy),
                **look(number) | {"marker": ""},
            )
        place.set(title=heading, xlabel=x_label, ylabel=y_label)
        if panel != "b":
            place.set_xscale("log")
        tidy(place)
    if any(row["panel"] == "a" and row["value"] > 0 for row in rows):
        axes[0].set_yscale("log")
    for place in axes[1:]:
        place.set_ylim(0, 1.02)
    axes[1].set_xticks([1, 5, 10, 15, TOP])
    legend_below(figure, axes[0].get_legend_handles_labels()[0])
    figure.suptitle(plain(title))
    return figure
