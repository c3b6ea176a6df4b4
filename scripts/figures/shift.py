"""How far runs have moved from their base, token by token (arXiv:2605.10781, Fig. 7).

python scripts/figures/shift.py logs/rlrt_tiny/<time> logs/grpo_tiny/<time> --out docs/figures/shift

The base samples 8 rollouts of each of the first run's first held-out problems (``--problems``); hard are
the 30 (``--hard``) of which it solves the smallest share. On these every run's last policy samples its own
responses, as in its training, at whose tokens it is compared with the base at the temperature of the
training. Writes <out>.svg, .png and .csv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.runs import group_runs, read_run
from rlrt.analysis.shift import Row, Shift, draw, hardest, shift_of, shift_rows
from rlrt.batch import Problem, Verdict
from rlrt.config.command_line import print_once, quiet_libraries, report_errors, require_at_least
from rlrt.config.compose import user_errors
from rlrt.config.loaded_run import (
    RunEngine,
    held_out_problems,
    load_on_device,
    load_run,
    running_engine,
)
from rlrt.config.problem_sets import build_source
from rlrt.config.stored_policies import StoredPolicy, find_policy, initial_policy, read_config
from rlrt.errors import UserError
from rlrt.model.load import load_tokenizer
from rlrt.seeds import derive_seed

BASE_SAMPLES = 8  # that say how hard a problem is
ALIKE = ("temperature", "max_prompt_tokens", "max_response_tokens")  # or lengths tell runs apart


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where runs cannot be compared."""
    options = parse_options(arguments)
    require_at_least(options, problems=1, hard=1, samples=1)
    require_place(options.out)
    quiet_libraries()
    tuned = labeled(options.runs)
    configs = [read_config(folder) for folder in options.runs]
    base = find_policy(options.base or initial_policy(configs[0]), "--base")
    require_alike(options.runs, configs)
    require_tokenizer(base, list(tuned.values()))
    loaded = load_run(options.runs[0])
    problems = held_out_problems(loaded, options.problems)
    longest = loaded.config.training.max_prompt_tokens + loaded.config.training.max_response_tokens
    with running_engine(
        loaded, options.engine, longest, derive_seed(loaded.config.seed, "shift")
    ) as served:
        served.serve(base, problems, 0)
        base_rollouts = served.rollouts(problems, BASE_SAMPLES, 0)
        hard = [problems[group] for group in hardest(base_rollouts, options.hard)]
        print_once(f"{len(hard)} hard problems of {len(problems)}; {base.name} is the base")
        shifts = read_shifts(served, base, tuned, hard, options.samples)
    rows = shift_rows(shifts)
    for row in empty(rows):
        print_once(f"{row['policy']}: no position has moved so far, its lines in b and c are empty")
    title = f"responses to {len(hard)} hard problems, compared with {base.name}"
    for path in save_figure(draw(rows, base.name, title), rows, options.out):
        print_once(str(path))


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a wrong one ends the program with status 2."""
    parser = argparse.ArgumentParser(description="Distribution shift of runs against their base.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    parser.add_argument("--base", help="preset, folder or hub name; what the first run began with")
    parser.add_argument("--problems", type=int, default=128, help="that the base is asked (128)")
    parser.add_argument("--hard", type=int, default=30, help="of them, the hardest (30)")
    parser.add_argument("--samples", type=int, default=8, help="responses to each of these (8)")
    parser.add_argument("--engine", choices=("vllm", "hf"), help="instead of the first run's")
    return parser.parse_args(arguments)


def labeled(folders: Sequence[Path]) -> dict[str, StoredPolicy]:
    """The last policy of each run, by its method, and its seed where there are several."""
    methods = group_runs([read_run(folder) for folder in folders])
    return {
        name if len(runs) == 1 else f"{name}, seed {run.seed}": find_policy(str(run.folder))
        for name, runs in methods.items()
        for run in runs
    }


@user_errors()
def require_alike(folders: Sequence[Path], configs: Sequence[DictConfig]) -> None:
    """UserError where a run asked another way than the first: its responses are not comparable.

    Another seed of the data is welcome where it holds out the same problems.
    """
    first = configs[0]
    for folder, config in zip(folders, configs, strict=True):
        pairs: dict[str, tuple[Any, Any]] = {"prompts": (first.prompts, config.prompts)}
        pairs["data"] = (first.data, config.data)
        if config.data != first.data and unseeded(config.data) == unseeded(first.data):
            one, other = (build_source(c.data).held_out().problems for c in (first, config))
            pairs["data"] = (one, other)
        pairs |= {f"training.{n}": (first.training[n], config.training[n]) for n in ALIKE}
        for name, (one, other) in pairs.items():
            if one != other:
                raise UserError(
                    f"{name} of {folder} is not that of {folders[0]}: compare runs that were asked "
                    "the same questions in the same way"
                )


def unseeded(data: DictConfig) -> dict[str, Any]:
    """The settings of the data but for the seed."""
    return {str(name): value for name, value in data.items() if name != "seed"}


@user_errors()
def require_tokenizer(base: StoredPolicy, tuned: Sequence[StoredPolicy]) -> None:
    """UserError where a policy's ids mean something else than the base's."""

    def ids(stored: StoredPolicy) -> dict[str, int]:
        vocabulary: dict[str, int] = load_tokenizer(stored.local_folder()).get_vocab()
        return vocabulary

    known = ids(base)
    for stored in tuned:
        if ids(stored) != known:
            raise UserError(
                f"the tokenizer of {stored.name} is not that of the base {base.name}: their "
                "distributions are over different tokens"
            )


def read_shifts(
    served: RunEngine,
    base: StoredPolicy,
    tuned: dict[str, StoredPolicy],
    hard: Sequence[Problem],
    samples: int,
) -> list[Shift]:
    """Every tuned policy's own responses, read by it and by the base."""
    loaded = served.loaded
    base_policy = load_on_device(base)
    shifts = []
    for label, stored in tuned.items():
        served.serve(stored, hard, 0)
        rollouts = served.rollouts(hard, samples, 1)
        shift = shift_of(
            label, served.policy, base_policy, rollouts, loaded.temperature, loaded.token_budget
        )
        right = sum(rollout.verdict is Verdict.RIGHT for rollout in rollouts) / len(rollouts)
        print_once(
            f"{label}: {right:.3f} right, {len(shift.js_N)} positions, mean JS "
            f"{float(shift.js_N.mean()):.4f} nats, {float(shift.shifted_N.float().mean()):.4f} above 0.1"
        )
        shifts.append(shift)
    return shifts


def empty(rows: Sequence[Row]) -> list[Row]:
    """One row of each policy without a shifted position."""
    return [row for row in rows if row["panel"] == "b" and row["x"] == 1 and "value" not in row]


if __name__ == "__main__":
    with report_errors():
        main()
