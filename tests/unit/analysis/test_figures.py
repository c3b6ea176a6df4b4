"""What all figures share: names shown as they are, legends that fit, and a place to be written to."""

import math
import re
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from rlrt.analysis.figures import COLORS, legend_below, look, plain, require_place, save_figure
from rlrt.errors import UserError


def test_twenty_lines_look_different() -> None:
    looks = [tuple(look(number).values()) for number in range(20)]
    assert len(set(looks)) == 20
    dashes = [(dash, marker) for _, dash, marker in looks[: len(COLORS)]]
    assert len(set(dashes)) == len(COLORS)  # without color too


@pytest.mark.parametrize("name", ["a $x$ b", r"\$5 and $6", "$$", "_hidden", "100 %", ""])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    """Drawn like the same text that is no formula by matplotlib's own word for it."""
    sizes = []
    for text, settings in ((plain(name), {}), (name, {"parse_math": False})):
        figure = plt.figure()
        drawn = figure.text(0.5, 0.5, text, **settings)
        sizes.append(drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width)
        plt.close(figure)
    space = 5 if name.startswith("_") else 0  # pixels; in a legend such a name would hide
    assert sizes[0] == pytest.approx(sizes[1] + space, abs=1.5)
    assert not plain(name).startswith("_")


@pytest.mark.parametrize(("names", "letters"), [(5, 4), (15, 20), (6, 45), (1, 70)])
def test_a_legend_stays_within_the_figure_and_off_the_panels(names: int, letters: int) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    for axes in panels:
        label = "method n".ljust(letters, "o")[:letters]
        lines = [axes.plot([0, 1], label=label)[0] for _ in range(names)]
        axes.set_xlabel("k")
    legend_below(figure, lines)
    figure.canvas.draw()
    renderer = FigureCanvasAgg(figure).get_renderer()
    legend = figure.legends[0].get_window_extent(renderer)
    assert len(figure.legends[0].texts) == names
    assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1
    for axes in panels:
        box = axes.get_tightbbox(renderer)
        assert isinstance(box, Bbox)
        assert box.y0 >= legend.y1
        assert axes.bbox.height > 150  # pixels: still to be read
    plt.close(figure)


def test_paths_are_no_longer_than_they_need_to_be_and_drawn_where_they_were(tmp_path: Path) -> None:
    figure, axes = plt.subplots()
    axes.plot([math.sin(k) for k in range(100)], [math.cos(k) for k in range(100)], label="1.23456")
    axes.legend()
    svg, *_ = save_figure(figure, [{"k": 1}], tmp_path / "figure")
    drawn = svg.read_text(encoding="utf-8")
    assert "1.23456" in drawn  # no number of a text is touched
    numbers = re.findall(r"[-\d.]+", " ".join(re.findall(r' d="([^"]*)"', drawn)))
    assert len(numbers) > 200
    assert all(len(number.partition(".")[2]) <= 2 for number in numbers)
    assert max(map(float, numbers)) < 72 * 6.4 + 1


@pytest.mark.parametrize("out", ["new/deeper/figure", "figure.svg", "figure.of.it"])
def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path: Path, out: str) -> None:
    require_place(tmp_path / out, ".html")
    assert not list(tmp_path.iterdir())
    figure, _ = plt.subplots()
    for path in save_figure(figure, [{"k": 1}], tmp_path / out):
        assert path.is_file()
    require_place(tmp_path / out)  # again, over what is there


@pytest.mark.parametrize(
    "out", ["file/x", "file/deeper/x", "/proc/nope/x", ".", "..", "/", "x" * 300, "taken", "a\0b"]
)
def test_a_place_that_cannot_be_written_to_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("taken.svg").mkdir()
    with pytest.raises(UserError, match=r"^--out is ") as raised:
        require_place(Path(out))
    assert "\n" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "taken.svg"}
