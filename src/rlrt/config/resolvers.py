"""The words that YAML files of this project use beside OmegaConf's own."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

PROJECT = Path(__file__).resolve().parents[3]


def register_resolvers() -> None:
    """Make them known to OmegaConf; again does no harm.

    ``${project:models/tiny}``: a path under the project root, whatever the working directory.
    ``${by_kind:{base: 1.0, instruct: 0.5, thinking: 0.2}}``: the value for ``model.kind``.
    ``${by_method:{sdpo: 1.0e-5, else: 1.0e-6}}``: the value for the module of ``credit._target_``.
    ``${run_name:<experiment>,<credit>,<model>}``: the experiment, or credit and model without one.
    ``${share:0.2,${training.max_response_tokens}}``: so much of a count, rounded, at least 1.
    """

    def by_kind(values: DictConfig, *, _root_: DictConfig) -> Any:
        kind = _root_.model.kind
        if kind not in values:
            raise ValueError(f"model.kind is {kind}, it must be one of {', '.join(values)}")
        return values[kind]

    def by_method(values: DictConfig, *, _root_: DictConfig) -> Any:
        target = str(OmegaConf.select(_root_, "credit._target_", default=""))
        method = target.rpartition(".")[0].rpartition(".")[2]  # of rlrt.credit.sdpo.SDPO: sdpo
        return values.get(method, values["else"])

    def run_name(experiment: str | None, credit: str, model: str) -> str:
        return f"{credit}_{model}" if experiment in (None, "null") else f"{experiment}_{model}"

    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("project", lambda path: str(PROJECT / path), replace=True)
    OmegaConf.register_new_resolver("by_kind", by_kind, replace=True)
    OmegaConf.register_new_resolver("by_method", by_method, replace=True)
    OmegaConf.register_new_resolver(
        "share", lambda part, count: max(1, round(part * count)), replace=True
    )
