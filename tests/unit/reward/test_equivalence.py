"""Which answers are the same. Everything here is harmless: hostile answers go to the verifier."""

import subprocess
import sys

import pytest

from rlrt.reward.equivalence import is_equivalent, is_exact_match

EQUAL = [
    ("34", "34"),
    (r"\text{34}", "34"),
    (r"\sqrt{2}", r"\sqrt{2}"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    ("(1, 2)", "(1,2)"),
    ("{-2}", "-2"),
    (r"\{1, 2\}", r"\{2, 1\}"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", "1/2"),
    ("x = 3", "3"),
    ("3", "x=3"),
    ("1 + x", "x+1"),
    ("1,234", "1234"),
    ("1 234", "1234"),
    (r"34,\!500", "34500"),
    (r"45^\circ", "45"),
    (r"28\%", "28"),
    ("28 percent", r"28\%"),
    (r"\$36", "36.00"),
    (r"12 \text{ cm}^2", "12"),
    (r"$\frac{1}{2}$", r"\(\frac{1}{2}\)"),
    ("025", "25"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"(-\infty, 1]", r"\left(-\infty, 1\right]"),
    (r"\boxed{42}", "42"),
    (r"k_{\mathrm{B}} T", "k_B T"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
]
DIFFERENT = [
    ("2", r"2\sqrt{2}"),
    (r"2\sqrt{2}", "2"),
    (r"\sqrt{2}", r"\sqrt{3}"),
    (r"\text{34}", "35"),
    ("(1, 2)", "(2, 1)"),
    ("{-2}", "2"),
    (r"28\%", "0.28"),
    ("3 or 4", "3"),  # hedging is not an answer
    ("42, 43", "42"),
    (r"\notacommand{7} 34", "34"),  # no number is fished out of a formula that does not parse
    ("odd", r"\text{oddd}"),
    ("", ""),
    ("", "4"),
]


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal(answer: str, gold: str) -> None:
    assert is_equivalent(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_different(answer: str, gold: str) -> None:
    assert not is_equivalent(answer, gold)


@pytest.mark.parametrize(
    ("text", "gold", "equal"),
    [
        ("The answer is 4", "4", True),
        ("The answer is 5", "4", False),
        ("A: 26", "26", True),
        ("The angle is [90].", "90", True),
        ("x+1", "1+x", True),  # a formula on its own is the answer
        ("(1, 2)", "(1, 2)", True),
        (r"so $\sqrt{4} = 2$", "2", True),
    ],
)
def test_free_text_is_searched(text: str, gold: str, equal: bool) -> None:
    assert is_equivalent(text, gold, free_text=True) is equal


def test_exact_match_is_textual() -> None:
    assert is_exact_match(" $x+1$ ", "x+1")
    assert not is_exact_match("1+x", "x+1")


def test_a_worker_imports_no_torch() -> None:
    code = (
        "import sys, rlrt.reward.workers as w; w.is_equivalent('1', '2');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
