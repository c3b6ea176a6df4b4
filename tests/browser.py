"""A page in a real Chromium, headless and without a network.

``RLRT_CHROMIUM=/path/to/chromium`` names the browser; otherwise one is looked for in PATH. Tests skip
where there is none, unless ``RLRT_REQUIRE_CHROMIUM`` is set. ``RLRT_SCREENSHOTS=docs/figures`` keeps
the screenshots.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # containers have no user namespaces
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The browser's path; skips the test where there is none, fails it where there has to be one."""
    named = os.environ.get("RLRT_CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        why = f"no Chromium: {named or ', '.join(NAMES)} not found"
        if named or os.environ.get("RLRT_REQUIRE_CHROMIUM"):
            pytest.fail(why)
        pytest.skip(why)
    return found


@contextmanager
def open_page(
    path: Path, width: int = 1200, height: int = 800, dark: bool = False
) -> Iterator[Any]:
    """A ``playwright.sync_api.Page`` that shows the file, by file://.

    At the end of the block the test fails if the page asked for anything but itself, opened a
    dialog or another page, or complained in the console (an uncaught error, what its
    Content-Security-Policy stopped). A browser for each: nothing of one page reaches the next.
    """
    from playwright.sync_api import sync_playwright

    address, noticed = path.resolve().as_uri(), []

    def on_request(request: Any) -> None:
        if request.url.split("#")[0] != address and not request.url.startswith("data:"):
            noticed.append(f"request: {request.url}")

    def on_dialog(dialog: Any) -> None:
        noticed.append(f"{dialog.type}: {dialog.message}")
        dialog.dismiss()

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            noticed.append(f"console {message.type}: {message.text}")

    where = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where, args=FLAGS)
        context = browser.new_context(
            offline=True,
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        page = context.new_page()
        context.on("page", lambda other: noticed.append(f"another page: {other.url}"))
        context.on("request", on_request)
        page.on("dialog", on_dialog)
        page.on("console", on_console)
        page.on("pageerror", lambda error: noticed.append(f"uncaught: {error}"))
        page.on("download", lambda file: noticed.append(f"download: {file.url}"))
        try:
            page.goto(address)
            yield page
        finally:
            browser.close()
    assert not noticed, "\n".join(noticed)


def screenshot_path(name: str, tmp_path: Path) -> Path:
    """Where a test puts a screenshot: beside the docs when they are to be drawn anew."""
    return Path(os.environ.get("RLRT_SCREENSHOTS", tmp_path)) / name
