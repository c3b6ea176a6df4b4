"""``model=<folder or name on the hub>`` in place of a preset."""

import re
from collections.abc import Sequence
from pathlib import Path

SCALE = "qwen3_4b_base"  # the preset whose settings of training, data and cards a model of one's own takes
KINDS = (  # what a model's name says of it; the first that fits
    ("base", r"base|-pt\b"),
    ("instruct", r"instruct|chat|-it\b|-sft\b|-dpo\b"),
    ("thinking", r"thinking|reason|\br1\b|qwq|^qwen3-[\d.]+b$"),
)


def expand_own_model(words: Sequence[str], configs: Path) -> tuple[list[str], str]:
    """The words, with such a model as settings of a preset; and what was guessed, to be said.

    ``model=Qwen/Qwen2.5-0.5B@<revision>`` and ``model=/path/to/folder`` name what no preset does. Settings
    that are given beside it stay as given.
    """
    expanded, remark = list(words), ""
    given = {word.lstrip("+").partition("=")[0] for word in words}
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        value = value.strip("'\"")
        if name != "model" or (configs / "model" / f"{value}.yaml").is_file():
            continue
        folder = Path(value).expanduser()
        if not folder.is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", value):
            continue
        path, _, revision = (value, "", "") if folder.is_dir() else value.partition("@")
        own = folder.resolve().name if folder.is_dir() else path.rpartition("/")[2]
        kind = kind_of(own)
        settings = {
            "model.path": str(folder.resolve()) if folder.is_dir() else path,
            "model.name": re.sub(r"[^\w.-]", "_", own),
            "model.kind": kind,
            "model.enable_thinking": None,
            "model.shape": None,
            **({"model.revision": revision} if revision else {}),
        }
        expanded[place : place + 1] = [
            f"model={SCALE}",
            *(f"{key}={_quoted(text)}" for key, text in settings.items() if key not in given),
        ]
        if "model.kind" not in given:
            remark = f"{own} is taken for a model of kind {kind}, by its name; model.kind= says otherwise"
        break
    return expanded, remark


def kind_of(name: str) -> str:
    """What a model's name says: base, instruct or thinking; base where it says nothing."""
    return next((kind for kind, sign in KINDS if re.search(sign, name.lower())), "base")


def _quoted(text: str | None) -> str:
    if text is None:
        return "null"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if re.fullmatch(r"[\w./-]+", text) else f'"{escaped}"'
