"""Questions answered: what stands in the folder is taken over, the rest is sampled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlrt.batch import Response, Rollout
from rlrt.engine.engine import Engine, Sampling
from rlrt.evaluation.asking import judge_again
from rlrt.evaluation.folder import EvaluationFolder, Known
from rlrt.evaluation.questions import Key, Question
from rlrt.reward.judge import Judge, JudgedResponse
from rlrt.training.evaluator import sample_and_judge

Answered = tuple[Response, JudgedResponse]
Told = Callable[[Response], None]


@dataclass(frozen=True)
class Interview:
    """How questions are answered. ``engine`` is called where something has to be sampled at all, and
    ``told`` of every response that is.
    """

    folder: EvaluationFolder
    judge: Judge
    sampling: Sampling
    seed: int
    engine: Callable[[], Engine]
    told: Told

    def answer(self, questions: Sequence[Question], known: Mapping[Key, Known]) -> list[Rollout]:
        """One rollout per question, in order."""
        found = self._taken_over(questions, known)
        missing = [question for question in questions if question.key not in found]
        if missing:
            found |= self._sampled(missing)
        return [question.rollout(*found[question.key]) for question in questions]

    def _taken_over(
        self, questions: Sequence[Question], known: Mapping[Key, Known]
    ) -> dict[Key, Answered]:
        """Responses that stand already, with their verdicts where those still hold."""
        there = [question for question in questions if question.key in known]
        said = {q.key: known[q.key].verdict_for(q.problem.answer) for q in there}
        due = [question for question in there if said[question.key] is None]
        if due:
            responses = [known[question.key].response for question in due]
            judged = judge_again(responses, [q.problem.answer for q in due], self.judge)
            said |= {question.key: new for question, new in zip(due, judged, strict=True)}
        return {key: (known[key].response, judged) for key, judged in said.items() if judged}

    def _sampled(self, questions: Sequence[Question]) -> dict[Key, Answered]:
        engine = self.engine()
        with self.folder.journal as journal:

            def keep(index: int, response: Response) -> None:
                journal.append(questions[index].key, response)
                self.told(response)

            answered = sample_and_judge(
                engine,
                [question.prompt_ids for question in questions],
                [question.seed(self.seed) for question in questions],
                [question.problem.answer for question in questions],
                self.sampling,
                self.judge,
                keep,
            )
        return {question.key: pair for question, pair in zip(questions, answered, strict=True)}
