"""Lemma 1 and Theorem 2 of arXiv:2605.10781 on worlds that are known completely, and on a real policy.

python scripts/figures/theory.py logs/rlrt_tiny/<time> --out docs/figures/theory

Inf² against 2 D̄, which the theorem says is never less. On the left nodes of random and of adversarial
trees of tokens. With a run folder, on the right positions of its responses of rollout step --step, drawn by
chance where the student's entropy is at least --least-entropy, for elsewhere there is nothing to decide. They
are read by the policy that sampled them, and after each of the likeliest tokens the engine goes on
--continuations times, which estimates f. Exit status 2, and nothing written, where something is missing.
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.theory import (
    KINDS,
    Place,
    check_worlds,
    draw,
    estimate,
    hesitations,
    make_worlds,
    reading,
    summary,
    tally,
    world_rows,
    world_summary,
)
from rlrt.batch import Response, Rollout, Verdict
from rlrt.config.command_line import print_once, quiet_libraries, report_errors, require_at_least
from rlrt.config.loaded_run import LoadedRun, load_run, running_engine
from rlrt.config.stored_policies import policies_by_step
from rlrt.errors import UserError
from rlrt.model.policy import compare
from rlrt.records import read_table, rollouts_of, step_files
from rlrt.seeds import derive_seed

if TYPE_CHECKING:
    from torch import (
        Tensor,  # at run time only once rlrt is imported, which says how it is to be imported
    )

SHAPES = ((3, 4), (4, 3), (4, 5), (3, 5))  # vocabulary and depth of the worlds
Start = tuple[int, int, int]  # a place, the rank of its token, the number of a continuation
DRAWN = 250  # nodes of each kind and shape in the picture


def tabular_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Nodes to draw of ``count`` worlds of each kind and shape; says what holds at all nodes."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for kind, label in KINDS.items():
        checked = [check_worlds(*make_worlds(kind, count, *shape, rng)) for shape in SHAPES]
        for nodes in checked:
            rows += world_rows(kind, nodes, DRAWN)
        sentence = "{nodes} nodes, D̄ infinite at {infinite}; Lemma 1 off by {gap:.1e} at most, "
        sentence += "Theorem 2 broken at {broken}, Inf² / (2 D̄) up to {ratio:.5f}"
        print_once(f"{label}: {sentence.format(**world_summary(checked))}")
    return rows


def policy_of_step(folder: Path, step: int) -> str:
    """The policy that sampled rollout step ``step``; UserError where it is not kept."""
    policies = policies_by_step(folder)
    if step not in policies:
        raise UserError(
            f"{folder} does not keep the policy that sampled rollout step {step}, but those of "
            f"{', '.join(map(str, policies)) or 'no step'}: choose such a --step, or name a --model"
        )
    return policies[step]


def find_places(loaded: LoadedRun, rollouts: Sequence[Rollout], options: Any) -> list[Place]:
    """Positions drawn by chance among those where the student hesitates and a teacher view exists."""
    prompts = loaded.teacher_prompts(rollouts, options.step)
    rows = [row for row, prompt in enumerate(prompts) if prompt is not None]
    rows = sorted(Random(options.seed).sample(rows, min(len(rows), options.positions)))
    compared = compare(
        loaded.policy,
        loaded.policy,
        [rollouts[row].prompt_ids for row in rows],
        [prompts[row] or () for row in rows],
        [rollouts[row].response.ids for row in rows],
        loaded.temperature,
        loaded.token_budget,
        reading(options.tokens),
    )
    places = hesitations(rows, rollouts, compared, options.least_entropy)
    if not places:
        raise UserError(
            f"no response of rollout step {options.step} has both a teacher view and a position with "
            f"an entropy of --least-entropy {options.least_entropy} nats"
        )
    return Random(options.seed + 1).sample(places, min(len(places), options.positions))


def count_right(loaded: LoadedRun, places: Sequence[Place], options: Any) -> "Tensor":
    """The correct ends after each candidate token of each place, ``[places, halves, tokens]``.

    A continuation may be as long as the response might still have become in the run.
    """
    tokens = len(places[0].ids)
    starts = list(product(range(len(places)), range(tokens), range(options.continuations)))
    verdicts = judge_continuations(loaded, places, starts, options)
    right = [verdict is Verdict.RIGHT for verdict in verdicts]
    return tally(right, tokens, options.continuations)


def judge_continuations(
    loaded: LoadedRun, places: Sequence[Place], starts: Sequence[Start], options: Any
) -> list[Verdict]:
    """The verdict of each complete response; all continuations are sampled in one call of the engine."""
    limit = int(loaded.config.training.max_response_tokens)
    kept = [places[place].ids_with(rank) for place, rank, _ in starts]
    rollouts = [places[place].rollout for place, *_ in starts]
    over = [ids[-1] in loaded.stop_token_ids or len(ids) >= limit for ids in kept]
    open_ = [index for index, ended in enumerate(over) if not ended]
    prompts = [(*rollouts[index].prompt_ids, *kept[index]) for index in open_]
    seeds = [derive_seed(options.seed, "theory", *starts[index]) for index in open_]

    def complete(index: int, ids: Sequence[int]) -> Response:
        every = (*kept[index], *ids)[:limit]
        return Response(every, (0.0,) * len(every), truncated=False)

    longest = max(map(len, prompts), default=0) + limit
    with running_engine(loaded, options.engine, longest, options.seed) as engine:
        engine.serve(loaded.stored, [place.rollout.problem for place in places], options.step)
        continued = engine.judge_continuations(
            prompts,
            seeds,
            [rollouts[index].problem.accepted_answers for index in open_],
            limit,
            lambda number, response: complete(open_[number], response.ids),
        )
        verdicts = dict(zip(open_, continued, strict=True))
        ended = [index for index in range(len(starts)) if index not in verdicts]
        answers = [rollouts[index].problem.accepted_answers for index in ended]
        with engine.judge.judging(answers) as judging:
            for number, index in enumerate(ended):
                judging.take(number, complete(index, ()))
            judged = [grade.verdict for grade in judging.judged()]
    verdicts |= dict(zip(ended, judged, strict=True))
    return [verdicts[index] for index in range(len(starts))]


def policy_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both sides of the theorem at the sampled positions of a run; says what was found."""
    path = step_files(options.run, [options.step])[options.step]
    rollouts = rollouts_of(read_table(path))
    word = options.model or policy_of_step(options.run, options.step)
    loaded = load_run(options.run, word, options.context)
    loaded.require_tokenizer(rollouts)
    places = find_places(loaded, rollouts, options)
    counts = count_right(loaded, places, options)
    return [
        estimate(place, right_2K, options.continuations)
        for place, right_2K in zip(places, counts, strict=True)
    ]


def as_sentence(summary: dict[str, Any]) -> str:
    """The summary as a sentence."""
    return (
        "{positions} positions, {covered:.4f} of the probability covered (median). Medians with the "
        "Bayesian and the real teacher: D̄ {divergence:.3f} and {divergence_real:.3f}, Inf² / (2 D̄) "
        "{ratio:.3f} and {ratio_real:.3f}; rank correlation of Inf with D̄ {rank:.2f} and "
        "{rank_real:.2f}. With the real teacher the bound holds at {holds:.0%} (by the low estimate "
        "of Inf {holds_low:.0%}) and is broken beyond two standard errors at {broken:.0%}."
    ).format(**summary)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where a run cannot be looked at."""
    parser = argparse.ArgumentParser(description="How tight Inf² <= 2 D̄ is.")
    parser.add_argument(
        "run", type=Path, nargs="?", help="run folder with records; without it, worlds alone"
    )
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    parser.add_argument("--step", type=int, default=0, help="rollout step of the records (0)")
    parser.add_argument(
        "--model", help="preset, checkpoint, run or model folder; else what sampled the step"
    )
    parser.add_argument("--context", help="of the teacher view, a name in configs/context")
    parser.add_argument("--engine", choices=("vllm", "hf"), help="instead of the run's")
    parser.add_argument(
        "--positions", type=int, default=64, help="of the run, drawn by chance (64; >= 1)"
    )
    parser.add_argument("--tokens", type=int, default=4, help="candidates at a position (4; >= 2)")
    parser.add_argument(
        "--continuations", type=int, default=128, help="sampled of each candidate (128; even, >= 2)"
    )
    parser.add_argument(
        "--least-entropy", type=float, default=0.1, help="of the student at a position (0.1 nats)"
    )
    parser.add_argument(
        "--worlds", type=int, default=500, help="tabular ones of each kind and shape (500; >= 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn by chance (0)")
    options = parser.parse_args(arguments)
    require_at_least(options, positions=1, tokens=2, continuations=2, worlds=1)
    if options.continuations % 2:
        raise UserError(f"--continuations is {options.continuations}, it must be even")
    require_place(options.out)
    quiet_libraries()
    sampled = policy_rows(options) if options.run is not None else []
    rows = tabular_rows(options.worlds, options.seed) + sampled
    title = f"positions of {options.run.name}, step {options.step}" if options.run else ""
    for path in save_figure(draw(rows, title), rows, options.out):
        print_once(str(path))
    if sampled:
        print_once(as_sentence(summary(sampled)))


if __name__ == "__main__":
    with report_errors():
        main()
