"""What "Wait, let me reconsider." turns, over the checkpoints of a run (arXiv:2605.10781, Fig. 6).

python scripts/figures/reflection.py logs/rlrt_tiny/<time> --out docs/figures/reflection

Every checkpoint, and the policy that the run began with, samples 8 rollouts of the run's first
held-out problems afresh: which problems are hard or easy is up to each policy. D̄ is read with the same
policy, given the run's context or ``--context``. A rollout for which the context shows nothing
has no D̄ and is left out, and counted: with a correct peer, all of a problem that is never solved.
The sentence goes in as its own tokens, nothing around it. Writes <out>.svg, .png and .csv.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.reflection import (
    SAMPLES,
    SENTENCE,
    Case,
    CheckpointVerdicts,
    Injection,
    Row,
    draw,
    injections,
    rates,
    turnable,
)
from rlrt.batch import Problem, Response, Verdict
from rlrt.config.command_line import print_once, quiet_libraries, report_errors, require_at_least
from rlrt.config.loaded_run import RunEngine, held_out_problems, load_run, running_engine
from rlrt.config.stored_policies import StoredPolicy, find_policy, policies_by_step
from rlrt.errors import UserError
from rlrt.model.policy import score_both_views
from rlrt.seeds import derive_seed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where something is not there."""
    options = parse_options(arguments)
    require_at_least(options, problems=1, max_new_tokens=1)
    require_place(options.out)
    quiet_libraries()
    policies = policies_of(options.run, options.steps)
    loaded = load_run(options.run, context=options.context)
    if loaded.context is None:
        loaded.teacher_prompts([], 0)  # says what is missing
    sentence = tuple(loaded.tokenizer(options.sentence, add_special_tokens=False)["input_ids"])
    if not sentence:
        raise UserError("--sentence is empty, it must hold a token")
    problems = held_out_problems(loaded, options.problems)
    training = loaded.config.training
    limit = options.max_new_tokens or int(training.max_response_tokens)
    longest = training.max_prompt_tokens + training.max_response_tokens + len(sentence) + limit
    seed = derive_seed(loaded.config.seed, "reflection")
    checkpoints = []
    with running_engine(loaded, options.engine, longest, seed) as served:
        for step, stored in policies.items():
            served.serve(stored, problems, step)
            checkpoints.append(judge_checkpoint(served, problems, step, sentence, limit))
            print_once(as_lines(rates(checkpoints[-1:])))
    rows = rates(checkpoints)
    title = f"“{options.sentence}” put into responses of {loaded.stored.name}"
    for path in save_figure(draw(rows, title), rows, options.out):
        print_once(str(path))


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description="Reflection injection over the checkpoints of a run."
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    parser.add_argument(
        "--steps", type=int, nargs="+", help="rollout steps (0: the start); all without"
    )
    parser.add_argument("--problems", type=int, default=128, help="held-out problems (128)")
    parser.add_argument("--context", help="of the teacher view, a name in configs/context")
    parser.add_argument("--engine", choices=("vllm", "hf"), help="instead of the run's")
    parser.add_argument("--sentence", default=SENTENCE, help=f"put in ({SENTENCE})")
    parser.add_argument("--max-new-tokens", type=int, help="of a continuation; the run's without")
    return parser.parse_args(arguments)


def policies_of(run: Path, steps: Sequence[int] | None) -> dict[int, StoredPolicy]:
    """The start (step 0) and every policy that a run keeps, by rollout steps, or those of ``steps``."""
    words = policies_by_step(run)
    if not words.keys() - {0}:
        raise UserError(f"{run} holds no checkpoints and no exports")
    for step in steps or ():
        if step not in words:
            raise UserError(
                f"--steps names {step}, and {run} keeps no policy of that step; allowed: "
                + ", ".join(map(str, words))
            )
    return {step: find_policy(words[step]) for step in sorted(set(steps or words))}


def judge_checkpoint(
    served: RunEngine,
    problems: Sequence[Problem],
    step: int,
    sentence: tuple[int, ...],
    limit: int,
) -> CheckpointVerdicts:
    """Samples, cuts, injects and judges with the weights that are served."""
    rollouts = served.rollouts(problems, SAMPLES, step)
    teacher_prompts = served.loaded.teacher_prompts(rollouts, step)
    prompt_of = {(r.group, r.sample): ids for r, ids in zip(rollouts, teacher_prompts, strict=True)}
    turnable_cases = [
        (*pair, prompt_of[pair[1].group, pair[1].sample]) for pair in turnable(rollouts)
    ]
    readable = [
        (kind, rollout, prompt) for kind, rollout, prompt in turnable_cases if prompt is not None
    ]
    views = score_both_views(
        served.policy,
        served.policy,
        [rollout.prompt_ids for _, rollout, _ in readable],
        [prompt for *_, prompt in readable],
        [rollout.response.ids for _, rollout, _ in readable],
        served.loaded.temperature,
        served.loaded.token_budget,
    )
    cases = [
        Case(kind, rollout, values_T[: len(rollout.response.ids)])
        for (kind, rollout, _), values_T in zip(readable, views.divergence_BT, strict=True)
    ]
    seeds = partial(seed_of, served.seed, step)
    arms = [arm for case in cases for arm in injections(case, sentence, seeds("place", case))]
    verdicts = judge(served, arms, [seeds("continuation", arm.case) for arm in arms], limit)
    unread = Counter(kind.name for kind, _, prompt in turnable_cases if prompt is None)
    return CheckpointVerdicts(step, list(zip(arms, verdicts, strict=True)), unread)


def seed_of(seed: int, step: int, purpose: str, case: Case) -> int:
    """All arms of a rollout have the same: they differ in their prompt alone."""
    return derive_seed(seed, purpose, step, case.rollout.group, case.rollout.sample)


def judge(
    served: RunEngine, arms: Sequence[Injection], seeds: Sequence[int], limit: int
) -> list[Verdict]:
    """The verdict of each complete response; all are sampled in one call."""
    if not arms:
        return []

    def complete(index: int, continuation: Response) -> Response:
        return arms[index].complete(continuation)

    prompts = [(*arm.case.rollout.prompt_ids, *arm.ids) for arm in arms]
    answers = [arm.case.rollout.problem.accepted_answers for arm in arms]
    return served.judge_continuations(prompts, seeds, answers, limit, complete)


def as_lines(rows: Sequence[Row]) -> str:
    """A checkpoint's numbers as lines."""
    lines = []
    for row in rows:
        where = f"step {row['step']:4d}  {row['kind']}  {row['place']:6s}"
        left = (
            f", {row['left_out']} left out: nothing to show the teacher" if row["left_out"] else ""
        )
        if not row["problems"]:
            lines.append(f"{where}  no such problem{left}")
            continue
        lines.append(
            f"{where}  turned {row['rate']:.3f}, without the sentence {row['control']:.3f} "
            f"({row['rollouts']} rollouts of {row['problems']} problems{left})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with report_errors():
        main()
