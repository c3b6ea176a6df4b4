"""The page of critical positions, in a real Chromium."""

import random
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.trajectories import trajectory_of
from tests.browser import open_page

from rlrt.analysis.critical_positions import Trajectory
from rlrt.analysis.heat_map import heat_map_page
from rlrt.analysis.html import save_page

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
