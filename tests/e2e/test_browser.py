"""The harness notices what a page must not do."""

from pathlib import Path

import pytest
from tests.browser import open_page


def page_of(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "a page.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><title>t</title>{body}')
    return path


def test_a_quiet_page_can_be_used(tmp_path: Path) -> None:
    body = "<button onclick=\"this.textContent='pressed'\">press</button><img src='data:,'>"
    with open_page(page_of(tmp_path, body), dark=True) as page:
        page.click("button")
        assert page.text_content("button") == "pressed"
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<img src='https://example.invalid/x.png'>", "request: https://example.invalid/x.png"),
        ("<img src='beside.png'>", "request: file://.*beside.png"),
        ("<script>alert('hello')</script>", "alert: hello"),
        ("<script>throw new Error('broken')</script>", "uncaught: broken"),
        ("<script>console.error('odd')</script>", "console error: odd"),
        ("<script>open('about:blank')</script>", "another page: about:blank"),
    ],
)
def test_what_a_page_must_not_do_is_noticed(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said), open_page(page_of(tmp_path, body)) as page:
        page.wait_for_timeout(200)


def test_a_browser_that_is_named_and_not_there_is_no_reason_to_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLRT_CHROMIUM", str(tmp_path / "nowhere"))
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        open_page(page_of(tmp_path, "")).__enter__()


def test_without_a_browser_tests_skip_unless_it_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLRT_CHROMIUM", raising=False)
    monkeypatch.delenv("RLRT_REQUIRE_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        open_page(page_of(tmp_path, "")).__enter__()
    monkeypatch.setenv("RLRT_REQUIRE_CHROMIUM", "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        open_page(page_of(tmp_path, "")).__enter__()
