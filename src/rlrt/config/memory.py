"""What a run holds on every card and on the host, estimated from shapes before anything loads.

Bytes are counted, GB are 1e9 of them. Weights, gradients and moments are exact; what a pass takes is
counted tensor by tensor as PyTorch keeps it without fused kernels, so it is rather too much than too
little. docs/memory.md explains every row. A run on a GPU is fitted to its cards by this estimate: where
AdamW's moments live, and which share of a card is the engine's.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from omegaconf import DictConfig
from rich.box import SIMPLE_HEAD
from rich.table import Table
from transformers import PretrainedConfig

from rlrt.config.command_line import console, print_once
from rlrt.config.components import Components, rank_count
from rlrt.engine.engine import EngineSpec
from rlrt.errors import UserError, is_rank_zero
from rlrt.model.fused_head import tile_shape
from rlrt.model.load import parameter_count
from rlrt.training.optimization import Moments
from rlrt.training.performance import Shape

GB = 10**9
FLOAT, HALF = 4, 2  # bytes of a float32 and of a bfloat16
CONTEXT = 2.0 * GB  # CUDA, NCCL, fragments, and what a sleeping engine keeps
ENGINE_WORK = 2.0 * GB  # an engine's activations, logits of its sequences, CUDA graphs
BUDGET_STEP = 1024  # a token budget that is proposed is a multiple of it
USUAL_CARDS = (
    (1, 80.0),
    (1, 141.0),
    (8, 80.0),
)  # cards and GB of each, shown where no card is found

Change = tuple[
    str, dict[str, Any]
]  # a setting as it is typed, and the fields of the demand with it


@dataclass(frozen=True)
class ModelSize:
    """A model's shape and parameters; ``tied``: its output head is its embedding."""

    shape: Shape
    parameters: int
    tied: bool

    @classmethod
    def from_config(cls, config: PretrainedConfig) -> "ModelSize":
        """Those of a transformers configuration; nothing is allocated."""
        return cls(
            Shape.from_config(config), parameter_count(config), bool(config.tie_word_embeddings)
        )

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, and of an output head."""
        return self.shape.vocabulary * self.shape.hidden

    @property
    def root(self) -> int:
        """Parameters outside the layers, which FSDP keeps in its root module."""
        return self.embedding * (1 if self.tied else 2)

    @property
    def layer(self) -> float:
        """Parameters of one layer."""
        return (self.parameters - self.root) / self.shape.layers


@dataclass(frozen=True)
class Demand:
    """What a run asks of its cards. All settings that change it, and nothing else.

    ``gathers``: layers are cast or gathered for a pass, beside their float32 shards. ``engine_share`` of
    a card is given to the engine (None: what the trainer leaves); ``engine``: there is one of its own.
    """

    policy: ModelSize
    cards: int
    hosts: int
    gathers: bool
    low: bool  # passes compute in bfloat16
    moments: Moments
    token_budget: int
    longest_sequence: int
    checkpointing: bool
    teacher: ModelSize | None = None
    teacher_bytes: int = HALF  # of a parameter
    engine: bool = True
    engine_share: float | None = None
    tensor_parallel: int = 1

    @property
    def pass_bytes(self) -> int:
        """Bytes of a number in a pass."""
        return HALF if self.low else FLOAT

    @property
    def on_host(self) -> bool:
        return self.moments == "host"


@dataclass(frozen=True)
class Estimate:
    """Bytes on each card by row, in an update and while the engine samples, and on each host.

    ``left``: what the engine has for keys and values of ``cached_tokens`` tokens; negative where not even
    its weights fit. ``engine_share`` of the card is the engine's.
    """

    updating: dict[str, float]
    sampling: dict[str, float]
    on_host: float
    left: float
    cached_tokens: int
    engine_share: float
    fits: bool


def estimate(demand: Demand, card: float) -> Estimate:
    """What ``demand`` comes to on cards of so many bytes."""
    policy, held = demand.policy, _held(demand)
    updating = {
        **held,
        "gradients": policy.parameters * FLOAT / demand.cards,
        "gathered layers, embedding, head": _gathered(demand),
        **_pass(demand),
        "CUDA context, sleeping engine": CONTEXT,
    }
    trainer = {**held, "CUDA context, proof of the sync": CONTEXT + _proof(demand)}
    beside_engine = sum(trainer.values())
    host = 2 * FLOAT * policy.parameters / demand.hosts if demand.on_host else 0.0
    if not demand.engine:
        fits = max(sum(updating.values()), beside_engine) <= card
        return Estimate(updating, trainer, host, 0.0, 0, 0.0, fits)
    share = 1 - beside_engine / card if demand.engine_share is None else demand.engine_share
    # the engine's head is apart from its embedding, also where the policy's are tied
    entries = policy.parameters - policy.root + 2 * policy.embedding
    weights = entries * demand.pass_bytes / demand.tensor_parallel
    left = share * card - weights - ENGINE_WORK
    tokens = max(int(left / _cache_bytes(demand)), 0)
    sampling = {**trainer, "engine's weights": weights, "engine's working memory": ENGINE_WORK}
    fits = (
        sum(updating.values()) <= card
        and beside_engine + share * card <= card * (1 + 1e-9)
        and tokens >= demand.longest_sequence
    )
    return Estimate(updating, sampling, host, left, tokens, share, fits)


def resolve_moments(demand: Demand, card: float) -> Demand:
    """``demand`` with AdamW's moments on the host where auto is set and the card would not hold them."""
    if demand.moments != "auto":
        return demand
    on_device = replace(demand, moments="device")
    return on_device if estimate(on_device, card).fits else replace(demand, moments="host")


def fitting_changes(demand: Demand, card: float, divisible: int) -> list[str]:
    """Settings with which the run fits, one change each, of a setting with many values the one nearest
    to what is set; where none is enough, all together. The number of cards must divide ``divisible``.
    """

    def fits(changed: Demand) -> bool:
        return estimate(resolve_moments(changed, card), card).fits

    def first_fitting(values: Sequence[Change], base: Demand, *also: str) -> list[str]:
        for setting, fields in values:
            if fits(replace(base, **fields)):
                return [" with ".join([setting, *also])]
        return []

    settings, counts = _changes(demand), _card_counts(demand, divisible)
    single = [change for values in (*settings, counts) for change in first_fitting(values, demand)]
    if single:
        return single
    words: list[str] = []
    least = demand
    for setting, fields in (values[-1] for values in settings):  # of each what takes least
        words, least = [*words, setting], replace(least, **fields)
    if words and fits(least):
        return [" with ".join(words)]
    return first_fitting(counts, least, *words)


def require_memory(demand: Demand, card: float, divisible: int) -> None:
    """UserError where cards of so many bytes do not hold the run: one sentence, with what would."""
    needed = estimate(demand, card)
    if needed.fits:
        return
    cards = f"{demand.cards} cards" if demand.cards > 1 else "one card"
    where = "host" if demand.on_host else "device"
    sentence = (
        f"{cards} of {card / GB:.0f} GB cannot hold this run: each needs "
        f"{sum(needed.updating.values()) / GB:.0f} GB in an update with AdamW's moments on the {where}"
    )
    if demand.engine:
        least = sum(needed.sampling.values()) + _cache_bytes(demand) * demand.longest_sequence
        sentence += (
            f", and {least / GB:.0f} GB while sampling with one longest sequence "
            f"of {demand.longest_sequence} tokens"
        )
        if demand.engine_share is not None:
            sentence += (
                f", for which engine.gpu_memory_utilization leaves {needed.engine_share:.0%}"
            )
    changes = ", or ".join(fitting_changes(demand, card, divisible))
    advice = "no setting makes it fit: choose a smaller model or larger cards"
    raise UserError(f"{sentence}; " + (f"what fits: {changes}" if changes else advice))


def _changes(demand: Demand) -> list[list[Change]]:
    """Of each setting that may help its values, nearest first."""
    changes: list[list[Change]] = []
    if not demand.on_host:
        changes.append([("training.optimization.moments=host", {"moments": "host"})])
    if demand.engine_share is not None:
        changes.append([("engine.gpu_memory_utilization=null", {"engine_share": None})])
    if not demand.checkpointing:
        changes.append([("model.gradient_checkpointing=true", {"checkpointing": True})])
    least = demand.longest_sequence
    if least < demand.token_budget:
        budgets = [n for n in range(demand.token_budget - 1, least, -1) if n % BUDGET_STEP == 0]
        changes.append(
            [(f"training.token_budget={n}", {"token_budget": n}) for n in (*budgets, least)]
        )
    return changes


def _card_counts(demand: Demand, divisible: int) -> list[Change]:
    """The larger numbers of cards, nearest first."""
    return [
        (f"strategy=fsdp with at least {count} cards", {"cards": count, "gathers": True})
        for count in range(demand.cards + 1, divisible + 1)
        if divisible % count == 0 and count % demand.tensor_parallel == 0
    ]


def _held(demand: Demand) -> dict[str, float]:
    """What stays on a card from step to step."""
    share = 1 / demand.cards
    moments = 0.0 if demand.on_host else 2 * FLOAT * demand.policy.parameters * share
    teacher = 0 if demand.teacher is None else demand.teacher.parameters * demand.teacher_bytes
    return {
        "weights": FLOAT * demand.policy.parameters * share,
        "AdamW's moments": moments,
        "teacher": teacher * share,
    }


def _gathered(demand: Demand) -> float:
    """Weights that stand beside their shards for a pass, two layers at a time; gradients of those
    outside the layers before they are summed in float32.
    """
    if not demand.gathers:
        return 0.0
    models = [demand.policy] if demand.teacher is None else [demand.policy, demand.teacher]
    weights = sum((model.root + 2 * model.layer) * demand.pass_bytes for model in models)
    return weights + demand.policy.root * (demand.pass_bytes + FLOAT)


def _proof(demand: Demand) -> float:
    """What the proof of a sync takes, which scores a few sampled tokens: the policy gathered, all but
    its layers from a buffer as large as themselves, and a tile of logits.
    """
    policy, (rows, columns) = demand.policy, tile_shape("cuda")
    gathered = (2 * policy.root + 2 * policy.layer) * demand.pass_bytes if demand.gathers else 0.0
    return gathered + rows * columns * (FLOAT + HALF)


def _pass(demand: Demand) -> dict[str, float]:
    """What a pass with gradient of a whole token budget keeps."""
    shape, tokens = demand.policy.shape, demand.token_budget
    layer = tokens * _layer_bytes(shape, demand.pass_bytes)
    inputs = tokens * shape.layers * shape.hidden * demand.pass_bytes
    gradients = tokens * demand.pass_bytes * (3 * shape.intermediate + shape.hidden)
    saved = inputs if demand.checkpointing else layer * shape.layers
    rows, columns = tile_shape("cuda")
    tiles = rows * columns * (2 * FLOAT + demand.pass_bytes)
    states = tokens * shape.hidden * (3 * demand.pass_bytes + FLOAT)
    return {
        "saved layer inputs" if demand.checkpointing else "activations of all layers": saved,
        "a recomputed layer, its gradients": (layer if demand.checkpointing else 0.0) + gradients,
        "head: tiles, hidden states": tiles + states,
    }


def _layer_bytes(shape: Shape, number: int) -> float:
    """Bytes that a token's way through one layer keeps for its backward, tensor by tensor.

    Of the MLP's width gate, up, activation and product; of the hidden width two norms (input in
    float32, before and after the weight), the sum after attention and the two projections back; queries
    as projected, in float32 and normed, turned, and attended; keys the same but attended; values.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return (
        shape.intermediate * 4 * number
        + shape.hidden * (2 * FLOAT + 6 * number)
        + queries * (FLOAT + 4 * number)
        + keys * (FLOAT + 4 * number)
    )


def _cache_bytes(demand: Demand) -> float:
    """Keys and values of one token on a card."""
    shape = demand.policy.shape
    heads = max(shape.kv_heads / demand.tensor_parallel, 1)
    return 2 * shape.layers * heads * shape.head_dim * demand.pass_bytes


def memory_table(columns: Sequence[tuple[Demand, float]], title: str) -> Table:
    """Rows of every estimate in GB; each column is a run and the bytes of one of its cards."""
    estimates = [estimate(demand, card) for demand, card in columns]
    table = Table(title=f"{title}, GB = 1e9 bytes on each card, estimated", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for demand, card in columns:
        table.add_column(f"{demand.cards} x {card / GB:.0f} GB", justify="right", no_wrap=True)
    places = ("host" if demand.on_host else "device" for demand, _ in columns)
    table.add_row("AdamW's moments on the", *places)
    _section(table, "in an update", [one.updating for one in estimates])
    _section(table, "while the engine samples", [one.sampling for one in estimates])
    if any(one.engine_share for one in estimates):
        table.add_row("left for its cache", *(_gb(one.left) for one in estimates))
        table.add_row("  in tokens", *(f"{one.cached_tokens:,}" for one in estimates))
        longest = (f"{demand.longest_sequence:,}" for demand, _ in columns)
        table.add_row("  at least one sequence of", *longest)
        shares = (f"{max(one.engine_share, 0):.0%}" for one in estimates)
        table.add_row("engine's share of a card", *shares)
    table.add_row("on each host, page-locked", *(_gb(one.on_host) for one in estimates))
    table.add_row("fits", *("yes" if one.fits else "no" for one in estimates), style="bold")
    return table


def _section(table: Table, name: str, columns: Sequence[dict[str, float]]) -> None:
    table.add_row(name, *(_gb(sum(column.values())) for column in columns), style="bold")
    for row in columns[0]:
        if any(column[row] for column in columns):
            table.add_row(f"  {row}", *(_gb(column[row]) for column in columns))


def _gb(count: float) -> str:
    return f"{count / GB:.1f}" if count else "–"


def _demand(
    config: DictConfig,
    components: Components,
    policy: PretrainedConfig,
    teacher: PretrainedConfig | None,
) -> Demand:
    """What the run asks of its cards; ``teacher``: of another model, None for the policy's own."""
    training, low = components.training, components.dtype == torch.bfloat16
    size = ModelSize.from_config(policy)
    teacher_size = size if teacher is None else ModelSize.from_config(teacher)
    return Demand(
        policy=size,
        cards=rank_count(config),
        hosts=config.trainer.num_nodes,
        gathers=low or config.trainer.strategy != "auto",
        low=low,
        moments=training.optimization.moments,
        token_budget=training.token_budget,
        longest_sequence=training.longest_sequence,
        checkpointing=components.model.gradient_checkpointing,
        teacher=None if components.teacher.is_policy else teacher_size,
        teacher_bytes=HALF if low and not components.teacher.changes else FLOAT,
        engine="gpu_memory_utilization" in config.engine,
        engine_share=config.engine.get("gpu_memory_utilization"),
        tensor_parallel=config.engine.get("tensor_parallel", 1),
    )


def _card_memory() -> int:
    """Bytes of this process's card."""
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def _usable_memory(components: Components) -> float:
    """Bytes of a card that the run may count on; UserError where the setting exceeds what is there."""
    memory, card_gb = _card_memory(), components.run.card_gb
    if card_gb is None:
        return memory
    if card_gb * GB > memory:
        raise UserError(
            f"card_gb is {card_gb}, it must be null or at most the {memory / GB:.1f} GB of the card"
        )
    return card_gb * GB


def fit_to_cards(
    config: DictConfig,
    components: Components,
    spec: EngineSpec,
    policy: PretrainedConfig,
    teacher: PretrainedConfig | None,
) -> tuple[Components, EngineSpec]:
    """The run's components and engine with what its cards leave; prints the table.

    UserError, with the settings that fit, where cards or host do not hold the run.
    """
    card = _usable_memory(components)
    demand = resolve_moments(_demand(config, components, policy, teacher), card)
    _print_table([(demand, card)], components.model.name)
    require_memory(demand, card, components.training.problems_per_update)
    needed = estimate(demand, card)
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed.on_host > host:
        raise UserError(
            f"AdamW's moments would take {needed.on_host / GB:.0f} GB of the host's memory, which has "
            f"{host / GB:.0f} GB: use more machines or more cards with "
            "training.optimization.moments=device"
        )
    optimization = replace(components.training.optimization, moments=demand.moments)
    training = replace(components.training, optimization=optimization)
    share = needed.engine_share * card / _card_memory() if demand.engine else None
    return replace(components, training=training), replace(spec, gpu_memory_share=share)


def check_memory(
    config: DictConfig,
    components: Components,
    policy: PretrainedConfig,
    teacher: PretrainedConfig | None,
) -> None:
    """Print what the cards would hold; UserError where none of them holds the run."""
    demand = _demand(config, components, policy, teacher)
    divisible = components.training.problems_per_update
    columns = [
        (resolve_moments(option, card), card)
        for option, card in _cards_in_question(config, components, demand)
        if divisible % option.cards == 0 and option.cards % option.tensor_parallel == 0
    ]
    _print_table(columns, components.model.name)
    refusals = []
    for option, card in columns:
        try:
            require_memory(option, card, divisible)
        except UserError as error:
            refusals.append(str(error))
            continue
        where = "moments on the host" if option.on_host else "moments on the device"
        share = f", {estimate(option, card).engine_share:.0%} of a card for the engine"
        print_once(
            f"would start on {option.cards} x {card / GB:.0f} GB: {where}" + share * demand.engine
        )
    if len(refusals) == len(columns):
        raise UserError("; ".join(refusals))
    for refusal in refusals:
        print_once(refusal)


def _cards_in_question(
    config: DictConfig, components: Components, demand: Demand
) -> list[tuple[Demand, float]]:
    """The demand on the cards of this machine, on those that the settings name, or on the usual ones,
    with the bytes of a card.
    """
    if torch.cuda.is_available():
        return [(demand, _usable_memory(components))]
    card_gb, one_card = components.run.card_gb, config.trainer.strategy == "auto"
    all_of_machine = config.trainer.devices == "auto"  # which has none
    if card_gb is not None:
        counts = (1, 8) if all_of_machine and not one_card else (demand.cards,)
        cards = [(count, card_gb) for count in counts]
    elif one_card or all_of_machine:
        cards = list(USUAL_CARDS)
    else:
        cards = [(demand.cards, gb) for gb in sorted({gb for _, gb in USUAL_CARDS})]
    return [
        (replace(demand, cards=count, gathers=demand.gathers or count > 1), gb * GB)
        for count, gb in cards
    ]


def _print_table(columns: Sequence[tuple[Demand, float]], model: str) -> None:
    if is_rank_zero():
        console.print(memory_table(columns, f"memory of {model}"))
