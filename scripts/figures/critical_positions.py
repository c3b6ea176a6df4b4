"""Where student and teacher view part, token by token (arXiv:2605.10781, Fig. 2, 10, 12, 13).

python scripts/figures/critical_positions.py logs/rlrt_tiny/<time> --out docs/figures/critical_positions

Writes .html (open it in a browser: tokens shaded by D̄, D̂ or credit, both views of the one pointed at),
.svg, .png and .csv. Shown are the correct rollouts of a step with the largest mean D̄, one of a problem.
Both views are read by the policy that sampled them where that is kept (at step 0 what the run began with),
else by the run's last one, or by --model. Exit status 2, and nothing written, where there is nothing to show.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlrt.analysis.critical_positions import (
    Positions,
    Trajectory,
    draw,
    heat_map_page,
    read_positions,
    rows,
    trajectory,
)
from rlrt.analysis.figures import OUT, require_place, save_figure
from rlrt.analysis.pages import save_page
from rlrt.batch import Verdict
from rlrt.config.command_line import print_once, quiet_libraries, report_errors, require_at_least
from rlrt.config.loaded_run import LoadedRun, load_run
from rlrt.config.stored_policies import policies_by_step
from rlrt.errors import UserError
from rlrt.records import read_table, rollouts_of, step_files

READ = ("step", "advantage", "credit", "student_logprobs", "teacher_logprobs")
SCANNED = 64  # rollouts whose D̄ is computed, at most


def recorded_ratio(record: dict[str, Any]) -> float:
    """Mean D̂ of the record: the mean D̄ as one sample saw it. Least where it was not read."""
    student, teacher = record["student_logprobs"], record["teacher_logprobs"]
    if student is None or teacher is None:
        return float("-inf")
    return (sum(student) - sum(teacher)) / len(student)


def choose(loaded: LoadedRun, path: Path, step: int, count: int, top: int) -> list[Trajectory]:
    """The correct rollouts with a teacher view and the largest mean D̄, one of each problem.

    Read are the ``SCANNED`` whose recorded D̂ is largest. UserError where there are none.
    """
    table = read_table(path, READ)
    rollouts, records = rollouts_of(table), table.select(READ).to_pylist()
    loaded.require_tokenizer(rollouts)
    prompts = loaded.teacher_prompts(rollouts, step)
    able = [
        row
        for row, rollout in enumerate(rollouts)
        if prompts[row] is not None
        and rollout.verdict is Verdict.RIGHT  # whatever a setting pays for it
        and len(rollout.response.ids)
    ]
    if not able:
        raise UserError(
            f"{path} holds no correct rollout with a teacher view: choose another --step"
        )
    able = sorted(able, key=lambda row: -recorded_ratio(records[row]))[:SCANNED]
    views = read_positions(
        loaded.policy,
        [rollouts[row].prompt_ids for row in able],
        [prompt for row in able if (prompt := prompts[row]) is not None],
        [rollouts[row].response.ids for row in able],
        loaded.temperature,
        loaded.token_budget,
    )
    best: dict[int, tuple[int, Positions]] = {}  # by problem
    by_mean = sorted(
        zip(able, views, strict=True), key=lambda pair: -float(pair[1].divergence_T.mean())
    )
    for row, positions in by_mean:
        best.setdefault(rollouts[row].group, (row, positions))
    return [
        trajectory(rollouts[row], records[row], positions, loaded.tokenizer, top)
        for row, positions in list(best.values())[:count]
    ]


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw where student and teacher view part.")
    parser.add_argument("folder", type=Path, help="run folder with records")
    parser.add_argument(
        "--step", type=int, help="rollout step of the records; the last one without"
    )
    parser.add_argument("--rollouts", type=int, default=3, help="responses shown (3; >= 1)")
    parser.add_argument("--top", type=int, default=5, help="critical positions of each (5; >= 1)")
    parser.add_argument("--model", help="preset, checkpoint, run or model folder that reads them")
    parser.add_argument("--context", help="of the teacher view, a name in configs/context")
    parser.add_argument("--out", type=Path, required=True, help=OUT)
    options = parser.parse_args(arguments)
    require_at_least(options, rollouts=1, top=1)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where there is nothing to show."""
    quiet_libraries()
    options = options_of(arguments)
    require_place(options.out, ".html")
    files = step_files(options.folder, () if options.step is None else (options.step,))
    step = max(files) if options.step is None else options.step
    model = options.model or policies_by_step(options.folder).get(step)
    loaded = load_run(options.folder, model, options.context)
    trajectories = choose(loaded, files[step], step, options.rollouts, options.top)
    about = (
        f"{options.folder.name}, rollout step {step}, both views read by {loaded.stored.name} at "
        f"temperature {loaded.temperature:g}: the correct rollouts with the largest mean D̄, one of a problem"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # drawn as a box
        outputs = save_figure(draw(trajectories), rows(trajectories), options.out)
    page = heat_map_page(trajectories, "Critical positions", about)
    outputs.append(save_page(page, outputs[0].with_suffix(".html")))
    for file in outputs:
        print_once(str(file))
    for one in trajectories:
        t, candidates = next(iter(one.candidates.items()))
        print_once(
            f"{one.label}: mean D̄ {float(one.positions.divergence_T.mean()):.4f}, largest "
            f"{float(one.positions.divergence_T[t]):.4f} at {t}, {candidates[0].text!r} against "
            f"{candidates[len(candidates) // 2].text!r}"
        )


if __name__ == "__main__":
    with report_errors():
        main()
