"""Trajectories with numbers that a test chooses."""

import math
from collections.abc import Sequence

import torch

from rlrt.analysis.critical_positions import SHOWN, Candidate, Positions, Trajectory
from rlrt.batch import Problem, Response, Rollout, Verdict


def trajectory_of(
    texts: Sequence[str],
    divergence: Sequence[float],
    question: str = "Compute 1 + 1.",
    candidate: str = "other",
    top: int = 2,
    group: int = 0,
) -> Trajectory:
    """P_S is 0.5 and P_T 0.5 · exp(-D̂) with D̂ = D̄ - 1; credit is 2 of an advantage of 1, and half of
    that at odd tokens, and absent at the last.
    """
    count = len(texts)
    divergence_T = torch.tensor(divergence)
    student_T = torch.full((count,), math.log(0.5))
    positions = Positions(
        divergence_T=divergence_T,
        student_logprobs_T=student_T,
        teacher_logprobs_T=student_T - (divergence_T - 1),
        candidate_ids_TC=torch.zeros(count, 2 * SHOWN, dtype=torch.long),
        candidate_student_TC=torch.zeros(count, 2 * SHOWN),
        candidate_teacher_TC=torch.zeros(count, 2 * SHOWN),
    )
    credit_T = torch.tensor([2.0 if t % 2 == 0 else 0.5 for t in range(count)])
    credit_T[-1] = torch.nan
    candidates = [
        Candidate(side, 7, f"{candidate} {side} {k}", 0.1 * (k + 1), 0.2)
        for side in ("explore", "exploit")
        for k in range(SHOWN)
    ]
    return Trajectory(
        rollout=Rollout(
            problem=Problem("id", question, "2", "arithmetic"),
            group=group,
            sample=1,
            prompt_ids=(3,),
            response=Response((5,) * count, (0.0,) * count, False),
            text="".join(texts),
            verdict=Verdict.RIGHT,
            reward=1.0,
            penalty=0.0,
        ),
        step=3,
        advantage=1.0,
        texts=list(texts),
        positions=positions,
        credit_T=credit_T,
        candidates=dict.fromkeys(positions.critical(top), candidates),
    )
