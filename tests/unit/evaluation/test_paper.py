from pathlib import Path
from pkgutil import resolve_name

import pytest
from tests.paths import ROOT

from rlrt.evaluation.paper import METHODS, MODELS, PAPER_BENCHMARKS, ROWS, PaperCell, paper_row


def test_every_cell_is_that_of_the_shared_notes(shared: Path) -> None:
    text = (shared / "methods.md").read_text(encoding="utf-8")
    table = text.split("### 9.1 Table 1")[1].split("\n\n")[0].splitlines()
    assert [word.strip().lower() for word in table[1].strip("|").split("|")][2:] == list(
        PAPER_BENCHMARKS
    )
    model, found = "", []
    for line in table[3:]:
        name, method, *cells = (word.strip() for word in line.strip("|").split("|"))
        model = name or model
        numbers = [
            tuple(round(float(number) / 100, 3) for number in cell.split("/")) for cell in cells
        ]
        found.append((model, method, dict(zip(PAPER_BENCHMARKS, numbers, strict=True))))
    ours = [
        (row.model, row.method, {name: (c.average, c.solved) for name, c in row.cells.items()})
        for row in ROWS
    ]
    assert len(found) == 14
    assert ours == found


@pytest.mark.parametrize(
    ("preset", "credit", "label", "aime24"),
    [
        ("qwen3_4b_base", None, "4B-Base start", (0.096, 0.333)),
        ("qwen3_8b_base", "rlrt.credit.rlsd.RLSD", "8B-Base RLSD", (0.173, 0.400)),
        ("qwen3_8b", None, "8B start (thinking off)", (0.252, 0.633)),
        ("qwen3_8b", "rlrt.credit.rlrt.RLRT", "8B RLRT", (0.706, 0.933)),
        ("qwen3_8b", "rlrt.credit.srpo.SRPO", "8B SRPO", (0.154, 0.267)),
        ("qwen3_8b", "rlrt.credit.sdpo.SDPO", "8B SDPO", (0.269, 0.633)),
        ("qwen3_4b_base", "rlrt.credit.grpo.GRPO", "4B-Base GRPO", (0.150, 0.400)),
    ],
)
def test_rows_are_found_by_preset_and_credit(
    preset: str, credit: str | None, label: str, aime24: tuple[float, float]
) -> None:
    row = paper_row(preset, credit)
    assert row is not None
    assert f"{row.model} {row.method}" == label
    assert row.cells["aime24"] == PaperCell(*aime24)


@pytest.mark.parametrize(
    ("preset", "credit"),
    [
        (None, None),
        ("tiny", None),
        ("qwen3_4b_base", "rlrt.credit.sdpo.SDPO"),  # not in the table
        ("qwen3_8b", "rlrt.credit.diver.DIVER"),
    ],
)
def test_what_the_paper_has_not_is_none(preset: str | None, credit: str | None) -> None:
    assert paper_row(preset, credit) is None


def test_credit_targets_are_classes_that_exist() -> None:
    assert all(resolve_name(target) for target in METHODS if target)
    presets = ROOT / "configs" / "model"
    assert all((presets / f"{name}.yaml").is_file() for name in MODELS)


def test_the_headline_is_the_mean_over_the_six() -> None:
    row = paper_row("qwen3_8b", "rlrt.credit.rlrt.RLRT")
    assert row is not None
    mean = row.mean(PAPER_BENCHMARKS)
    assert mean is not None
    assert mean.average == pytest.approx((70.6 + 62.9 + 65.0 + 43.2 + 95.5 + 94.9) / 600)
    assert row.mean(("aime24", "arithmetic")) is None
    assert mean.solved == pytest.approx((93.3 + 86.7 + 86.7 + 69.7 + 100 + 98.2) / 600)
