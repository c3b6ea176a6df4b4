"""One policy's evaluation: its folder, its two views, the engine where something is missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from rlrt.batch import Rollout
from rlrt.config.commands import say
from rlrt.config.compose import leaves, load_yaml
from rlrt.engine.engine import Engine
from rlrt.errors import UserError
from rlrt.evaluation.answering import Interview
from rlrt.evaluation.folder import EvaluationFolder, Known, beyond, changed
from rlrt.evaluation.lock import leftover
from rlrt.evaluation.paper import PaperRow, paper_row
from rlrt.evaluation.plan import Plan
from rlrt.evaluation.progress import Counted
from rlrt.evaluation.questions import (
    STUDENT,
    TEACHER,
    Key,
    Question,
    require_room,
    teacher_questions,
)
from rlrt.evaluation.server import Server
from rlrt.evaluation.summary import EvaluatedModel
from rlrt.files import write_atomically
from rlrt.reward.judge import Judge
from rlrt.validation import spelled

Where = tuple[str, str, int]  # benchmark, id of the problem, number of the sample


class PolicyEvaluation:
    """A plan with ``everything`` that its benchmarks could ask, its folder, which is the caller's alone,
    and what of it is asked now: the first ``max_problems`` problems.

    UserError where a prompt is too long, or the folder holds something else.
    """

    def __init__(
        self, plan: Plan, folder: Path, everything: Sequence[Question], server: Server
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.everything = everything
        limit = plan.settings.max_problems
        self.questions = [one for one in everything if limit is None or one.group < limit]
        self.server = server
        self.files = EvaluationFolder(folder, plan.fingerprint, plan.judged_by)
        self.benchmarks = list(dict.fromkeys(question.benchmark for question in everything))
        require_room(
            self.questions, plan.sampling.max_prompt_tokens, plan.shape.max_position_embeddings
        )
        _require_same(plan, folder)
        for partial in folder.glob(".*.partial"):
            partial.unlink()

    def run(self) -> EvaluatedModel:
        """All responses asked for, from the records, the journal and the engine.

        Records are written of these and of all that the folder held beside them.
        """
        plan = self.plan
        with plan.verifier:
            known = self.files.known(STUDENT, self.benchmarks)
            for benchmark, count in changed(self.questions, self.everything, known).items():
                say(f"{benchmark}: {count} prompts are not what they were, and are asked again")
            kept = beyond(self.questions, self.everything, known)
            answered = self._answered(STUDENT, self.questions, kept, known)
            self.files.write(STUDENT, _by_benchmark(answered), plan.tokenizer)
            asked = map(_where, self.questions)
            rollouts = _by_benchmark({where: answered[where] for where in asked})
            teacher = None if plan.context is None else self._teacher(rollouts, kept)
        self._write_config()
        written = [question.key for question in (*self.questions, *kept)]
        self.files.finish([*written, *(key._replace(view=TEACHER) for key in written)])
        return EvaluatedModel(plan.stored.name, _paper_row(plan), rollouts, teacher)

    def _teacher(
        self, rollouts: Mapping[str, Sequence[Rollout]], kept_beside: Sequence[Question]
    ) -> dict[str, list[Rollout]]:
        """The teacher view's rollouts; the student's own where it has nothing more to see."""
        plan = self.plan
        assert plan.context is not None
        asked = teacher_questions(rollouts, plan.context, plan.prompts, plan.max_teacher_tokens)
        say(
            f"{plan.stored.name}: the teacher view is asked {len(asked.questions)} questions, "
            f"{asked.shortened} of them with a shortened context; for {asked.without} more it would "
            "see no more than the student, whose responses stand for it"
        )
        known = self.files.known(TEACHER, self.benchmarks)
        places = {_where(question) for question in kept_beside}
        recorded = [one.question for one in known.values() if one.question is not None]
        kept = [question for question in recorded if _where(question) in places]
        answered = self._answered(TEACHER, asked.questions, kept, known)
        own = {
            (name, one.problem.id, one.sample): one
            for name, part in rollouts.items()
            for one in part
        }
        self.files.write(TEACHER, _by_benchmark(own | answered), plan.tokenizer)
        return _by_benchmark({where: answered.get(where, one) for where, one in own.items()})

    def _answered(
        self,
        view: str,
        questions: Sequence[Question],
        kept: Sequence[Question],
        known: Mapping[Key, Known],
    ) -> dict[Where, Rollout]:
        """What answers the questions; ``kept`` are judged again where that is due."""
        plan = self.plan
        missing = sum(question.key not in known for question in questions)
        if missing < len(questions):
            say(f"{plan.stored.name}: {len(questions) - missing} responses stand, {missing} to go")
        counted = Counted(f"{plan.stored.name}, {view} view", missing)
        interview = Interview(
            self.files,
            Judge(plan.tokenizer, plan.verifier),
            plan.sampling.drawn,
            plan.settings.seed,
            lambda: self._engine(counted),
            counted.one,
        )
        with counted:
            all_questions = [*questions, *kept]
            rollouts = interview.answer(all_questions, known)
        return dict(zip(map(_where, all_questions), rollouts, strict=True))

    def _engine(self, counted: Counted) -> Engine:
        prompts = list(dict.fromkeys(question.prompt_ids for question in self.questions))
        engine = self.server.serve(self.plan, prompts)
        self._write_config()
        counted.begin()
        return engine

    def _write_config(self) -> None:
        config = OmegaConf.create(
            {
                "fingerprint": self.plan.fingerprint,
                "name": self.plan.stored.name,
                **self.plan.identity,
                "asked": {
                    "samples": self.plan.sampling.samples,
                    "max_problems": self.plan.settings.max_problems,
                },
                "engine": self.plan.config.engine,
                "reward": self.plan.config.reward,
            }
        )
        write_atomically(
            self.folder / "config.yaml", lambda partial: OmegaConf.save(config, partial)
        )


def _where(question: Question) -> Where:
    return question.benchmark, question.problem.id, question.sample


def _by_benchmark(rollouts: Mapping[Where, Rollout]) -> dict[str, list[Rollout]]:
    found: dict[str, list[Rollout]] = {}
    for (benchmark, _, _), rollout in rollouts.items():
        found.setdefault(benchmark, []).append(rollout)
    return found


def _paper_row(plan: Plan) -> PaperRow | None:
    run = plan.stored.config
    if run is None and plan.prompts.student_thinking:
        return None  # the paper asked the models that it starts from with thinking off
    model = None if plan.model is None else str(plan.model.name)
    return paper_row(model, None if run is None else str(run.credit._target_))


def _require_same(plan: Plan, folder: Path) -> None:
    """UserError where the folder holds another evaluation, or something else."""
    path = folder / "config.yaml"
    if not path.exists():
        if folder.is_dir() and any(not leftover(one) for one in folder.iterdir()):
            raise UserError(f"{folder} holds something that is no evaluation: choose another out=")
        return
    config = load_yaml(path)
    if "fingerprint" not in config:
        raise UserError(f"{folder} holds something that is no evaluation: choose another out=")
    there, here = leaves(config), leaves(OmegaConf.create(plan.identity))
    for name in here:
        if there.get(name) != here[name]:
            raise UserError(
                f"{folder} holds an evaluation whose {name} is {spelled(there.get(name))}, and here it "
                f"is {spelled(here[name])}: choose another out="
            )
    if config["fingerprint"] != plan.fingerprint:
        raise UserError(f"{folder} holds an evaluation with other settings: choose another out=")
