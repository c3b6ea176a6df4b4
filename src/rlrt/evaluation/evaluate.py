"""An evaluation from its command to its tables: policies × benchmarks → records, tables, comparison."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from omegaconf import OmegaConf

from rlrt.batch import Problem, Response, Rollout
from rlrt.config.command_line import console, print_once, quiet_libraries
from rlrt.config.compose import flatten, load_yaml
from rlrt.config.problem_sets import read_benchmarks
from rlrt.errors import UserError
from rlrt.evaluation.arguments import Command
from rlrt.evaluation.folder import (
    EvaluationFolder,
    SavedResponse,
    changed_prompts,
    is_leftover,
    lock_folder,
    no_longer_asked,
)
from rlrt.evaluation.paper import PaperRow, paper_row
from rlrt.evaluation.plan import Plan, digest, make_plan
from rlrt.evaluation.questions import (
    STUDENT,
    TEACHER,
    Key,
    Question,
    require_prompts_fit,
    student_questions,
    teacher_questions,
)
from rlrt.evaluation.server import EngineServer, count_responses
from rlrt.evaluation.summary import EvaluatedModel, Summary, summarize
from rlrt.evaluation.tables import as_json, markdown, screen
from rlrt.files import write_atomically, write_text
from rlrt.reward.judge import Judge, JudgedResponse
from rlrt.training.evaluator import sample_and_judge
from rlrt.validation import spelled

ROOT = Path("logs") / "eval"
RESULTS = ("results.json", "results.md")
Slot = tuple[str, str, int]  # benchmark, id of the problem, number of the sample
Answers = dict[Key, tuple[Response, JudgedResponse]]


def evaluate(command: Command) -> None:
    """Ask every policy every question, write all folders, print the tables.

    What can be refused is refused before any weights are loaded.
    """
    _require_one_process()
    quiet_libraries()
    with ExitStack() as stack:
        if command.out is not None:
            stack.enter_context(lock_folder(command.out))
        plans = [
            # only the first policy's teacher view is asked
            make_plan(name, command, with_context=number == 0)
            for number, name in enumerate(command.models)
        ]
        _require_comparable(plans)
        benchmarks = read_benchmarks(command.benchmarks, command.benchmark_folder)
        _require_context(plans[0], benchmarks)
        folders = [_policy_folder(plan, command) for plan in plans]
        result_folder = (
            folders[0] if len(plans) == 1 else _comparison_folder(plans, benchmarks, command)
        )
        for folder in {*folders, result_folder} - {command.out}:
            stack.enter_context(lock_folder(folder))
        server = stack.enter_context(closing(EngineServer()))
        evaluations = [
            PolicyEvaluation(
                plan,
                folder,
                student_questions(benchmarks, plan.prompts, plan.sampling.samples),
                server,
            )
            for plan, folder in zip(plans, folders, strict=True)
        ]
        sizes = {name: len(problems) for name, problems in benchmarks.items()}
        summary = _run_all(evaluations, sizes, result_folder)
    for part in screen(summary, console.width):
        console.print(part)
    print_once(f"written to {result_folder}")


def _run_all(
    evaluations: Sequence["PolicyEvaluation"], sizes: Mapping[str, int], result_folder: Path
) -> Summary:
    """The summary of all policies, written to ``result_folder``; that of each goes to its folder."""
    for evaluation in evaluations:
        plan = evaluation.plan
        print_once(f"{plan.stored.name}: {plan.sampling}; folder: {evaluation.folder}")
    models = [evaluation.run() for evaluation in evaluations]
    seed = evaluations[0].plan.settings.seed
    for model, evaluation in zip(models, evaluations, strict=True):
        _write_results(summarize([model], seed, sizes), evaluation.folder)
    summary = summarize(models, seed, sizes)
    if len(models) > 1:
        _write_results(summary, result_folder)
    return summary


def _write_results(summary: Summary, folder: Path) -> None:
    as_text = json.dumps(as_json(summary), indent=2, ensure_ascii=False) + "\n"
    for name, text in zip(RESULTS, (as_text, markdown(summary)), strict=True):
        write_text(folder / name, text)


def _policy_folder(plan: Plan, command: Command) -> Path:
    if command.out is not None and len(command.models) == 1:
        return command.out
    name = f"{plan.stored.name.replace('/', '_')}-{plan.fingerprint}"
    return (command.out or ROOT) / name


def _comparison_folder(plans: Sequence[Plan], benchmarks: Iterable[str], command: Command) -> Path:
    """The folder for the results of several policies; UserError where it holds something else."""
    if command.out is None:
        identity = [[plan.fingerprint for plan in plans], sorted(benchmarks)]
        return ROOT / f"comparison-{digest(identity)}"
    if (command.out / "config.yaml").exists():
        raise UserError(
            f"{command.out} holds what one policy came to, which the comparison of several would "
            "overwrite: choose another out="
        )
    files = [path for path in command.out.iterdir() if path.is_file() and not is_leftover(path)]
    if any(path.name not in RESULTS for path in files):
        raise UserError(f"{command.out} holds something that is no evaluation: choose another out=")
    return command.out


def _require_one_process() -> None:
    if (count := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise UserError(
            f"WORLD_SIZE is {count}: an evaluation is one process, start it without torchrun"
        )


def _require_comparable(plans: Sequence[Plan]) -> None:
    """UserError where two policies have one name, or are asked differently often."""
    names = [plan.stored.name for plan in plans]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"model names {', '.join(doubled)} twice")
    for plan in plans[1:]:
        if plan.sampling.samples != plans[0].sampling.samples:
            raise UserError(
                f"{plans[0].stored.name} would be asked {plans[0].sampling.samples} times and "
                f"{plan.stored.name} {plan.sampling.samples} times: name one sampling= for all"
            )


def _require_context(plan: Plan, benchmarks: Mapping[str, Sequence[Problem]]) -> None:
    """UserError where the context shows what a benchmark does not have."""
    for need in sorted(plan.context.needs if plan.context is not None else ()):
        for name, problems in benchmarks.items():
            if all(getattr(problem, need) is None for problem in problems):
                raise UserError(
                    f"context shows the teacher a problem's {need}, and {name} has none: choose "
                    "another context"
                )


class PolicyEvaluation:
    """One policy's evaluation: its folder, its two views, the engine where responses are missing.

    ``all_questions`` are those of all problems of its benchmarks; asked are those of the first
    ``max_problems`` problems. The caller holds the lock of ``folder``. UserError where a prompt is too
    long, or the folder holds something else.
    """

    def __init__(
        self, plan: Plan, folder: Path, all_questions: Sequence[Question], server: EngineServer
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.all_questions = all_questions
        limit = plan.settings.max_problems
        self.questions = [q for q in all_questions if limit is None or q.group < limit]
        self.server = server
        self.files = EvaluationFolder(folder, plan.fingerprint, plan.judged_by)
        self.benchmarks = list(dict.fromkeys(question.benchmark for question in all_questions))
        require_prompts_fit(
            self.questions, plan.sampling.max_prompt_tokens, plan.shape.max_position_embeddings
        )
        _require_same_evaluation(plan, folder)
        for partial in folder.glob(".*.partial"):
            partial.unlink()

    def run(self) -> EvaluatedModel:
        """All responses asked for, from the records, the journal and the engine.

        The records are written with these and with everything that the folder held besides.
        """
        plan = self.plan
        with plan.verifier:
            saved = self.files.saved_responses(STUDENT, self.benchmarks)
            counts = changed_prompts(self.questions, self.all_questions, saved)
            for benchmark, count in counts.items():
                print_once(
                    f"{benchmark}: {count} prompts are not what they were, and are asked again"
                )
            kept = no_longer_asked(self.questions, self.all_questions, saved)
            answered = self._answer(STUDENT, self.questions, kept, saved)
            self.files.write(STUDENT, _by_benchmark(answered), plan.tokenizer)
            rollouts = _by_benchmark({q.slot: answered[q.slot] for q in self.questions})
            teacher = None if plan.context is None else self._teacher_view(rollouts, kept)
        self._write_config()
        written = [question.key for question in (*self.questions, *kept)]
        self.files.finish([*written, *(key._replace(view=TEACHER) for key in written)])
        return EvaluatedModel(plan.stored.name, _paper_row(plan), rollouts, teacher)

    def _teacher_view(
        self, rollouts: Mapping[str, Sequence[Rollout]], kept_student: Sequence[Question]
    ) -> dict[str, list[Rollout]]:
        """The teacher view's rollouts; the student's own where the teacher sees nothing more."""
        plan = self.plan
        assert plan.context is not None
        max_prompt_tokens = plan.spec.max_model_tokens - plan.sampling.max_response_tokens
        pairs = list(teacher_questions(rollouts, plan.context, plan.prompts, max_prompt_tokens))
        questions = [question for question, _ in pairs]
        without_context = sum(map(len, rollouts.values())) - len(pairs)
        print_once(
            f"{plan.stored.name}: the teacher view is asked {len(pairs)} questions, "
            f"{sum(shortened for _, shortened in pairs)} of them with a shortened context; for "
            f"{without_context} more it would see no more than the student, whose responses stand for it"
        )
        saved = self.files.saved_responses(TEACHER, self.benchmarks)
        kept_slots = {question.slot for question in kept_student}
        recorded = [x.question for x in saved.values() if x.question is not None]
        kept = [question for question in recorded if question.slot in kept_slots]
        answered = self._answer(TEACHER, questions, kept, saved)
        student = {
            (benchmark, rollout.problem.id, rollout.sample): rollout
            for benchmark, part in rollouts.items()
            for rollout in part
        }
        self.files.write(TEACHER, _by_benchmark(student | answered), plan.tokenizer)
        return _by_benchmark({slot: answered.get(slot, own) for slot, own in student.items()})

    def _answer(
        self,
        view: str,
        questions: Sequence[Question],
        kept: Sequence[Question],
        saved: Mapping[Key, SavedResponse],
    ) -> dict[Slot, Rollout]:
        """The rollouts of all these questions: saved responses are taken over, the rest is sampled.

        ``kept`` have saved responses, which are judged again where their verdict no longer holds.
        """
        name = self.plan.stored.name
        missing = [question for question in questions if question.key not in saved]
        if len(missing) < len(questions):
            standing = len(questions) - len(missing)
            print_once(f"{name}: {standing} responses stand, {len(missing)} to go")
        wanted = [*questions, *kept]
        answers = self._take_over(wanted, saved)
        if missing:
            answers |= self._sample(missing, f"{name}, {view} view")
        return {question.slot: question.rollout(*answers[question.key]) for question in wanted}

    def _take_over(
        self, questions: Sequence[Question], saved: Mapping[Key, SavedResponse]
    ) -> Answers:
        """The saved responses, judged again where their verdict no longer holds."""
        answers: Answers = {}
        unjudged = []
        for question in questions:
            if question.key not in saved:
                continue
            response = saved[question.key].response
            judged = saved[question.key].verdict_for(question.problem)
            if judged is None:
                unjudged.append((question, response))
            else:
                answers[question.key] = response, judged
        with self._judge().judging([q.problem.accepted_answers for q, _ in unjudged]) as judging:
            for index, (_, response) in enumerate(unjudged):
                judging.take(index, response)
            for (question, response), judged in zip(unjudged, judging.judged(), strict=True):
                answers[question.key] = response, judged
        return answers

    def _sample(self, questions: Sequence[Question], name: str) -> Answers:
        """Responses from the engine, each in the journal before it is judged."""
        plan = self.plan
        prompts = list(dict.fromkeys(question.prompt_ids for question in self.questions))
        engine = self.server.serve(plan, prompts)
        self._write_config()  # what is interrupted from here on can be continued
        with count_responses(name, len(questions)) as count, self.files.journal as journal:

            def keep(index: int, response: Response) -> None:
                journal.append(questions[index].key, response)
                count(response)

            pairs = sample_and_judge(
                engine,
                [question.prompt_ids for question in questions],
                [question.seed(plan.settings.seed) for question in questions],
                [question.problem.accepted_answers for question in questions],
                plan.sampling.for_engine,
                self._judge(),
                keep,
            )
        return {question.key: pair for question, pair in zip(questions, pairs, strict=True)}

    def _judge(self) -> Judge:
        return Judge(self.plan.tokenizer, self.plan.verifier)

    def _write_config(self) -> None:
        plan = self.plan
        config = OmegaConf.create(
            {
                "fingerprint": plan.fingerprint,
                "name": plan.stored.name,
                **plan.identity,
                "asked": {
                    "samples": plan.sampling.samples,
                    "max_problems": plan.settings.max_problems,
                },
                "engine": plan.config.engine,
                "reward": plan.config.reward,
            }
        )
        write_atomically(
            self.folder / "config.yaml", lambda partial: OmegaConf.save(config, partial)
        )


def _by_benchmark(rollouts: Mapping[Slot, Rollout]) -> dict[str, list[Rollout]]:
    grouped: dict[str, list[Rollout]] = {}
    for (benchmark, _, _), rollout in rollouts.items():
        grouped.setdefault(benchmark, []).append(rollout)
    return grouped


def _paper_row(plan: Plan) -> PaperRow | None:
    run = plan.stored.config
    if run is None and plan.prompts.student_thinking:
        return None  # the paper asked the models that it starts from with thinking off
    model = None if plan.model is None else str(plan.model.name)
    return paper_row(model, None if run is None else str(run.credit._target_))


def _require_same_evaluation(plan: Plan, folder: Path) -> None:
    """UserError where the folder holds another evaluation, or something else."""
    path = folder / "config.yaml"
    if not folder.is_dir() or all(map(is_leftover, folder.iterdir())):
        return
    config = load_yaml(path) if path.exists() else OmegaConf.create({})
    if "fingerprint" not in config:
        raise UserError(f"{folder} holds something that is no evaluation: choose another out=")
    before, now = flatten(config), flatten(OmegaConf.create(plan.identity))
    for name in now:
        if before.get(name) != now[name]:
            raise UserError(
                f"{folder} holds an evaluation whose {name} is {spelled(before.get(name))}, and here "
                f"it is {spelled(now[name])}: choose another out="
            )
    if config["fingerprint"] != plan.fingerprint:
        raise UserError(f"{folder} holds an evaluation with other settings: choose another out=")
