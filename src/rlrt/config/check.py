"""``check=true``: all of a run that can be wrong is looked at and told; nothing is loaded or written."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from rlrt.config.configuration import checked
from rlrt.config.console import quiet_libraries, say
from rlrt.config.fitting import card_bytes, demand_of, show
from rlrt.config.memory import GB, Demand, estimate, on_cards, require_room, settled
from rlrt.config.parts import CheapParts, build_cheap_parts, read_problems
from rlrt.config.pinning import pinned
from rlrt.config.run import require_lengths, shape_of, teacher_shape
from rlrt.data.prompts import Prompts
from rlrt.data.rows import UnreachableError
from rlrt.errors import UserError
from rlrt.model.load import load_tokenizer, policy_folder, stop_token_ids

USUAL = ((1, 80), (1, 141), (8, 80))  # cards and GB of each, shown where no card is found


def check_run(config: DictConfig) -> None:
    """Say what of the run is right and what could not be looked at; UserError where it cannot start."""
    quiet_libraries()
    parts = pinned(build_cheap_parts(config))
    say("settings and parts: right")
    policy, tokenizer = _model(parts)
    if tokenizer is not None:
        say("model, tokenizer and stop tokens: found")
    longest = require_lengths(parts, policy, tokenizer)
    say(f"lengths: {parts.training.longest_sequence} tokens of the model's {longest}")
    _problems(parts, tokenizer)
    if config.trainer.accelerator != "gpu":
        say("would start, on the CPU")
        return
    teacher = teacher_shape(parts) if tokenizer is not None else None
    _memory(config, parts, policy, teacher)


def _model(parts: CheapParts) -> tuple[PretrainedConfig, PreTrainedTokenizerBase | None]:
    """The policy's configuration and tokenizer; the preset's shape where they cannot be reached."""
    model = parts.model
    try:
        folder = checked(policy_folder, model.path, weights=False, revision=model.at)
    except UserError as error:
        if model.shape is None or Path(model.path).expanduser().is_dir():
            raise
        say(f"tokenizer and prompts: not checked ({error})")
        fields = {name: value for name, value in model.shape.items() if name != "model_type"}
        return checked(AutoConfig.for_model, model.shape["model_type"], **fields), None
    tokenizer = checked(load_tokenizer, folder)
    checked(stop_token_ids, folder, tokenizer)
    return shape_of(folder), tokenizer


def _problems(parts: CheapParts, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Read and count the problems; told, where they or their prompts cannot be reached."""
    try:
        if tokenizer is not None:
            read_problems(parts, checked(Prompts, tokenizer, **asdict(parts.prompts)))
            return
        for name, read in (("train", parts.source.train), ("held out", parts.source.held_out)):
            count = len(checked(read).problems)
            say(f"{name} problems: {count}, the lengths of their prompts not checked")
    except UserError as error:
        if not isinstance(error.__cause__, UnreachableError):
            raise
        say(f"problems: not checked ({error})")


def _memory(
    config: DictConfig,
    parts: CheapParts,
    policy: PretrainedConfig,
    teacher: PretrainedConfig | None,
) -> None:
    """Show what the cards would hold; UserError where none of them holds the run."""
    asked = demand_of(config, parts, policy, teacher)
    divisible = parts.training.problems_per_update
    kinds = [
        (settled(demand, card), card)
        for demand, card in _kinds(config, parts, asked)
        if divisible % demand.cards == 0 and demand.cards % demand.tensor_parallel == 0
    ]
    show(kinds, parts.model.name)
    said = []
    for demand, card in kinds:
        try:
            require_room(demand, card, divisible)
        except UserError as error:
            said.append(str(error))
        else:
            word = "moments on the host" if demand.on_host else "moments on the device"
            share = f", {estimate(demand, card).engine_share:.0%} of a card for the engine"
            say(
                f"would start on {demand.cards} x {card / GB:.0f} GB: {word}" + share * asked.engine
            )
    if len(said) == len(kinds):
        raise UserError("; ".join(said))
    for sentence in said:
        say(sentence)


def _kinds(config: DictConfig, parts: CheapParts, asked: Demand) -> list[tuple[Demand, float]]:
    """The cards in question: those of this machine, those that are asked about, or the usual ones."""
    if torch.cuda.is_available():
        return [(asked, card_bytes(parts))]
    named, devices = parts.run.card_gb, config.trainer.devices
    spread = config.trainer.strategy != "auto"
    if named is not None:
        several = spread and devices == "auto"  # of this machine, which has none
        counts = (1, 8) if several else (asked.cards,)
        return [(on_cards(asked, n) if several else asked, named * GB) for n in counts]
    if spread and devices != "auto":
        return [(asked, gb * GB) for gb in sorted({gb for _, gb in USUAL})]
    return [
        (on_cards(asked, count) if count > 1 else replace(asked, cards=1), gb * GB)
        for count, gb in USUAL
    ]
