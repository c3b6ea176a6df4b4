"""What a run reads from the hub, held to one commit from its start to its last resumption."""

from dataclasses import replace

from omegaconf import DictConfig, OmegaConf

from rlrt.config.configuration import checked
from rlrt.config.parts import CheapParts
from rlrt.data.tables import HubSource
from rlrt.hub import find_commit, is_local
from rlrt.model.teacher import Separate


def pinned(parts: CheapParts) -> CheapParts:
    """The same parts, each at the commit that its revision now stands for, where that can be known.

    UserError where a revision does not exist. A commit that is set already, by the run that is
    resumed, stays.
    """
    model, teacher, source = parts.model, parts.teacher, parts.source
    if not is_local(model.path):
        model = replace(model, commit=_commit(model.path, model.commit, model.revision, "model"))
    if isinstance(teacher, Separate) and not is_local(teacher.path):
        at = _commit(teacher.path, teacher.commit, teacher.revision, "teacher")
        teacher = Separate(teacher.path, teacher.revision, at)
    if isinstance(source, HubSource):
        source = checked(source.pinned)
    return replace(parts, model=model, teacher=teacher, source=source)


def with_commits(config: DictConfig, parts: CheapParts) -> DictConfig:
    """A copy of the configuration that holds the commits of its parts."""
    stored = config.copy()
    for group in ("model", "teacher", "data"):
        part = parts.source if group == "data" else getattr(parts, group)
        if (commit := getattr(part, "commit", None)) is not None:
            OmegaConf.update(stored, f"{group}.commit", commit, force_add=True)
    return stored


def _commit(name: str, commit: str | None, revision: str | None, group: str) -> str | None:
    return commit or checked(find_commit, name, "model", revision, f"{group}.revision")
