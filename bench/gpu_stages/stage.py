"""What all stages of the GPU check share: what a stage knows, what it notes, and how it ends."""

import importlib
import json
import math
import os
import time
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GIB = 2**30


class Skipped(Exception):
    """The stage has no meaning on the CPU; the message says why."""


class Check:
    """A stage's surroundings, and its JSON, which is whole at every moment.

    ``card``: whether there is a CUDA device; without one the stage works at toy size. ``folder``: the
    stage's own, for what its runs write.
    """

    def __init__(self, file: Path, seconds: float, device: str) -> None:
        self.limit_s = seconds
        self.until = time.monotonic() + seconds
        self.file = file
        self.folder = file.with_suffix("")
        self.device = device
        self.card = device == "cuda"
        self.failures: list[str] = []
        self.content: dict[str, Any] = {"figures": {}, "told": []}
        self.doing("starting")

    @property
    def left_s(self) -> float:
        """Seconds until the stage is killed."""
        return self.until - time.monotonic()

    def doing(self, what: str) -> None:
        """What comes now: the last words of a stage that is killed."""
        print(f"{what} …", flush=True)
        self._write(doing=what)

    def note(self, **figures: Any) -> None:
        """Figures for the JSON."""
        self._write(figures=self.content["figures"] | figures)

    def tell(self, line: str) -> None:
        """A line of the table's figures."""
        print(line, flush=True)
        self._write(told=[*self.content["told"], line])

    def expect(self, holds: bool, otherwise: str) -> None:
        """Fails the stage at its end where something does not hold; what comes next is done first."""
        if not holds:
            print(f"FAILED: {otherwise}", flush=True)
            self.failures.append(otherwise)

    def near(self, name: str, apart: float, limit: float) -> None:
        """Notes how far something is from its reference and expects it to be at most ``limit``."""
        self.note(**{name: apart, f"{name}_limit": limit})
        close = math.isfinite(apart) and apart <= limit
        self.expect(close, f"{name} is {apart:.2g}, at most {limit:.2g} is right")

    def between(self, name: str, value: float, low: float, high: float) -> None:
        """Notes a value and expects it to lie between two others."""
        self.note(**{name: value, f"{name}_from": low, f"{name}_to": high})
        self.expect(
            low <= value <= high, f"{name} is {value:.3g}, {low:.3g} to {high:.3g} is right"
        )

    def _write(self, **content: Any) -> None:
        self.content |= content
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(self.content))
        partial.replace(self.file)

    def end(self, verdict: str, reason: str | None) -> None:
        """The stage's verdict."""
        self._write(verdict=verdict, reason=reason)


def attention_backend(card: bool) -> str | None:
    """Triton's on a card where vLLM has come without its FlashAttention libraries, else vLLM's choice.

    vLLM itself would choose FlashAttention and then fail to import it.
    """
    spec = find_spec("vllm") if card else None
    if spec is None:
        return None
    (folder,) = spec.submodule_search_locations or []
    libraries = (Path(folder) / "vllm_flash_attn").glob("_vllm_fa[23]_C*.so")
    return None if any(libraries) else "TRITON_ATTN"


def run_inside(function: str, file: Path, seconds: float, device: str) -> int:
    """Run a stage, ``module:function``, in this process; returns the exit status."""
    os.chdir(Path(__file__).resolve().parents[2])
    check = Check(file, seconds, device)
    try:
        module, name = function.split(":")
        getattr(importlib.import_module(f"gpu_stages.{module}"), name)(check)
    except Skipped as skipped:
        check.end("skipped", str(skipped))
        return 0
    except BaseException as error:
        traceback.print_exc()
        said = next((line for line in str(error).splitlines() if line.strip()), "")
        check.failures.append(f"{type(error).__name__}: {said}")
    if check.failures:
        check.end("failed", "; ".join(check.failures))
        return 1
    check.end("passed", None)
    return 0
