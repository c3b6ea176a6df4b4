"""scripts/report.py, run as a user runs it, and its page opened in a real Chromium."""

import csv
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.browser import open_page, screenshot_path
from tests.e2e.scripts.commands import load_script, read_csv
from tests.paths import ROOT
from tests.processes import run_command
from transformers import PreTrainedTokenizerBase

from rlrt.analysis.pages import visible
from rlrt.errors import UserError

SCRIPT = ROOT / "scripts" / "report.py"
NUMBERS = (
    "credit",
    "distillation",
    "engine_logprobs",
    "student_logprobs",
    "teacher_logprobs",
)
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    "</pre></title><svg onload=window.hacked=1>\"'`--><!--{{ 7*7 }}&lt;\u2028\u2029\u202eabc\x00\x1b€"
)
FOLDER = "<img src=x onerror=window.hacked=1>\"'&\u202e"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("report")


def copied(run_folder: Path, folder: Path, settings: dict[str, Any] | None = None) -> Path:
    """The run without its weights, with other settings."""
    ignored = shutil.ignore_patterns("checkpoints", "export")
    shutil.copytree(run_folder, folder, ignore=ignored)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | (settings or {})))
    return folder


@pytest.fixture
def pair(run_folder: Path, tmp_path: Path) -> list[Path]:
    """Two runs that differ in their method and seed; the second stopped after its second step."""
    settings = {"seed": 7, "credit": {"_target_": "rlrt.credit.grpo.GRPO", "standardize": True}}
    other = copied(run_folder, tmp_path / "other", settings)
    for name, rows in (("metrics.csv", 3), ("evaluation.csv", 2)):
        lines = (other / name).read_text().splitlines()[:rows]
        (other / name).write_text("\n".join(lines))
    return [run_folder, other]


def made(script: ModuleType, folders: list[Path], tmp_path: Path) -> Path:
    out = tmp_path / "report.html"
    script.main([*map(str, folders), "--out", str(out)])
    return out


def test_two_runs_in_one_page(script: ModuleType, pair: list[Path], tmp_path: Path) -> None:
    out = made(script, pair, tmp_path)
    with open_page(out) as page:
        assert page.locator("h1").inner_text() == "rlrt · grpo – 2 runs"
        cards = page.locator(".card").all_inner_texts()
        assert "rlrt, seed 0" in cards[0]
        assert "✓ ended" in cards[0]
        assert "grpo, seed 7" in cards[1]
        assert "… has not ended" in cards[1]
        assert "2 of 3 rollout steps" in cards[1]
        differing = page.locator("#differences table").first.inner_text()
        assert "rlrt.credit.rlrt.RLRT" in differing
        assert "rlrt.credit.grpo.GRPO" in differing
        assert "max_response_tokens" not in differing  # is the same in both
        against = page.locator("#differences details").first.inner_text()
        assert "train.py credit=rlrt model=tiny" in against
        assert page.locator("#learning figure path.line").count() >= 8
        page.screenshot(path=screenshot_path("report_pair.png", tmp_path))
    assert made(script, pair, tmp_path).read_bytes() == out.read_bytes()


def test_pointer_and_keys_read_values(script: ModuleType, pair: list[Path], tmp_path: Path) -> None:
    rewards = [float(row["reward/mean"]) for row in read_csv(pair[0] / "metrics.csv")]
    with open_page(made(script, pair, tmp_path)) as page:
        chart = page.locator("figure", has_text="Training reward").first.locator("svg[role=img]")
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        page.mouse.move(box["x"] + box["width"] - 14, box["y"] + 60)
        tip = page.locator("#tip")
        assert "Training reward · step 2" in tip.inner_text()
        assert f"{rewards[2]:.4g}" in tip.inner_text()
        assert "grpo" not in tip.inner_text()  # which has no such step
        page.mouse.move(1, 1)
        assert not tip.is_visible()
        chart.focus()
        page.keyboard.press("Home")
        assert "step 0" in tip.inner_text()
        assert "grpo, seed 7" in tip.inner_text()
        page.keyboard.press("ArrowRight")
        assert f"{rewards[1]:.4g}" in tip.inner_text()
        page.keyboard.press("Escape")
        assert not tip.is_visible()


def test_a_run_can_be_hidden(script: ModuleType, pair: list[Path], tmp_path: Path) -> None:
    with open_page(made(script, pair, tmp_path)) as page:
        figure = page.locator("figure", has_text="Training reward").first
        assert figure.locator("path.line").count() == 2
        button = page.locator("button.run").nth(1)
        button.click()
        assert button.get_attribute("aria-pressed") == "false"
        assert figure.locator("path.line").count() == 1
        assert page.locator(".sample:visible").count() < page.locator(".sample").count()
        button.click()
        assert figure.locator("path.line").count() == 2


def test_tokens_are_shaded_and_read(script: ModuleType, run_folder: Path, tmp_path: Path) -> None:
    with open_page(made(script, [run_folder], tmp_path)) as page:
        right = page.locator(".sample", has_text="✓ right").first
        token = right.locator(".t").first
        token.scroll_into_view_if_needed()
        assert "p" in (token.get_attribute("class") or "").split()  # credit above 0
        assert page.evaluate("getComputedStyle(document.querySelector('.t.p')).backgroundColor")
        token.hover()
        said = page.locator("#tip").inner_text()
        assert "token 1, id" in said
        assert "P student" in said
        assert "P teacher" in said
        assert "not read" not in said  # RLRT reads both views of this response
        page.locator("button[data-mode=teacher]").click()
        assert page.locator("button[aria-pressed=true][data-mode]").inner_text() == (
            "teacher − student"
        )
        right.locator(".tokens").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert "token 2, id" in page.locator("#tip").inner_text()


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_readable_on_a_phone_and_in_the_dark(
    script: ModuleType, pair: list[Path], tmp_path: Path, width: int, dark: bool
) -> None:
    with open_page(made(script, pair, tmp_path), width=width, dark=dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ink, paper = page.evaluate(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        light = [sum(int(part) for part in c[4:-1].split(",")) for c in (ink, paper)]
        assert (light[0] > light[1]) == dark
        assert abs(light[0] - light[1]) > 500  # of 765


def hostile(run_folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """The run with hostile text wherever a run folder holds text."""
    target = f"rlrt.credit.{HOSTILE.replace('.', '')}.X"
    settings = {"credit": {"_target_": target, HOSTILE: HOSTILE + "\ud800"}, "seed": HOSTILE}
    folder = copied(run_folder, tmp_path / FOLDER, settings | {"logger": {HOSTILE: [HOSTILE]}})
    for name in ("metrics.csv", "evaluation.csv"):
        with (folder / name).open(newline="") as file:
            head, *rows = csv.reader(file)
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([[*head, HOSTILE], *([*row, "nan"] for row in rows)])
    for path in (folder / "rollouts").iterdir():
        table = pq.read_table(path)
        ids = tokenizer.encode(HOSTILE, add_special_tokens=False)
        text = tokenizer.decode(ids)
        numbers = {name: [0.1 * i for i in range(len(ids))] for name in NUMBERS}
        rows = [
            row
            | dict.fromkeys(("problem_id", "source", "question", "answer", "feedback"), HOSTILE)
            | {"response": text, "response_ids": ids, "student_entropy": [], **numbers}
            for row in table.to_pylist()
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return folder


def test_hostile_text_stays_text(
    script: ModuleType, run_folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    folder = hostile(run_folder, tmp_path, tokenizer)
    out = made(script, [folder, run_folder], tmp_path)
    shown = visible(HOSTILE)
    with open_page(out) as page:
        for details in page.locator("details").all():
            details.evaluate("element => { element.open = true }")
        page.wait_for_timeout(300)
        for mode in page.locator("button[data-mode]").all():
            mode.click()
        page.locator(".t").first.hover()
        assert "distillation weight" in page.locator("#tip").inner_text()
        assert page.evaluate("window.hacked") is None
        assert page.locator("img, iframe, object, [onload], [onerror]").count() == 0
        assert page.locator("script").count() == 2  # the data and the page's own
        sample = page.locator(".sample").first
        assert sample.locator("pre").first.text_content() == shown
        assert sample.locator("pre").nth(1).text_content() == shown
        assert "<img src=x onerror=window.hacked=1>" in sample.locator(".tokens").text_content()
        assert "\\xe2\\x80\\xae" in sample.locator(".tokens").text_content().replace("\n", "")
        everything = page.locator("body").inner_text()
        assert everything.count("<img src=x onerror=window.hacked=1>") > 10
        assert "{{ 7*7 }}" in everything
        assert "\\ud800" in everything  # a setting with half a character
        for sign in "\u202e\u2028\x00\x1b":
            assert sign not in page.locator("body").text_content()
        assert page.locator(".card .folder").first.text_content() == visible(folder)


def test_without_scripts_the_values_stand_in_tables(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    html = made(script, [run_folder], tmp_path).read_text()
    static = html.split('<script type="application/json"')[0]
    rewards = [float(row["reward/mean"]) for row in read_csv(run_folder / "metrics.csv")]
    assert f'<td class="number">{rewards[-1]:.4g}</td>' in static
    record = pq.read_table(run_folder / "rollouts" / "step=000002.parquet").to_pylist()
    assert any(row["question"] in static for row in record)


def test_without_a_tokenizer_the_text_is_shown(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    settings = {"model": config["model"] | {"path": str(tmp_path / "nowhere")}}
    folder = copied(run_folder, tmp_path / "moved", settings)
    with open_page(made(script, [folder], tmp_path)) as page:
        sample = page.locator(".sample").first
        assert "Without the run's tokenizer" in sample.inner_text()
        assert sample.locator(".t").count() == 0
        assert sample.locator(".tokens").inner_text().strip()
        assert not page.locator(".shading").is_visible()


def test_a_run_without_anything_but_its_settings(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    folder = copied(run_folder, tmp_path / "begun")
    shutil.rmtree(folder / "rollouts")
    for name in ("metrics.csv", "evaluation.csv"):
        (folder / name).unlink()
    with open_page(made(script, [folder], tmp_path)) as page:
        text = page.locator("body").inner_text()
        assert "metrics.csv is not there" in text
        assert "there are no records of rollouts" in text
        assert "There are no numbers to draw" in text


def test_no_run_folder_is_one_sentence_and_nothing_is_written(
    run_folder: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "nowhere", tmp_path / "report.html"
    done = run_command(str(SCRIPT), str(run_folder), str(folder), "--out", str(out))
    assert done.returncode == 2
    assert done.stderr == f"error: {folder} is no run folder: no such folder exists\n"
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_of_the_page_is_made(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    assert made(script, [run_folder], tmp_path / "new" / "newer").is_file()


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("report.pdf", r"it must be an \.html file"),
        ("folder.html", r"it must be an \.html file"),
        ("file/report.html", "nothing can be written in .*file"),
        ("file/below/report.html", "nothing can be written in .*file"),
        ("locked/below/report.html", "nothing can be written in .*locked"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_any_work(
    script: ModuleType, tmp_path: Path, out: str, why: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    if out.startswith("locked") and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(UserError, match=f"--out is .*{why}"):
        script.main([str(tmp_path / "no run"), "--out", str(tmp_path / out)])


def test_help_says_where_the_page_goes(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "(default: report.html, in the current folder)" in told


def test_settings_of_many_runs_stand_once_per_method_and_move_in_their_own_box(
    script: ModuleType, run_folder: Path, tmp_path: Path
) -> None:
    folders = []
    for number, method in enumerate(("grpo", "rlsd", "rlrt", "teacher_favoring", "rlrt_all")):
        for seed in range(3):
            credit = {"_target_": f"rlrt.credit.{method}.X", "mixing": number / 10}
            # a long word without a place to break
            settings = {"seed": seed, "credit": credit | {"word": f"{method}_" * 3}}
            folders.append(copied(run_folder, tmp_path / f"{method}_{seed}", settings))
            shutil.rmtree(folders[-1] / "rollouts")
    with open_page(made(script, folders, tmp_path), width=700) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        box = page.locator("#differences .wide").first
        assert box.locator("thead th").count() == 6  # setting, and five methods
        assert box.locator("thead th").nth(4).inner_text().strip() == "teacher_favoring"
        rows = {
            row.locator("th").inner_text(): [
                cell.split() for cell in row.locator("td").all_inner_texts()
            ]
            for row in box.locator("tbody tr").all()
        }
        assert rows["credit.mixing"] == [["0.0"], ["0.1"], ["0.2"], ["0.3"], ["0.4"]]
        assert rows["seed"] == [["0", "1", "2"]] * 5
        assert box.evaluate("e => e.scrollWidth > e.clientWidth")
        broken = """e => [...e.querySelectorAll('th, td bdi')].filter(c => {
            const range = document.createRange(); range.selectNodeContents(c)
            const tops = [...range.getClientRects()].filter(r => r.width > 40).map(r => r.top)
            return !/\\s/.test(c.textContent.trim()) && Math.max(...tops) - Math.min(...tops) > 10
        }).map(c => c.textContent)"""
        assert box.evaluate(broken) == []
        box.evaluate("e => { e.scrollLeft = e.scrollWidth }")
        assert box.locator("tbody th").first.bounding_box()["x"] >= 0  # the names stay
        page.screenshot(path=screenshot_path("report_many.png", tmp_path))
