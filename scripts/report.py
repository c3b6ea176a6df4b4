"""Make one self-contained HTML page about one or several runs, ended or not.

python scripts/report.py logs/rlrt_tiny/* logs/grpo_tiny/* --out report.html

Settings that differ, curves, evaluations, a few rollouts token by token, and how healthy the runs are. The
page asks for nothing: it can be mailed, and opened from a disk. What a run folder lacks is said in
its place; exit status 2, and nothing written, where a folder is no run folder at all.
"""

import argparse
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf

from rlrt.analysis.pages import Pieces, pieces_of, save_page
from rlrt.analysis.report import Defaults, page, samples_of
from rlrt.analysis.runs import ReportedRun, flat, read_runs
from rlrt.config.command_line import print_once, quiet_libraries, report_errors
from rlrt.config.compose import CONFIGS, compose, user_errors
from rlrt.errors import UserError
from rlrt.model.load import load_tokenizer, policy_folder


def defaults_of(run: ReportedRun) -> Defaults | None:
    """The settings of the run's method and model, as if nothing else had been said; None where they
    are no presets of this project.
    """
    words = {
        "credit": run.settings.get("credit._target_", "").rpartition(".")[0].rpartition(".")[2],
        "model": run.settings.get("model.name", ""),
    }
    for group, word in words.items():
        if word not in {path.stem for path in (CONFIGS / group).glob("*.yaml")}:
            return None
    overrides = [f"{group}={word}" for group, word in words.items()]
    settings = OmegaConf.to_container(compose(overrides), resolve=True)
    return f"train.py {' '.join(overrides)}", flat(settings)


@cache
@user_errors()
def pieces_from(word: str) -> Pieces:
    """What splits responses by the tokenizer of a model folder; UserError where there is none."""
    return pieces_of(load_tokenizer(policy_folder(word, weights=False)))


def tokens_of(run: ReportedRun) -> Pieces | None:
    """What splits the run's responses: by the tokenizer that it exported, or that it began with."""
    words = [run.folder / "export", run.settings.get("model.path", "")]
    for word in filter(None, map(str, words)):
        try:
            return pieces_from(word)
        except UserError:
            continue
    return None


def require_writable(out: Path) -> None:
    """UserError where the page is no .html file, or cannot come to be where it shall."""
    folder = next(parent for parent in out.absolute().parents if os.access(parent, os.F_OK))
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--out is {out}, and nothing can be written in {folder}")
    if out.suffix != ".html" or out.is_dir():
        raise UserError(f"--out is {out}, it must be an .html file")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; UserError where a folder is no run folder."""
    parser = argparse.ArgumentParser(description="One HTML page about one or several runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        help="the page, an .html file; its folder is made where it is missing "
        "(default: %(default)s, in the current folder)",
    )
    options = parser.parse_args(arguments)
    require_writable(options.out)
    quiet_libraries()
    runs = read_runs(options.runs)
    samples = [samples_of(run.folder, tokens_of(run)) for run in runs]
    save_page(page(runs, samples, [defaults_of(run) for run in runs]), options.out)
    size = options.out.stat().st_size / 1e6
    print_once(f"{options.out}: {', '.join(run.name for run in runs)}; {size:.1f} MB")


if __name__ == "__main__":
    with report_errors():
        main()
