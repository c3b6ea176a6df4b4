"""One policy's evaluation: its folder, its two views, the engine where something is missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlrt.assembly.console import say
from rlrt.assembly.plan import Plan
from rlrt.assembly.progress import Counted
from rlrt.assembly.resume import leaves
from rlrt.assembly.serving import Server
from rlrt.assembly.types import shown
from rlrt.batch import Rollout
from rlrt.engine.engine import Engine
from rlrt.errors import UserError
from rlrt.evaluation.answering import Interview
from rlrt.evaluation.folder import EvaluationFolder, changed
from rlrt.evaluation.judging import Judge
from rlrt.evaluation.paper import PaperRow, paper_row
from rlrt.evaluation.questions import STUDENT, TEACHER, Question, teacher_questions
from rlrt.evaluation.summary import EvaluatedModel
from rlrt.files import write_atomically


class Evaluation:
    """A plan with its questions and its folder. UserError where the folder holds something else."""

    def __init__(
        self, plan: Plan, folder: Path, questions: Sequence[Question], server: Server
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.questions = questions
        self.server = server
        self.files = EvaluationFolder(folder, plan.fingerprint, plan.judged_by)
        self.benchmarks = list(dict.fromkeys(question.benchmark for question in questions))
        _require_same(plan, folder)

    def run(self) -> EvaluatedModel:
        """All responses, from the records, the journal and the engine; the records are written."""
        plan = self.plan
        with plan.verifier:
            rollouts = self._answered(STUDENT, self.questions)
            self.files.write(STUDENT, rollouts, plan.tokenizer)
            teacher = None if plan.context is None else self._teacher(rollouts)
        self._write_config()
        self.files.finish(self.benchmarks)
        return EvaluatedModel(plan.stored.name, _paper_row(plan), rollouts, teacher)

    def _teacher(self, rollouts: Mapping[str, list[Rollout]]) -> dict[str, list[Rollout]]:
        """The teacher view's rollouts; the student's own where it has nothing more to see."""
        plan = self.plan
        assert plan.context is not None
        asked = teacher_questions(rollouts, plan.context, plan.prompts, plan.max_teacher_tokens)
        say(
            f"{plan.stored.name}: teacher view of {len(asked.questions)} responses, "
            f"{asked.shortened} with a shortened context; {asked.without} without one count as "
            "they are"
        )
        answered = self._answered(TEACHER, asked.questions)
        found = {(one.problem.id, one.sample, name): one for name, one in _each(answered)}
        teacher = {
            name: [found.get((one.problem.id, one.sample, name), one) for one in part]
            for name, part in rollouts.items()
        }
        self.files.write(TEACHER, teacher, plan.tokenizer)
        return teacher

    def _answered(self, view: str, questions: Sequence[Question]) -> dict[str, list[Rollout]]:
        plan, known = self.plan, self.files.known(view, self.benchmarks)
        if view == STUDENT:
            for benchmark, count in changed(questions, known).items():
                say(f"{benchmark}: {count} prompts are not what they were, and are asked again")
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
            return interview.answer(questions, known)

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
                "engine": self.plan.config.engine,
                "reward": self.plan.config.reward,
            }
        )
        write_atomically(
            self.folder / "config.yaml", lambda partial: OmegaConf.save(config, partial)
        )


def _each(rollouts: Mapping[str, list[Rollout]]) -> list[tuple[str, Rollout]]:
    return [(name, rollout) for name, part in rollouts.items() for rollout in part]


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
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} holds something that is no evaluation: choose another out=")
        return
    try:
        config = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__})") from error
    if not isinstance(config, DictConfig) or "fingerprint" not in config:
        raise UserError(f"{folder} holds something that is no evaluation: choose another out=")
    there, here = leaves(config), leaves(OmegaConf.create(plan.identity))
    for name in here:
        if there.get(name) != here[name]:
            raise UserError(
                f"{folder} holds an evaluation whose {name} is {shown(there.get(name))}, and here it "
                f"is {shown(here[name])}: choose another out="
            )
    if config["fingerprint"] != plan.fingerprint:
        raise UserError(f"{folder} holds an evaluation with other settings: choose another out=")
