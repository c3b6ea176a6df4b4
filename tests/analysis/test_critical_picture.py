import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from tests.analysis.trajectories import trajectory_of

from rlrt.analysis.critical_picture import LINE, LINE_WITH_TEXTS, draw
from rlrt.analysis.figures import save_figure


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
