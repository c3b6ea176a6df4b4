"""A run fitted to its cards: where AdamW's moments live, and which share of a card is the engine's."""

import os
from dataclasses import replace

import torch
from omegaconf import DictConfig
from transformers import PretrainedConfig

from rlrt.config.console import console
from rlrt.config.memory import (
    FLOAT,
    GB,
    HALF,
    Demand,
    Sizes,
    estimate,
    require_room,
    settled,
)
from rlrt.config.memory_table import memory_table
from rlrt.config.parts import CheapParts
from rlrt.config.trainer import rank_count
from rlrt.engine.engine import EngineSpec
from rlrt.errors import UserError, is_rank_zero


def demand_of(
    config: DictConfig,
    parts: CheapParts,
    policy: PretrainedConfig,
    teacher: PretrainedConfig | None,
) -> Demand:
    """What the run asks of its cards; ``teacher``: of another model, None for the policy's own."""
    training, low = parts.training, parts.dtype == torch.bfloat16
    sizes = Sizes.of(policy)
    own = None if parts.teacher.is_policy else sizes if teacher is None else Sizes.of(teacher)
    return Demand(
        policy=sizes,
        cards=rank_count(config),
        hosts=config.trainer.num_nodes,
        gathers=low or config.trainer.strategy != "auto",
        low=low,
        moments=training.optimization.moments,
        token_budget=training.token_budget,
        longest_sequence=training.longest_sequence,
        checkpointing=parts.model.gradient_checkpointing,
        teacher=own,
        teacher_bytes=HALF if low and not parts.teacher.changes else FLOAT,
        engine="gpu_memory_utilization" in config.engine,
        engine_share=config.engine.get("gpu_memory_utilization"),
        tensor_parallel=config.engine.get("tensor_parallel", 1),
    )


def found_card() -> int:
    """Bytes of this process's card."""
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def card_bytes(parts: CheapParts) -> float:
    """Bytes of a card that the run may count on; UserError where the setting exceeds what is there."""
    found, asked = found_card(), parts.run.card_gb
    if asked is not None and asked * GB > found:
        raise UserError(
            f"card_gb is {asked}, it must be null or at most the {found / GB:.1f} GB of the card"
        )
    return found if asked is None else asked * GB


def fitted(
    config: DictConfig,
    parts: CheapParts,
    spec: EngineSpec,
    policy: PretrainedConfig,
    teacher: PretrainedConfig | None,
) -> tuple[CheapParts, EngineSpec]:
    """The run's parts and engine with what its cards leave; prints the table.

    UserError, with the settings that fit, where cards or host do not hold the run.
    """
    card = card_bytes(parts)
    demand = settled(demand_of(config, parts, policy, teacher), card)
    show([(demand, card)], parts.model.name)
    require_room(demand, card, parts.training.problems_per_update)
    found = estimate(demand, card)
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if found.on_host > host:
        raise UserError(
            f"AdamW's moments would take {found.on_host / GB:.0f} GB of the host's memory, which has "
            f"{host / GB:.0f} GB: use more machines or more cards with "
            "training.optimization.moments=device"
        )
    optimization = replace(parts.training.optimization, moments=demand.moments)
    training = replace(parts.training, optimization=optimization)
    share = found.engine_share * card / found_card() if demand.engine else None
    return replace(parts, training=training), replace(spec, gpu_memory_share=share)


def show(columns: list[tuple[Demand, float]], name: str) -> None:
    """Print the memory table, once for all ranks."""
    if is_rank_zero():
        console.print(memory_table(columns, f"memory of {name}"))
