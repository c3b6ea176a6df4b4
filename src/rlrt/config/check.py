"""``check=true``: all of a run that can be wrong is checked and reported; nothing is loaded or written."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from rlrt.config.assembly import require_lengths, teacher_shape
from rlrt.config.command_line import print_once, quiet_libraries
from rlrt.config.components import Components, build_components, pin_commits
from rlrt.config.compose import user_errors
from rlrt.config.memory import (
    GB,
    Demand,
    card_bytes,
    demand_of,
    estimate,
    on_cards,
    require_memory,
    resolve_moments,
    show,
)
from rlrt.config.problem_sets import read_problems
from rlrt.data.prompts import Prompts
from rlrt.data.rows import UnreachableError
from rlrt.errors import UserError, one_line
from rlrt.model.load import load_config, load_tokenizer, policy_folder, stop_token_ids

USUAL = ((1, 80), (1, 141), (8, 80))  # cards and GB of each, shown where no card is found


@user_errors()
def check_run(config: DictConfig) -> None:
    """Print what of the run is right and what could not be checked; UserError where it cannot start."""
    quiet_libraries()
    components = pin_commits(build_components(config))
    print_once("settings and parts: right")
    policy, tokenizer = _model(components)
    if tokenizer is not None:
        print_once("model, tokenizer and stop tokens: found")
    longest = require_lengths(components, policy, tokenizer)
    print_once(f"lengths: {components.training.longest_sequence} tokens of the model's {longest}")
    _problems(components, tokenizer)
    if config.trainer.accelerator != "gpu":
        print_once("would start, on the CPU")
        return
    teacher = teacher_shape(components) if tokenizer is not None else None
    _memory(config, components, policy, teacher)


def _model(components: Components) -> tuple[PretrainedConfig, PreTrainedTokenizerBase | None]:
    """The policy's configuration and tokenizer; the preset's shape where they cannot be reached."""
    model = components.model
    try:
        folder = policy_folder(model.path, weights=False, revision=model.at)
    except (ValueError, OSError) as error:
        if model.shape is None or Path(model.path).expanduser().is_dir():
            raise
        print_once(f"tokenizer and prompts: not checked ({one_line(error)})")
        fields = {name: value for name, value in model.shape.items() if name != "model_type"}
        return AutoConfig.for_model(model.shape["model_type"], **fields), None
    tokenizer = load_tokenizer(folder)
    stop_token_ids(folder, tokenizer)
    return load_config(folder), tokenizer


def _problems(components: Components, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Read and count the problems; where they or their prompts cannot be reached, say so."""
    source, limit = components.source, components.training.max_prompt_tokens
    try:
        with user_errors():
            if tokenizer is not None:
                prompts = Prompts(tokenizer, **asdict(components.prompts))
                read_problems(source, components.context, prompts, limit)
                return
            for name, read in (("train", source.train), ("held out", source.held_out)):
                count = len(read().problems)
                print_once(f"{name} problems: {count}, the lengths of their prompts not checked")
    except UserError as error:
        if not isinstance(error.__cause__, UnreachableError):
            raise
        print_once(f"problems: not checked ({error})")


def _memory(
    config: DictConfig,
    components: Components,
    policy: PretrainedConfig,
    teacher: PretrainedConfig | None,
) -> None:
    """Show what the cards would hold; UserError where none of them holds the run."""
    asked = demand_of(config, components, policy, teacher)
    divisible = components.training.problems_per_update
    kinds = [
        (resolve_moments(demand, card), card)
        for demand, card in _kinds(config, components, asked)
        if divisible % demand.cards == 0 and demand.cards % demand.tensor_parallel == 0
    ]
    show(kinds, components.model.name)
    said = []
    for demand, card in kinds:
        try:
            require_memory(demand, card, divisible)
        except UserError as error:
            said.append(str(error))
        else:
            word = "moments on the host" if demand.on_host else "moments on the device"
            share = f", {estimate(demand, card).engine_share:.0%} of a card for the engine"
            print_once(
                f"would start on {demand.cards} x {card / GB:.0f} GB: {word}" + share * asked.engine
            )
    if len(said) == len(kinds):
        raise UserError("; ".join(said))
    for sentence in said:
        print_once(sentence)


def _kinds(config: DictConfig, components: Components, asked: Demand) -> list[tuple[Demand, float]]:
    """The cards in question: those of this machine, those that are asked about, or the usual ones."""
    if torch.cuda.is_available():
        return [(asked, card_bytes(components))]
    named, devices = components.run.card_gb, config.trainer.devices
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
