"""Trajectories as one page: tokens shaded by D̄, and what both views say of the one that is pointed at."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rlrt.analysis.critical_positions import Candidate, Trajectory, compact
from rlrt.analysis.html import render
from rlrt.analysis.text import visible

CONTEXT = 40  # characters before a critical position


def heat_map_page(trajectories: Sequence[Trajectory], title: str, about: str) -> str:
    """HTML of one file; ``about`` is a sentence that says where the responses are from."""
    return render(
        "critical_positions",
        title=title,
        about=visible(about),
        trajectories=[_heading(one) for one in trajectories],
        data=[_packed(one) for one in trajectories],
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
                "explore": [_shown(c) for c in candidates if c.side == "explore"],
                "exploit": [_shown(c) for c in candidates if c.side == "exploit"],
            }
            for t, candidates in one.candidates.items()
        ],
    }


def _shown(candidate: Candidate) -> list[Any]:
    return [compact(candidate.text), round(candidate.student, 4), round(candidate.teacher, 4)]


def _packed(one: Trajectory) -> dict[str, Any]:
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
        "critical": {
            t: {
                side: [_shown(c) for c in candidates if c.side == side]
                for side in ("explore", "exploit")
            }
            for t, candidates in one.candidates.items()
        },
    }


def _base64(values_T: Tensor) -> str:
    """Little-endian float32: a third of the same numbers in JSON."""
    return base64.b64encode(values_T.numpy().astype(np.dtype("<f4")).tobytes()).decode()
