import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from tests.browser import open_page
from tests.unit.analysis.trajectories import trajectory_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlrt.analysis.critical_positions import (
    LINE,
    LINE_WITH_TEXTS,
    Positions,
    Trajectory,
    compact,
    draw,
    heat_map_page,
    read_both,
    read_positions,
    rows,
    trajectory,
)
from rlrt.analysis.figures import save_figure
from rlrt.analysis.pages import save_page
from rlrt.batch import Problem, Response, Rollout, Verdict
from rlrt.model.fused_head import chunk_tokens, over_vocabulary
from rlrt.model.policy import Policy

MakePolicy = Callable[[torch.dtype], PreTrainedModel]


def logits(*probabilities: float) -> Tensor:
    """One row of logits, off by a constant."""
    return torch.tensor([probabilities], dtype=torch.float64).log() + 3


def test_the_bayesian_teacher_of_methods_10() -> None:
    student, teacher = logits(0.5, 0.3, 0.2), logits(0.5 * 0.9, 0.3 * 0.5, 0.2 * 0.1)
    expected = [-0.372675285285, 0.215111379617, 1.824549292051]
    for token, ratio in enumerate(expected):
        found = read_both(student, teacher, torch.tensor([token]))
        assert float(found["divergence_T"]) == pytest.approx(0.243105629652706, abs=1e-12)
        positions = Positions(**found)
        assert float(positions.log_ratio_T) == pytest.approx(ratio, abs=1e-12)


def test_candidates_worked_out_by_hand() -> None:
    """P_S - P_T is .3, .05, -.1, 0, -.25: of five ids four are shown on each side."""
    student = logits(0.4, 0.25, 0.1, 0.2, 0.05)
    teacher = logits(0.1, 0.2, 0.2, 0.2, 0.3)
    found = read_both(student, teacher, torch.tensor([3]))
    assert found["candidate_ids_TC"].tolist() == [[0, 1, 3, 2, 4, 2, 3, 1]]
    torch.testing.assert_close(
        found["candidate_student_TC"],
        torch.tensor([[0.4, 0.25, 0.2, 0.1, 0.05, 0.1, 0.2, 0.25]], dtype=torch.float64),
    )
    torch.testing.assert_close(
        found["candidate_teacher_TC"],
        torch.tensor([[0.1, 0.2, 0.2, 0.2, 0.3, 0.2, 0.2, 0.2]], dtype=torch.float64),
    )
    assert float(found["student_logprobs_T"]) == pytest.approx(math.log(0.2))


def test_candidates_are_among_the_first_hundred_of_either_view() -> None:
    """Ids 0 to 99 lead in the student's view by little, id 149 nowhere though it differs most."""
    student, teacher = torch.zeros(1, 300), torch.zeros(1, 300)
    student[0, :100] = torch.linspace(2, 1.5, 100)
    teacher[0, 200:] = torch.linspace(2, 1.5, 100)
    found = read_both(student, teacher, torch.tensor([0]))
    assert found["candidate_ids_TC"].tolist() == [[0, 1, 2, 3, 200, 201, 202, 203]]


def test_views_equal_a_slow_loop_over_all_logits(random_policy: MakePolicy) -> None:
    policy = random_policy(torch.float64)
    prompts, teacher_prompts = [[5, 6], [7]], [[5, 6, 9, 10, 11], [8, 7]]
    responses, temperature = [[20, 21, 22, 2], [30, 40]], 0.8
    found = read_positions(Policy(policy), prompts, teacher_prompts, responses, temperature, 9)
    for row, response in enumerate(responses):
        one = found[row]
        for t, token in enumerate(response):
            student, teacher = (
                _slow(policy, [*prompt, *response[:t]], temperature)
                for prompt in (prompts[row], teacher_prompts[row])
            )
            divergence = sum(
                p * (math.log(p) - math.log(q)) for p, q in zip(student, teacher, strict=True)
            )
            assert float(one.divergence_T[t]) == pytest.approx(divergence, abs=1e-10)
            ratio = math.log(student[token]) - math.log(teacher[token])
            assert float(one.log_ratio_T[t]) == pytest.approx(ratio, abs=1e-10)
            union = {
                i
                for view in (student, teacher)
                for i in sorted(range(len(view)), key=lambda i: -view[i])[:100]
            }
            leaning = sorted(union, key=lambda i: teacher[i] - student[i])
            assert one.candidate_ids_TC[t].tolist() == leaning[:4] + leaning[:-5:-1]
            for k, i in enumerate(one.candidate_ids_TC[t].tolist()):
                assert float(one.candidate_student_TC[t, k]) == pytest.approx(student[i])
                assert float(one.candidate_teacher_TC[t, k]) == pytest.approx(teacher[i])


def _slow(policy: PreTrainedModel, prefix: list[int], temperature: float) -> list[float]:
    with torch.no_grad():
        last = policy(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1]
    probabilities: list[float] = torch.softmax(last / temperature, -1).tolist()
    return probabilities


class Largest(TorchDispatchMode):
    """The most numbers that a tensor had which an operation made."""

    numbers = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **kwargs or {})
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.slow
def test_memory_does_not_grow_with_tokens_times_vocabulary() -> None:
    vocabulary = 151_936
    chunk = chunk_tokens("cpu", vocabulary)
    hidden, head = torch.randn(2 * chunk, 4), torch.randn(vocabulary, 4)
    for count in (chunk, 2 * chunk):
        views = (hidden[:count], head), (0.9 * hidden[:count], head)
        with Largest() as largest:
            found = over_vocabulary(*views, torch.zeros(count, dtype=torch.long), 1.0, read_both)
        assert largest.numbers == chunk * vocabulary
        assert sum(tensor.numel() for tensor in found.values()) == count * (3 + 3 * 8)


def test_critical_positions_are_the_largest_and_of_equals_the_first() -> None:
    one = trajectory_of("abcd", [0.5, 2.0, 0.5, 1.0])
    assert one.positions.critical(3) == [1, 3, 0]
    assert one.positions.critical(9) == [1, 3, 0, 2]


def record(ids: list[int], text: str) -> Rollout:
    return Rollout(
        Problem("id", "q", "a", "s"),
        0,
        0,
        (3,),
        Response(tuple(ids), (0.0,) * len(ids), False),
        text,
        Verdict.RIGHT,
        1.0,
        0.0,
    )


def test_a_trajectory_names_its_tokens_and_its_candidates(
    tiny: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = [*tokenizer("3+4=7\n\\boxed{7}", add_special_tokens=False)["input_ids"], 2]
    (positions,) = read_positions(Policy(tiny), [[5]], [[6]], [ids], 1.0, 100)
    rollout = record(ids, "3+4=7\n\\boxed{7}")
    told = {"step": 4, "advantage": None, "credit": None}
    one = trajectory(rollout, told, positions, tokenizer, top=2)
    assert "".join(one.texts) == tokenizer.decode(ids)
    assert list(one.candidates) == positions.critical(2)
    assert one.credit_T.isnan().all()
    for t, candidates in one.candidates.items():
        assert [c.id for c in candidates] == positions.candidate_ids_TC[t].tolist()
        assert [c.side for c in candidates] == ["explore"] * 4 + ["exploit"] * 4
        plain = [c for c in candidates if tokenizer.decode([c.id]).isalnum()]
        assert all(c.text == tokenizer.decode([c.id]) for c in plain)


def test_rows_hold_tokens_then_candidates_and_leave_out_what_is_not_there() -> None:
    found = rows([trajectory_of(["a", "b\n"], [1.0, 3.0], top=1)])
    tokens, candidates = found[:2], found[2:]
    assert [row["token"] for row in tokens] == ["a", "b↵"]
    assert [row["log_ratio"] for row in tokens] == pytest.approx([0.0, 2.0])
    assert [row["P_T"] for row in tokens] == pytest.approx([0.5, 0.5 * math.exp(-2)])
    assert [row["credit"] for row in tokens] == [2.0, None]
    assert [row["kind"] for row in candidates] == ["explore"] * 4 + ["exploit"] * 4
    assert {row["position"] for row in candidates} == {1}


def test_compact_texts_are_one_short_visible_line() -> None:
    assert compact(" a\nb\t") == "␣a↵b⇥"
    assert compact("\u202e\x00") == "\\u202e\\x00"
    assert compact("x" * 30, 5) == "xxxx…"


@pytest.mark.parametrize(
    ("count", "width"), [(1, LINE_WITH_TEXTS), (60, LINE_WITH_TEXTS), (900, LINE)]
)
def test_cells_show_the_divergence_and_bars_the_candidates(count: int, width: int) -> None:
    values = [0.001 * t for t in range(count)]
    figure = draw([trajectory_of(["$x"] * count, values)])
    cells, bars = figure.axes[:2]
    shown = cells.images[0].get_array()
    assert shown.shape == (-(-count // width), width)
    assert shown.ravel()[:count].tolist() == pytest.approx(values)
    assert [bar.get_width() for bar in bars.containers[0]] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4] * 2
    )
    assert [bar.get_width() for bar in bars.containers[1]] == [0.2] * 8
    assert bars.get_title().startswith(f"position {count - 1}, ")
    plt.close(figure)


def test_texts_that_are_no_formulas_are_written_as_they_are(tmp_path: Path) -> None:
    one = trajectory_of(["$\\frac", "\u202e", "\n"], [0.0, 1.0, 2.0], candidate="$a_")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        svg, *_ = save_figure(draw([one, one]), [{"a": 1}], tmp_path / "figure")
    assert "$\\frac" in svg.read_text(encoding="utf-8")


EVIL = [
    "</script><img src=x onerror=alert(1)>",
    "<b>bold</b>",
    "\"'`&amp;",
    "\u2028\u2029",
    "\ud800",
    "\x00\x07\x1b",
    "\u202eright to left",
    "עברית",
    "${alert(1)}{{ 7*7 }}<!--",
]


def page_of(folder: Path, *trajectories: Trajectory, about: str = "about") -> Path:
    return save_page(heat_map_page(trajectories, "Critical positions", about), folder / "page.html")


def tip_of(page: Any) -> dict[str, str]:
    """The tip's names and numbers, once it is there."""
    page.wait_for_selector("#tip:not([hidden])")
    names = page.locator("#tip dt").all_text_contents()
    return dict(zip(names, page.locator("#tip dd").all_text_contents(), strict=True))


def test_pointing_at_a_token_shows_its_numbers(tmp_path: Path) -> None:
    one = trajectory_of(["so", " it", "\n", "is"], [0.0, 3.0, 1.0, 0.5])
    other = trajectory_of(["another", "."], [1.25, 0.0], group=8, top=1)
    with open_page(page_of(tmp_path, one, other)) as page:
        tokens = page.locator(".block span")
        assert tokens.all_text_contents() == ["so", " it", "↵\n", "is", "another", "."]
        tokens.nth(1).hover()
        assert tip_of(page) == {
            "position": "1", "P_S": "0.500", "P_T": "0.068", "D̄": "3.000", "D̂": "2.000",
            "credit": "0.500",
        }  # fmt: skip
        assert page.text_content("#tip .word") == "␣it"
        found = page.locator("#tip .candidate").all_text_contents()
        assert len(found) == 8
        assert found[0] == "other␣explore␣00.1000.200"
        tokens.nth(3).hover()
        page.wait_for_function("document.querySelector('#tip dd').textContent === '3'")
        assert tip_of(page)["credit"] == "–"
        assert page.locator("#tip .candidate").count() == 0
        tokens.nth(4).hover()
        page.wait_for_function("document.querySelector('#tip .word').textContent === 'another'")
        assert tip_of(page)["D̄"] == "1.250"
        page.hover("h1")
        page.wait_for_selector("#tip", state="hidden")


def test_shades_follow_the_measure_and_its_sign(tmp_path: Path) -> None:
    one = trajectory_of(["a", "b", "c", "d"], [0.0, 1.0, 4.0, 0.0])
    with open_page(page_of(tmp_path, one)) as page:

        def shades() -> list[str]:
            found: list[str] = page.locator(".block span").evaluate_all(
                "spans => spans.map(span => span.style.background)"
            )
            return found

        warm, cold = "rgba(213, 94, 0, {})", "rgba(0, 114, 178, {})"
        assert shades() == ["", warm.format("0.38"), warm.format("0.75"), ""]
        page.check("input[value=ratio]")  # -1, 0, 3, -1
        assert shades() == [cold.format("0.43"), "", warm.format("0.75"), cold.format("0.43")]
        page.check("input[value=credit]")  # 1, -0.5, 1 around the advantage, none
        assert shades() == [warm.format("0.75"), cold.format("0.53"), warm.format("0.75"), ""]
        assert page.locator("#legend span").first.text_content() == "credit − advantage"


def test_all_is_reached_by_keyboard(tmp_path: Path) -> None:
    one = trajectory_of(list("abcdef"), [0.0, 1.0, 4.0, 0.0, 0.0, 3.0])
    with open_page(page_of(tmp_path, one)) as page:
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        assert tip_of(page)["position"] == "2", "the most critical one first"
        for key, position in [
            ("ArrowRight", 3), ("n", 5), ("n", 5), ("p", 2), ("ArrowLeft", 1), ("Home", 0),
            ("ArrowLeft", 0), ("End", 5),
        ]:  # fmt: skip
            page.keyboard.press(key)
            assert tip_of(page)["position"] == str(position), key
        box = page.locator(".tokens")
        active = box.get_attribute("aria-activedescendant")
        assert page.text_content(f"#{active}") == "f"
        page.keyboard.press("Escape")
        page.wait_for_selector("#tip", state="hidden")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # opens the table
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # its first button
        assert tip_of(page)["position"] == "2"


def test_the_strip_leads_to_its_tokens(tmp_path: Path) -> None:
    one = trajectory_of(["word "] * 1000, [0.0] * 900 + [5.0] * 100)
    with open_page(page_of(tmp_path, one)) as page:
        canvas = page.locator("canvas")
        width = canvas.bounding_box()["width"]
        row = "canvas => [...canvas.getContext('2d').getImageData(0, 5, canvas.width, 1).data]"
        opacity = canvas.evaluate(row)[3::4]
        unlit, lit = (opacity[int(len(opacity) * share)] for share in (0.5, 0.95))
        assert unlit == 0
        assert lit > 180
        canvas.click(position={"x": width * 0.95, "y": 5})
        assert int(tip_of(page)["position"]) == pytest.approx(950, abs=2)
        assert page.locator("#active").is_visible()


def test_untrusted_text_stays_text(tmp_path: Path) -> None:
    """In tokens, question, candidates and the sentence above: no markup, no script, no request."""
    one = trajectory_of(EVIL, [0.0, 3.0] + [1.0] * 7, "".join(EVIL), "".join(EVIL))
    with open_page(page_of(tmp_path, one, about="".join(EVIL))) as page:
        assert page.locator("img, b").count() == 0
        assert page.locator("script").count() == 2
        shown = page.locator(".block span").all_text_contents()
        assert shown[:3] == EVIL[:3]
        assert shown[7:] == EVIL[7:]
        page.click("summary")
        page.locator(".block span").nth(1).hover()
        tip_of(page)
        texts = page.evaluate("document.body.innerText")
        assert "\u202e" not in texts
        assert "\x07" not in texts


def test_markup_that_got_in_all_the_same_would_do_nothing(tmp_path: Path) -> None:
    path = page_of(tmp_path, trajectory_of(["a"], [1.0]))
    evil = (
        "<script>alert(1)</script><img src='https://example.invalid/a.png' onerror='alert(2)'>"
        "<a id='link' href='javascript:alert(3)'>press</a><base href='https://example.invalid'>"
    )
    path.write_text(path.read_text(encoding="utf-8").replace("<h1>", f"{evil}<h1>"), "utf-8")
    with pytest.raises(AssertionError) as noticed, open_page(path) as page:
        page.click("#link")
    said = str(noticed.value).splitlines()
    stopped = [line for line in said if "Content Security Policy" in line]
    assert len(stopped) == 5
    assert set(said) - set(stopped) == {"request: https://example.invalid/a.png"}  # asked, stopped


def test_a_response_of_20000_tokens(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = [" the", " of", "\n", "\n\n", "x", " = ", "<b>", " 12", ","]
    texts = [draw.choice(words) for _ in range(20_000)]
    one = trajectory_of(texts, [draw.expovariate(5) for _ in texts], top=40)
    path = page_of(tmp_path, one)
    assert path.stat().st_size < 800_000
    with open_page(path) as page:
        assert page.locator(".block span").count() == 20_000
        blocks = page.locator(".block")
        assert 20_000 / 600 <= blocks.count() <= 100
        seen = "token => token.checkVisibility({contentVisibilityAuto: true})"
        tokens = page.locator(".block span")
        assert tokens.first.evaluate(seen)
        assert not tokens.last.evaluate(seen), "blocks out of sight are not laid out"
        page.focus(".tokens")
        page.keyboard.press("End")
        assert tip_of(page)["position"] == "19999"
        assert page.locator("#active").is_visible()
