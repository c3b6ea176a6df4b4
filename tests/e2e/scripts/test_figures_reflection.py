"""scripts/figures/reflection.py on a real run of the tiny policy, with the real hf engine."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from omegaconf import OmegaConf
from tests.e2e.scripts.commands import load_script, read_csv

from rlrt.analysis.reflection import CheckpointVerdicts
from rlrt.batch import Response, Verdict
from rlrt.config.loaded_run import LoadedRun, RunEngine, held_out_problems, load_run, running_engine
from rlrt.config.stored_policies import find_policy
from rlrt.engine.engine import EngineSpec, OnFinished, Sampling
from rlrt.engine.hf_engine import HFEngine
from rlrt.errors import UserError
from rlrt.reward.verifier import Verifier

PROBLEMS, ROOM = 8, 80


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("figures/reflection")


class SpyingEngine(HFEngine):
    """The real engine; ``calls`` keeps what it was asked and what it said."""

    calls: list[tuple[list[tuple[int, ...]], list[int], Sampling, list[Response]]]

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        sampling: Sampling,
        on_finished: OnFinished | None = None,
    ) -> list[Response]:
        found = super().sample(prompts, seeds, sampling, on_finished)
        self.calls.append(([tuple(ids) for ids in prompts], list(seeds), sampling, found))
        return found


@pytest.fixture(scope="module")
def loaded(run_folder: Path) -> LoadedRun:
    return load_run(run_folder, str(run_folder / "checkpoints" / "step-000003.ckpt"))


@pytest.fixture(scope="module")
def seen(
    script: ModuleType, loaded: LoadedRun
) -> Iterator[tuple[RunEngine, SpyingEngine, CheckpointVerdicts]]:
    """One checkpoint looked at, by the spying engine."""
    with running_engine(loaded, "hf", 400, seed=5) as served:
        spy = SpyingEngine()
        stops = loaded.stop_token_ids
        spy.start(loaded.policy, EngineSpec(loaded.stored.folder, stops, torch.float32, 400))
        spy.calls = []
        served = RunEngine(loaded, spy, served.judge, served.seed)
        problems = held_out_problems(loaded, PROBLEMS)
        served.serve(find_policy(str(loaded.stored.checkpoint)), problems, 3)
        yield served, spy, script.judge_checkpoint(served, problems, 3, sentence(loaded), ROOM)


def sentence(loaded: LoadedRun) -> tuple[int, ...]:
    return tuple(
        loaded.tokenizer("Wait, let me reconsider.", add_special_tokens=False)["input_ids"]
    )


def test_the_engine_is_asked_prompt_kept_tokens_and_sentence_in_one_call(
    seen: tuple[RunEngine, SpyingEngine, CheckpointVerdicts], loaded: LoadedRun
) -> None:
    _, spy, look = seen
    _probe, sampled, continued = spy.calls  # all continuations are one call
    responses = {
        (ids, tuple(found.ids.tolist())) for ids, found in zip(sampled[0], sampled[3], strict=True)
    }
    assert len(sampled[0]) == PROBLEMS * 8
    assert len(continued[0]) == len(look.judged) > 0
    assert continued[2].max_response_tokens == ROOM
    for (arm, _), asked in zip(look.judged, continued[0], strict=True):
        rollout = arm.case.rollout
        ids = tuple(rollout.response.ids.tolist())
        assert (rollout.prompt_ids, ids) in responses
        kept = ids[: arm.position]
        assert asked == rollout.prompt_ids + kept + arm.sentence_ids
        assert arm.sentence_ids in ((), sentence(loaded))


def test_all_arms_of_a_rollout_share_their_random_numbers(
    seen: tuple[RunEngine, SpyingEngine, CheckpointVerdicts],
) -> None:
    _, spy, look = seen
    asked = zip(look.judged, *spy.calls[2][:2], strict=True)
    arms: dict[tuple[int, int], list[tuple[str, bool, tuple[int, ...], int]]] = {}
    for (arm, _), prompt, seed in asked:
        name = arm.case.rollout.group, arm.case.rollout.sample
        arms.setdefault(name, []).append((arm.place, bool(arm.sentence_ids), prompt, seed))
    assert all(len(own) == 6 and len({seed for *_, seed in own}) == 1 for own in arms.values())
    assert len({own[0][3] for own in arms.values()}) == len(arms)


def test_the_places_are_the_extremes_of_the_divergence(
    seen: tuple[RunEngine, SpyingEngine, CheckpointVerdicts],
) -> None:
    _, _, look = seen
    checked = 0
    for arm, _ in look.judged:
        case, ids = arm.case, arm.case.rollout.response.ids
        values = [float(value) for value in case.divergence_T]
        assert len(values) == len(ids)
        extremes = {"argmax": max, "argmin": min}
        if arm.place in extremes:
            assert values[arm.position] == extremes[arm.place](values)
            assert values.index(values[arm.position]) == arm.position
            checked += 1
    assert checked


def test_the_divergence_is_that_of_both_views_over_the_vocabulary(
    script: ModuleType, seen: tuple[RunEngine, SpyingEngine, CheckpointVerdicts], loaded: LoadedRun
) -> None:
    served, _, look = seen
    problems = held_out_problems(loaded, PROBLEMS)
    rollouts = served.rollouts(problems, 8, 3)  # the same seeds: the same responses
    prompts = loaded.teacher_prompts(rollouts, 3)
    behind = {(r.group, r.sample): ids for r, ids in zip(rollouts, prompts, strict=True)}
    for arm, _ in look.judged[:18:6]:
        rollout = arm.case.rollout
        teacher = behind[rollout.group, rollout.sample]
        assert teacher is not None
        views = []
        for prompt in (rollout.prompt_ids, teacher):
            ids = torch.tensor([[*prompt, *rollout.response.ids]])
            with torch.no_grad():
                logits = loaded.policy.causal_lm(ids).logits[0, len(prompt) - 1 : -1]
            views.append((logits / loaded.temperature).log_softmax(-1))
        slow_T = (views[0].exp() * (views[0] - views[1])).sum(-1)
        torch.testing.assert_close(arm.case.divergence_T, slow_T, atol=1e-4, rtol=1e-4)


def test_the_verdict_is_that_of_the_whole(
    seen: tuple[RunEngine, SpyingEngine, CheckpointVerdicts], loaded: LoadedRun
) -> None:
    _, spy, look = seen
    texts, answers = [], []
    for (arm, _), continuation in zip(look.judged, spy.calls[2][3], strict=True):
        rollout = arm.case.rollout
        ids = [*rollout.response.ids[: arm.position], *arm.sentence_ids, *continuation.ids]
        texts.append(loaded.tokenizer.decode(ids, skip_special_tokens=True))
        answers.append(rollout.problem.answer)
    with Verifier(workers=1) as verifier:
        slow = [grade.verdict for grade in verifier.grade(texts, answers)]
    assert [verdict for _, verdict in look.judged] == slow
    assert {Verdict.RIGHT, Verdict.WRONG} <= set(slow)


def test_rollouts_that_the_teacher_sees_nothing_for_are_counted(
    seen: tuple[RunEngine, SpyingEngine, CheckpointVerdicts],
) -> None:
    served, _, look = seen
    groups: dict[int, list[Verdict]] = {}
    for rollout in served.rollouts(held_out_problems(served.loaded, PROBLEMS), 8, 3):
        groups.setdefault(rollout.group, []).append(rollout.verdict)
    never_right = sum(Verdict.RIGHT not in verdicts for verdicts in groups.values())
    assert look.left_out.get("hard", 0) == 8 * never_right  # a correct peer is what it is shown
    assert look.left_out.get("easy", 0) == 0


def test_the_command_draws_over_checkpoints(
    script: ModuleType, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "reflection"
    script.main([str(run_folder), "--out", str(out), "--problems", "4", "--steps", "3", "0"])
    rows = read_csv(out.with_suffix(".csv"))
    assert [(row["step"], row["kind"], row["place"]) for row in rows] == [
        (step, kind, place)
        for step in ("0", "3")
        for kind in ("hard", "easy")
        for place in ("argmax", "random", "argmin")
    ]
    for row in rows:
        assert (row["problems"] == "0") == (row["rate"] == "")
    assert any(row["problems"] == "0" for row in rows)  # four problems do not fill both kinds twice
    assert "no such problem" in capsys.readouterr().out
    assert out.with_suffix(".svg").read_text().startswith("<?xml")
    assert out.with_suffix(".png").is_file()


def copied(run_folder: Path, folder: Path, **changes: object) -> Path:
    """The run folder again, with other settings, and only a link to its weights."""
    folder.mkdir()
    config = OmegaConf.load(run_folder / "config.yaml")
    for name, value in changes.items():
        OmegaConf.update(config, name, value, merge=False)
    OmegaConf.save(config, folder / "config.yaml")
    (folder / "export").symlink_to(run_folder / "export")
    return folder


def test_what_is_not_there_is_one_sentence(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    def said(folder: Path, *options: str) -> str:
        out = tmp_path / "reflection"
        with pytest.raises(UserError) as raised:
            script.main([str(folder), "--out", str(out), "--problems", "2", *options])
        assert not list(tmp_path.glob("reflection*"))
        return str(raised.value)

    assert "holds no config.yaml" in said(tmp_path / "nowhere")
    without = copied(run_folder, tmp_path / "without")
    (without / "export").unlink()
    assert "holds no checkpoints and no exports" in said(without)
    assert "--steps names 7" in said(run_folder, "--steps", "7")
    assert "--problems is 0" in said(run_folder, "--problems", "0")
    assert "--sentence is empty" in said(run_folder, "--sentence", "")
    assert "allow a shorter continuation" in said(run_folder, "--max-new-tokens", "5000")
    alone = copied(run_folder, tmp_path / "alone", context=None)
    (alone / "checkpoints").symlink_to(run_folder / "checkpoints")
    assert "name the context" in said(alone)
