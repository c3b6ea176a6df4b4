"""The credit table, as a user calls it."""

import json
import math
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from tests.e2e.scripts.commands import load_script
from tests.processes import run_command

from rlrt.errors import UserError

Run = Callable[..., dict[str, Any]]


def rollout(reward: float, **fields: Any) -> dict[str, Any]:
    logprobs = {"engine_logprobs": [-1.0, -2.0], "student_logprobs": [-1.0, -2.0]}
    return {"group": 0, "reward": reward, **logprobs, "teacher_logprobs": None, **fields}


# Two correct and two wrong: not standardized, the advantages are ±0.5.
GROUP = {
    "step": 0,
    "rollouts": [
        rollout(1.0, teacher_logprobs=[-3.0, -2.0]),
        rollout(1.0, teacher_logprobs=[-0.5, -2.0]),
        rollout(0.0, student_logprobs=[-1.0], engine_logprobs=[-1.0]),
        rollout(0.0),
    ],
}


def written(folder: Path, content: object) -> str:
    """The word that names a file with this content."""
    path = folder / "group.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return f"input={path}"


def credit_table(folder: Path, content: object, *words: str) -> subprocess.CompletedProcess[str]:
    return run_command("scripts/credit_table.py", written(folder, content), *words)


def test_json_of_a_group_worked_out_by_hand(tmp_path: Path) -> None:
    """RLRT, λ = 0.5, ε = 1: dissent by 2 nats clips at 1 + ε, agreement by 0.5 pays e^-0.5."""
    words = ["credit=rlrt", "credit.standardize=false", "json=true"]
    done = credit_table(tmp_path, GROUP, *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["distillation"] is None
    assert "loss" not in result  # no rollout has logprobs
    first, second, third, fourth = result["advantages"]
    assert first == pytest.approx([0.5 * 1.5, 0.5], abs=1e-12)
    agreeing = 0.5 * (0.5 + 0.5 * 0.6065306597126334)
    assert second == pytest.approx([agreeing, 0.5], abs=1e-12)
    assert (third, fourth) == ([-0.5], [-0.5, -0.5])


def test_losses_and_the_table_for_people(tmp_path: Path, capsys: Any, main: Any) -> None:
    group = {"rollouts": [r | {"logprobs": r["student_logprobs"]} for r in GROUP["rollouts"]]}  # type: ignore[attr-defined]
    main([written(tmp_path, group), "credit=grpo", "credit.standardize=false"])
    lines = capsys.readouterr().out.splitlines()
    # seven tokens at ratio 1: -(4 · 0.5 - 3 · 0.5) / 7; each response's own mean cancels out
    assert f"loss/token_mean: {-0.5 / 7:.12g}" in lines
    assert any(line.startswith("loss/sequence_mean: ") for line in lines)
    assert sum("0 (reward 1)" in line for line in lines) == 1


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], None]:
    """The command in this process: no seconds of imports for every case."""
    command: Callable[[list[str]], None] = load_script("credit_table").main
    return command


@pytest.fixture
def run(
    tmp_path: Path, main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> Run:
    """The parsed JSON output for some rollouts and words."""

    def json_of(rollouts: list[dict[str, Any]], *words: str) -> dict[str, Any]:
        path = tmp_path / "group.json"
        path.write_text(json.dumps({"rollouts": rollouts}))
        main([f"input={path}", "json=true", *words])
        result: dict[str, Any] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        return result

    return json_of


def read(shared: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((shared / "golden" / name).read_text())
    return content


def in_fixture(shared: Path, **fields: list[Any]) -> list[dict[str, Any]]:
    """The four rollouts of the golden fixture, with a field more for each."""
    inputs = read(shared, "fixture_a.json")["inputs"]
    names = {
        "reward": "rewards",
        "logprobs": "cur",
        "student_logprobs": "old",
        "engine_logprobs": "rollout",
        "teacher_logprobs": "teacher",
        "student_entropy": "entropy",
    }
    return [
        {"group": 0}
        | {name: inputs[key][row] for name, key in names.items()}
        | {name: values[row] for name, values in fields.items()}
        for row in range(4)
    ]


def sdpo_words(alpha: float = 0.5, top_k: int | None = None) -> list[str]:
    return ["credit=sdpo", f"credit.alpha={alpha}", f"credit.top_k={top_k or 'null'}"]


@pytest.mark.parametrize("number", range(8))
def test_every_golden_divergence(shared: Path, run: Run, number: int) -> None:
    vectors = read(shared, "vectors.json")
    case = vectors["cases"][number]
    assert number < len(vectors["cases"]) == 8
    positions = [
        rollout(
            1.0,
            engine_logprobs=[-1.0],
            student_logprobs=[-1.0],
            student_logits=[student],
            teacher_logits=[teacher],
        )
        for student, teacher in zip(
            vectors["student_logits"], vectors["teacher_logits"], strict=True
        )
    ]
    words = sdpo_words(case["alpha"], case["k"])
    for position, value in zip(positions, case["values"], strict=True):
        found = run([position], *words)
        assert found["loss"] == {"distillation": pytest.approx(value, abs=1e-12, rel=0)}
        assert (found["advantages"], found["distillation"]) == ([[0.0]], [[1.0]])
    assert run(positions, *words)["loss"]["distillation"] == pytest.approx(
        math.fsum(case["values"]) / 2, abs=1e-12, rel=0
    )


@pytest.mark.parametrize(
    ("key", "corrected", "words"),
    [
        ("grpo_nostd", "grpo_tis_nostd", ["credit=grpo"]),
        ("ent_nostd", None, ["credit=grpo_entropy"]),
        ("rlsd_eps0.2_std", "rlsd_eps0.2_std_tis", ["credit=rlsd"]),
        ("rlrt_eps0.5_std", "rlrt_eps0.5_std_tis", ["credit=rlrt", "credit.clip_radius=0.5"]),
    ],
)
def test_golden_losses(
    shared: Path, run: Run, key: str, corrected: str | None, words: list[str]
) -> None:
    golden = read(shared, "fixture_a.json")
    found = run(in_fixture(shared), *words)
    for row, wanted in zip(found["advantages"], golden[key].get("adv", []), strict=False):
        assert row == pytest.approx(wanted, abs=1e-12, rel=0)
    loss, expected = found["loss"], golden[key]
    assert loss["token_mean"] == pytest.approx(expected["token_mean"], abs=1e-12, rel=0)
    sequence_mean = expected["seq_mean_token_mean"]
    assert loss["sequence_mean"] == pytest.approx(sequence_mean, abs=1e-12, rel=0)
    if corrected:
        value = golden[corrected]["token_mean"]
        assert loss["token_mean_corrected"] == pytest.approx(value, abs=1e-12, rel=0)
    assert "distillation" not in loss


@pytest.mark.parametrize("beta", [0, 0.5, 1])
def test_golden_weights_of_srpo(shared: Path, run: Run, beta: float) -> None:
    """Its joint loss is given: the surrogate, and each divergence times the weight printed here."""
    given = read(shared, "vectors.json")["srpo"]
    (first, third), entropies = given["losses"], given["entropies"]
    rollouts = in_fixture(shared, teacher_entropy=[None, entropies[0], None, entropies[1]])
    found = run(rollouts, "credit=srpo", f"credit.beta={beta}", "credit.top_k=null")
    weights = found["distillation"]
    assert (weights[0], weights[2]) == ([0.0] * 3, [0.0] * 4)
    assert math.fsum(weights[1] + weights[3]) == pytest.approx(4)
    distilled = zip(weights[1] + weights[3], first + third, strict=True)
    total = found["loss"]["token_mean"] + math.fsum(w * d for w, d in distilled) / 11
    assert total == pytest.approx(given["expected"][f"{beta:g}"], abs=1e-12, rel=0)
    assert "distillation" not in found["loss"]  # nobody gave logits


def test_golden_advantages_of_diver(shared: Path, run: Run) -> None:
    given = read(shared, "vectors.json")["diver"]
    pairs = zip(given["rewards"], given["responses"], strict=True)
    found = run([rollout(reward, response=text) for reward, text in pairs], "credit=diver")
    expected = [[value] * 2 for value in given["advantages_std"]]  # given to twelve digits
    assert found["advantages"] == [pytest.approx(row, abs=1e-11, rel=0) for row in expected]


LOGITS = {
    "student_logits": [[math.log(0.5), math.log(0.3), math.log(0.2)], [0.0, 0.0, 0.0]],
    "teacher_logits": [[math.log(0.2), math.log(0.3), math.log(0.5)], [0.0, 0.0, 0.0]],
}
KL = 0.3 * math.log(2.5)  # of the first position: 0.5 · log 2.5 - 0.2 · log 2.5; 0 at the second


def test_importance_and_correction_weigh_the_divergence(run: Run) -> None:
    """Two tokens, KL and 0; e^0.1 from the policy's move, e^0.2 from the engine, then both bounds."""
    moved = {"logprobs": [-0.9, -2.0], "engine_logprobs": [-1.2, -2.0]}
    found = run([rollout(0.0, **LOGITS, **moved)], *sdpo_words(alpha=1))["loss"]
    assert found["distillation"] == pytest.approx(KL * math.exp(0.3) / 2, abs=1e-12)
    far = {"logprobs": [9.0, -2.0], "engine_logprobs": [-9.0, -2.0]}
    found = run([rollout(0.0, **LOGITS, **far)], *sdpo_words(alpha=1))["loss"]
    assert found["distillation"] == pytest.approx(KL * 4 / 2, abs=1e-12)
    assert found["token_mean"] == found["token_mean_corrected"] == 0
    words = [*sdpo_words(alpha=1), "credit.importance_limit=null"]
    words += ["loss.rollout_correction_limit=null"]
    found = run([rollout(0.0, **LOGITS, **far)], *words)["loss"]
    assert found["distillation"] == pytest.approx(KL / 2, abs=1e-12)


def test_what_follows_from_logits_may_be_left_out(run: Run) -> None:
    """Log-probs and entropies of both views, at the temperature of training."""
    given = {"group": 0, "response_ids": [0, 2], **LOGITS}
    hot = {name: [[2 * x for x in row] for row in LOGITS[name]] for name in LOGITS}
    plain = rollout(0.0, student_logprobs=[-1.0, -2.0])
    rlrt = ["credit=rlrt", "credit.clip_radius=1", "credit.standardize=false"]
    for logits, words in ((LOGITS, []), (hot, ["training.temperature=2"])):
        found = run([given | {"reward": 1.0} | logits, plain], *rlrt, *words)
        # w = P_S / P_T = 2.5, clipped to 2
        assert found["advantages"][0] == pytest.approx([0.5 * 1.5, 0.5], abs=1e-12)
        found = run([given | {"reward": 1.0} | logits, plain | {"student_entropy": [0.0, 0.0]}],
                    "credit=grpo_entropy", "credit.entropy_weight=0.1", *words)  # fmt: skip
        entropy = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
        bonus = [0.1 * entropy, 0.1 * math.log(3)]
        assert found["advantages"][0] == pytest.approx([0.5 + b for b in bonus], abs=1e-12)
        words += ["credit=sdpo", "credit.alpha=1", "credit.top_k=null", "credit.sampled_token=true"]
        found = run([given | {"reward": 1.0} | logits], *words)
        # (log 0.5 - log 0.2) · log 0.5, and 0
        sampled = math.log(2.5) * math.log(0.5) / 2
        assert found["loss"]["distillation"] == pytest.approx(sampled, abs=1e-12)


def test_opsd_and_the_gate_read_the_divergence_of_the_logits(run: Run) -> None:
    words = ["credit=opsd", "credit.beta=1"]
    assert run([rollout(0.0, **LOGITS)], *words)["loss"]["distillation"] == pytest.approx(KL / 2)
    # both tokens have a weight of 2, the gate opens at the first alone
    teacher = {"teacher_logprobs": [-1.0 - math.log(2), -2.0 - math.log(2)]}
    words = ["credit=rlrt_gated", "credit.clip_radius=1", "credit.standardize=false"]
    for fields in (LOGITS, {"divergence": [0.4, 0.1]}):
        found = run([rollout(1.0, **teacher, **fields), rollout(0.0)], *words)
        assert found["advantages"][0] == pytest.approx([0.75, 0.5], abs=1e-12)


def test_without_any_context_nothing_is_distilled(run: Run) -> None:
    for words in (sdpo_words(), ["credit=opsd"], ["credit=srpo"], ["credit=srpo", "credit.beta=0"]):
        found = run([rollout(0.0), rollout(0.0, student_logprobs=[], engine_logprobs=[])], *words)
        assert found["loss"] == {"distillation": 0.0}
        assert found["distillation"] == [[0.0, 0.0], []]


def test_a_penalty_counts_and_a_missing_teacher_is_asked_for_only_where_it_is_read(
    run: Run,
) -> None:
    found = run([rollout(1.0, penalty=-0.5), rollout(1.0)], "credit=grpo")
    assert found["advantages"] == [[-0.25] * 2, [0.25] * 2]
    # all right: no signal, so that RLRT reads no teacher, whose log-probs do not follow from these
    found = run([rollout(1.0, **LOGITS), rollout(1.0)], "credit=rlrt")
    assert found["advantages"] == [[0.0] * 2] * 2


def test_the_table_has_columns_for_what_exists(tmp_path: Path, capsys: Any, main: Any) -> None:
    path = tmp_path / "group.json"
    tokens = ["[b]", "\n"]
    path.write_text(json.dumps({"rollouts": [rollout(0.0, **LOGITS, tokens=tokens)]}))
    main([f"input={path}", *sdpo_words(alpha=1)])
    head, first, second, *rest = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["distillation", "divergence"]
    assert first.split()[-2:] == ["1.0000", f"{KL:.4f}"]
    assert "0 '[b]'" in first
    assert second.split()[-2:] == ["1.0000", "0.0000"]
    assert f"loss/distillation: {KL / 2:.12g}" in rest
    main([f"input={path}", "credit=grpo"])
    assert "distillation" not in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_of_ragged_rollouts_is_the_same_every_time(
    tmp_path: Path, run: Run, ending: str
) -> None:
    tokens = {"tokens": ["$x", "\n\ud800\u200b漢"]}
    rollouts = [
        rollout(1.0, **LOGITS, **tokens, teacher_entropy=[0.1, 0.2]),
        rollout(0.0, **LOGITS, student_entropy=[1.0, 2.0]),
        rollout(0.0, student_logprobs=[], engine_logprobs=[]),
        rollout(0.0, student_logprobs=[-1.0] * 300, engine_logprobs=[-1.0] * 300),
    ]
    pictures = [tmp_path / f"{number}.{ending}" for number in range(2)]
    for picture in pictures:
        run(rollouts, "credit=srpo", "credit.top_k=3", f"picture={picture}")
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second
    if ending == "svg":
        assert first.startswith(b"<?xml")
        assert b"<dc:date>" not in first
    else:
        height, width, _ = imread(pictures[0]).shape
        assert width > height > 200


def test_the_picture_shows_each_multiplier(tmp_path: Path, run: Run) -> None:
    """Paid more is red, paid less is blue; one rollout, so that a cell is easy to find."""
    picture = tmp_path / "group.png"
    teacher = {"teacher_logprobs": [-3.0, 0.0]}  # dissent at the first token, agreement at the next
    run([rollout(1.0, **teacher), rollout(0.0)], "credit=rlrt", f"picture={picture}")
    pixels = imread(picture)[: imread(picture).shape[0] // 2, : imread(picture).shape[1] * 4 // 5]
    red, green, blue = (pixels[..., channel] for channel in range(3))
    reds = ((red > blue + 0.3) & (red > green + 0.3)).nonzero()[1]
    blues = ((blue > red + 0.2) & (blue > green + 0.1)).nonzero()[1]
    assert len(reds) > 1000
    assert len(blues) > 1000
    assert reds.max() < blues.min()


UNREAD = {"teacher_logits": LOGITS["teacher_logits"]}
SCORED = {"teacher_logprobs": [-1.0, -2.0]}
REFUSED: list[tuple[list[dict[str, Any]], list[str], str]] = [
    # what the method reads and the file lacks
    ([rollout(1.0, **UNREAD), rollout(0.0)], ["credit=rlrt"], "RLRT reads teacher_logprobs, and rol"),
    ([rollout(1.0), rollout(0.0, **SCORED)], ["credit=srpo"], "SRPO reads teacher_entropy, and roll"),
    ([rollout(1.0, **SCORED), rollout(0.0)], ["credit=rlrt_gated"], "RLRTGated reads divergence, an"),
    ([rollout(1.0), rollout(0.0)], ["credit=grpo_entropy"], "GRPOEntropy reads student_entropy, and"),
    ([rollout(1.0), rollout(0.0)], ["credit=diver"], "DIVER reads the response, and rollout 0 has"),
    ([rollout(1.0, **LOGITS), rollout(0.0, **SCORED)], sdpo_words(), "rollout 1 is distilled, and la"),
    ([rollout(1.0, **LOGITS)], ["credit=sdpo"], r"top_k is 100, it must be null or lie in \[1, 3\]"),
    (
        [rollout(1.0, **LOGITS)],
        [*sdpo_words(alpha=1), "credit.sampled_token=true"],
        "credit.sampled_token reads response_ids, and rollout 0 has none",
    ),
    # what a rollout must look like
    ([{"group": 0, "reward": 1}], [], "rollout 0 has no student_logprobs, nor student_logits and re"),
    ([{"group": 0, "reward": 1, **LOGITS}], [], "has no student_logprobs, nor student_logits and re"),
    ([rollout(10**400)], [], "a reward that is no number"),
    ([rollout(1.0, group=2**63)], [], "a group that is no whole number"),
    ([rollout(1.0, penalty=0.5)], [], "has a penalty that is no number up to 0"),
    ([rollout(1.0, response=1)], [], "has a response that is no text"),
    ([rollout(1.0, tokens=["a"])], [], "has 1 tokens and 2 student_logprobs"),
    ([rollout(1.0, tokens=["a", 1])], [], "has tokens that are no list of texts"),
    ([rollout(1.0, student_logits=[[1.0, 2.0], [1.0]])], [], "no list of equally long lists of fin"),
    ([rollout(1.0, student_logits=[[], []])], [], "no list of equally long lists of finite numbers"),
    ([rollout(1.0, student_logits=[[math.inf], [1]])], [], "no list of equally long lists of finite"),
    ([rollout(1.0, student_logits=[[1.0, 2.0]])], [], "has 1 student_logits and 2 student_logprobs"),
    (
        [rollout(1.0, **LOGITS), rollout(1.0, teacher_logits=[[0.0], [0.0]])],
        [],
        "rollout 1 has teacher_logits over 1 ids, others are over 3",
    ),
    ([rollout(1.0, **LOGITS, response_ids=[0, 3])], [], "has response_ids that its 3 logits do not"),
    ([rollout(1.0, **LOGITS, response_ids=[0, -1])], [], "has response_ids that are no list of ids"),
    ([rollout(1.6e308), rollout(1.5e308)], ["credit=grpo"], "is no finite number"),
    # the picture
    ([rollout(1.0)], ["picture=group.pdf"], r"picture is group.pdf, it must be a .png or .svg in an"),
    ([rollout(1.0)], ["picture=no/such/a.png"], "it must be a .png or .svg in an existing folder"),
    (
        [rollout(1.0, student_logprobs=[], engine_logprobs=[])],
        ["picture=empty.png"],
        "there is no picture: no rollout has a token",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rollouts", "words", "sentence"), REFUSED)
def test_what_cannot_be_used_is_refused(
    run: Run, rollouts: list[dict[str, Any]], words: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        run(rollouts, *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words", "sentence"),
    [
        ("{broken", [], "group.json is no JSON"),
        ([1], [], "is no JSON object with a list of rollouts"),
        ({"rollouts": [rollout(1.0, engine_logprobs=[-1.0])]}, [], "has 1 engine_logprobs and 2"),
        ({"rollouts": [rollout(1.0, teacher_logprobs=["x", 1])]}, [], "no list of finite numbers"),
        (GROUP, ["credit=nothing"], "credit is nothing, it must be one of diver, grpo,"),
        (GROUP, ["credit.mixing=2"], "credit.mixing is 2, it must lie in [0, 1]"),
        (GROUP, ["json=maybe"], "json is maybe, it must be true or false"),
        (GROUP, ["json"], "json= has no value"),
        (GROUP, ["jsn=true"], "jsn is no setting; allowed: input, json, picture, "),
        (GROUP, ["--json"], "--json is no word of this command"),
        (GROUP, ["json=true", "json=false"], "json= is given twice"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, content: object, words: list[str], sentence: str, capsys: Any, main: Any
) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        main([written(tmp_path, content), *words])
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().out


def test_the_command_ends_in_one_sentence(tmp_path: Path) -> None:
    done = credit_table(tmp_path, "{broken")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "group.json is no JSON" in done.stderr
    assert not done.stdout


def test_help_says_how_it_is_called(capsys: Any, main: Any) -> None:
    main(["--help"])
    assert "input=group.json" in capsys.readouterr().out
