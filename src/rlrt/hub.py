"""The Hugging Face hub: which commit a revision stands for, and working without the hub.

A hub that does not answer costs the one request that it did not answer. The next is asked again.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ANSWER_S = 10.0
COMMIT = re.compile(r"[0-9a-f]{40}")
_log = logging.getLogger("huggingface_hub.hf_api")


def find_commit(name: str, kind: str, revision: str | None, setting: str) -> str | None:
    """The commit of the repository ``name`` ("model" or "dataset") that ``revision`` stands for.

    ``revision`` is a branch, a tag or a commit; None: the main branch. Where the hub does not answer,
    or does not show the repository, what it stood for when it was last asked; None where nothing is
    known of the main branch. ValueError, naming ``setting``, where the hub knows no such revision, or
    where it does not answer and nothing is known of it.
    """
    from huggingface_hub import HfApi  # the first import takes a second, and local data needs none
    from huggingface_hub.errors import RevisionNotFoundError

    hub, is_commit = HfApi(), revision is not None and COMMIT.fullmatch(revision) is not None
    try:
        with _silent():
            # whether it answers, and knows the revision: the next request would wait for ever
            hub.repo_info(name, repo_type=kind, revision=revision, timeout=ANSWER_S)
            if is_commit:
                return revision
            return hub.resolve_revision(name, repo_type=kind, revision=revision).resolved
    except RevisionNotFoundError as error:
        raise ValueError(
            f"{setting} is {revision}: {name} on the hub has no such branch, tag or commit"
        ) from error
    except Exception as error:  # of the network, whichever client the hub's library uses
        if is_commit:
            return revision  # the cache may hold it
        try:
            return hub.resolve_revision(
                name, repo_type=kind, revision=revision, local_files_only=True
            ).resolved
        except Exception:
            if revision is None:
                return None
            raise ValueError(
                f"{setting} is {revision}: the hub cannot be asked what that is of {name}, and the "
                f"local Hugging Face cache does not know ({type(error).__name__})"
            ) from error


def does_answer(name: str, kind: str) -> bool:
    """Whether the hub says anything of a repository, were it that there is none."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with _silent():
            HfApi().repo_info(name, repo_type=kind, timeout=ANSWER_S)
    except HfHubHTTPError:
        return True
    except Exception:  # of the network, whichever client the hub's library uses
        return False
    return True


def refuse_unused(revision: str | None, commit: str | None, group: str, local: str) -> None:
    """ValueError where a revision or commit is set beside ``local``, the setting of a local copy, or
    where a commit is none.
    """
    for name, value in (("revision", revision), ("commit", commit)):
        if value is not None and local:
            raise ValueError(
                f"{group}.{name} is {value}, and {local} is a local copy, which has no revisions: "
                f"leave {group}.{name} away"
            )
    if revision == "":
        raise ValueError(f"{group}.revision is empty; it names a branch, a tag or a commit")
    if commit is not None and not COMMIT.fullmatch(commit):
        raise ValueError(f"{group}.commit is {commit}, it must be null or 40 hexadecimal digits")


def is_local(path: str) -> bool:
    """Whether a path or hub name is a folder of this machine."""
    return Path(path).expanduser().is_dir()


@contextmanager
def cache_only() -> Iterator[None]:
    """Within the block the hub's libraries ask nothing of the network."""
    import datasets
    import huggingface_hub

    constants, config = huggingface_hub.constants, datasets.config
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


@contextmanager
def _silent() -> Iterator[None]:
    """Without the library's own warning that it fell back to the cache."""
    before = _log.level
    _log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _log.setLevel(before)
