"""Markers of exploring and of exploiting: tokens that the student or the teacher view favors most.

arXiv:2605.10781, Fig. 3 and App. D. ``D̂_t(v) = log P_S(v) - log P_T(v)`` over the whole vocabulary; its
largest v at every position of a trajectory goes into the explore corpus, its smallest into the exploit
corpus. A volcano plot and bars show both.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor

from rlrt.analysis import read_data
from rlrt.analysis.figures import COLORS, tidy
from rlrt.batch import Ids, Rollout, Verdict
from rlrt.model.policy import Policy, compare

CATEGORIES: dict[str, list[str]] = read_data("marker_categories")
OTHER = "other"


def category(word: str) -> str:
    """The group of a lower-case word, ``OTHER`` where the list has none for it."""
    return next((name for name, words in CATEGORIES.items() if word in words), OTHER)


ALPHA = 0.5  # added to every count
WORD = re.compile(r"[a-z]{3,15}")


@dataclass(frozen=True)
class View:
    """A trajectory, and the prompt of its teacher view. Ids of problems are their ``benchmark``'s own."""

    rollout: Rollout
    teacher_prompt: Ids
    benchmark: str = ""  # empty for a run, whose steps ask the same problems again


@dataclass(frozen=True)
class Corpora:
    """How often each text, or each id, is favored most by the student's view, and by the teacher's."""

    explore: Counter[Any]
    exploit: Counter[Any]


@dataclass(frozen=True)
class Scored:
    """A token that is frequent enough: its counts in both corpora, what they say, and its role."""

    token: str
    explore: int
    exploit: int
    log_odds: float  # nats, above 0 where exploring
    z: float
    role: Literal["explore", "exploit", ""]  # of a marker; empty for what is none
    stop_word: bool
    category: str


def one_pair_per_problem(views: Iterable[View]) -> list[View]:
    """The first correct and the first incorrect trajectory of every problem that has both.

    In the order of problems, the correct one first. Undecided and empty responses are neither.
    """
    by_problem: dict[tuple[str, str], dict[Verdict, View]] = {}
    for view in views:
        rollout = view.rollout
        if len(rollout.response.ids) and rollout.verdict is not Verdict.UNDECIDED:
            problem = view.benchmark, rollout.problem.id
            by_problem.setdefault(problem, {}).setdefault(rollout.verdict, view)
    return [
        pair[verdict]
        for pair in by_problem.values()
        if len(pair) == 2
        for verdict in (Verdict.RIGHT, Verdict.WRONG)
    ]


def extremes(student_nV: Tensor, teacher_nV: Tensor, ids_n: Tensor) -> dict[str, Tensor]:
    """The ids ``argmax D̂`` ("explore") and ``argmin D̂`` ("exploit") of each position, from logits.

    The logits' difference has them where D̂ has: the views' normalizers are constant over the ids. An
    id that is impossible in both views has no D̂ and is neither.
    """
    asymmetry_nV = student_nV - teacher_nV
    undefined_nV = asymmetry_nV.isnan()
    return {
        "explore": asymmetry_nV.masked_fill(undefined_nV, -torch.inf).argmax(-1),
        "exploit": asymmetry_nV.masked_fill(undefined_nV, torch.inf).argmin(-1),
    }


def read_corpora(
    policy: Policy, views: Sequence[View], temperature: float, token_budget: int
) -> Corpora:
    """The two corpora of ids, one position of a trajectory giving one id to each.

    One policy reads both views. Its logits exist for a chunk of tokens at a time.
    """
    read = compare(
        policy,
        policy,
        [view.rollout.prompt_ids for view in views],
        [view.teacher_prompt for view in views],
        [view.rollout.response.ids for view in views],
        temperature,
        token_budget,
        extremes,
    )
    explore, exploit = (
        Counter(chosen for values in read for chosen in values[name].tolist())
        for name in ("explore", "exploit")
    )
    return Corpora(explore, exploit)


def as_texts(corpora: Corpora, text_of: Callable[[int], str | None]) -> Corpora:
    """The corpora over texts: ids of the same text are one; those without a text are left out."""
    texts = {i: text_of(i) for i in sorted({*corpora.explore, *corpora.exploit})}

    def merged(counts: Counter[int]) -> Counter[str]:
        total: Counter[str] = Counter()
        for i, count in counts.items():
            if (text := texts[i]) is not None:
                total[text] += count
        return total

    return Corpora(merged(corpora.explore), merged(corpora.exploit))


def word(text: str) -> str | None:
    """A decoded token as a word: 3 to 15 ASCII letters between white space, in lower case; else None.

    So ``" Wait"`` and ``"wait"`` are one word. Lower case and merging are this project's choice; stop words
    are listed in lower case.
    """
    lowered = text.strip().lower() if text.isascii() else ""
    return lowered if WORD.fullmatch(lowered) else None


def log_odds(
    e: ArrayLike, explore_total: float, x: ArrayLike, exploit_total: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """δ in nats and z of counts e of E and x of X (App. D), elementwise.

    ``δ = log((e+α)/(E-e+α)) - log((x+α)/(X-x+α))`` and ``z = δ / √(1/(e+α) + 1/(x+α))``, α = 0.5.
    """
    e_N, x_N = np.asarray(e, np.float64) + ALPHA, np.asarray(x, np.float64) + ALPHA
    odds_e_N = e_N / (explore_total + 2 * ALPHA - e_N)
    odds_x_N = x_N / (exploit_total + 2 * ALPHA - x_N)
    delta_N = np.log(odds_e_N) - np.log(odds_x_N)
    return delta_N, delta_N / np.sqrt(1 / e_N + 1 / x_N)


def score(corpora: Corpora, min_count: int, min_z: float) -> list[Scored]:
    """Every text that both corpora together hold ``min_count`` times or more, from largest to smallest z.

    Markers are those of ``|z| >= min_z`` that are no English stop word. E and X are the sizes of the
    corpora as given, rare texts and stop words included (this project's choice): where one corpus has
    fewer words, the same count in both speaks for that one.
    """
    explore, exploit = corpora.explore, corpora.exploit
    texts = sorted(t for t in {*explore, *exploit} if explore[t] + exploit[t] >= min_count)
    e, x = [explore[t] for t in texts], [exploit[t] for t in texts]
    delta_N, z_N = log_odds(e, explore.total(), x, exploit.total())
    rows = []
    for text, delta, z in zip(texts, delta_N.tolist(), z_N.tolist(), strict=True):
        stop_word = text in ENGLISH_STOP_WORDS
        role: Literal["explore", "exploit", ""] = "explore" if z > 0 else "exploit"
        if stop_word or abs(z) < min_z:
            role = ""
        counts = explore[text], exploit[text]
        rows.append(Scored(text, *counts, delta, z, role, stop_word, category(text)))
    return sorted(rows, key=lambda row: -row.z)


def fold(row: Scored) -> float:
    """``log2(e/x)``; where a corpus lacks the token, of the counts with α added, which stay finite."""
    alpha = 0 if row.explore and row.exploit else ALPHA
    return float(np.log2((row.explore + alpha) / (row.exploit + alpha)))


def table(scored: Sequence[Scored]) -> list[Mapping[str, Any]]:
    """A CSV's rows."""
    return [{**asdict(row), "log2_ratio": fold(row)} for row in scored]


SIDES = {"explore": (COLORS[1], "^"), "exploit": (COLORS[0], "v")}
GRAY = "#8a9099"
BY_CATEGORY = dict(zip((*CATEGORIES, OTHER), (*COLORS[:5], GRAY), strict=True))


def draw(scored: Sequence[Scored], title: str, caption: str, top: int = 12) -> Figure:
    """Left ``log2(e/x)`` against ``log10(e+x)`` of all tokens, right the z of the ``top`` markers a
    side, which alone are named.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    _volcano(left, scored, top)
    _bars(right, scored, top)
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(title, parse_math=False)
    figure.supxlabel(caption, fontsize=8, color=GRAY, parse_math=False)
    return figure


def _volcano(axes: Axes, scored: Sequence[Scored], top: int) -> None:
    for role, (color, shape) in {"": (GRAY, "."), **SIDES}.items():
        rows = [row for row in scored if row.role == role]
        label = f"{role} marker ({len(rows)})" if role else f"no marker ({len(rows)})"
        x = [fold(row) for row in rows]
        y = [np.log10(row.explore + row.exploit) for row in rows]
        axes.scatter(x, y, s=28, c=color, marker=shape, lw=0, alpha=0.8, label=label)
        outwards = -1 if role == "exploit" else 1
        strongest = sorted(zip(rows, x, y, strict=True), key=lambda point: -abs(point[0].z))
        for row, log2_ratio, log10_count in strongest[: top if role else 0]:
            axes.annotate(
                row.token,
                (log2_ratio, log10_count),
                xytext=(5 * outwards, 2),
                ha="left" if outwards > 0 else "right",
                textcoords="offset points",
                fontsize=8,
                color=color,
                parse_math=False,
            )
    axes.axvline(0, color=GRAY, lw=0.8)
    axes.margins(x=0.2)
    axes.set(xlabel="log2(e / x)", ylabel="log10(e + x)", title="counts e (explore), x (exploit)")
    axes.legend(frameon=False, fontsize=8)


def _bars(axes: Axes, scored: Sequence[Scored], top: int) -> None:
    explore = [row for row in scored if row.role == "explore"][:top]
    exploit = [row for row in scored if row.role == "exploit"][-top:]
    drawn = [*explore, *exploit][::-1]  # the first on top
    colors = [BY_CATEGORY[row.category] for row in drawn]
    axes.barh(range(len(drawn)), [row.z for row in drawn], color=colors)
    axes.set_yticks(range(len(drawn)), [row.token for row in drawn], fontsize=8, parse_math=False)
    axes.axvline(0, color=GRAY, lw=0.8)
    axes.set(xlabel="z  (exploit < 0 < explore)", title="strongest markers")
    drawn_categories = {row.category for row in drawn}
    keys = [
        Line2D([], [], color=c, lw=6, label=n)
        for n, c in BY_CATEGORY.items()
        if n in drawn_categories
    ]
    if keys:
        axes.legend(handles=keys, frameon=False, fontsize=8)
    else:
        axes.text(0.5, 0.5, "no markers", transform=axes.transAxes, ha="center", color=GRAY)
