"""Whether the tensors inside a vLLM model are, to the bit, those of a policy."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}  # bytes of an element -> the same bits
_COLUMNS = 4  # of a packed matrix, multiplied out


def differing(model: nn.Module, weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the ``weights`` that the model does not hold, and of its own that are not among them.

    ``weights`` are whole tensors under their Hugging Face names, read to the end. Of a model whose
    tensors are divided over ranks this rank's part is compared. What pads the vocabulary is left out:
    its logits are cut off. Where products read packed copies (the CPU build), some columns of each
    copy are compared too: a copy is made at once, so one of older weights differs in all of them.
    """
    wrong, missing = [], _names(model)
    for name, full in weights:
        missing.pop(name, None)
        if not _serves(model, name, full):
            wrong.append(name)
    return wrong + list(missing) + _stale_copies(model)


def _names(model: nn.Module) -> dict[str, None]:
    """The Hugging Face names of all parameters of a vLLM model, in its order."""
    packed: Any = model.packed_modules_mapping
    names: dict[str, None] = {}
    for name, _ in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        parent, _, last = module.rpartition(".")
        if last in packed:
            names |= dict.fromkeys(f"{parent}.{part}.{leaf}" for part in packed[last])
        else:
            names[name] = None
    return names


def _serves(model: nn.Module, name: str, full: Tensor) -> bool:
    served, first_row, rank = _place(model, name)
    sent = full.narrow(0, first_row, min(len(served), len(full) - first_row))
    if sent.dim() > 1 and sent.shape[1] != served.shape[1]:  # columns divided over ranks
        sent = sent.narrow(1, rank * served.shape[1], served.shape[1])
    if sent.shape != served.shape:
        return False
    bits = _BITS[served.element_size()]  # equal bits: a NaN is equal to itself, and -0 is not 0
    return torch.equal(served.view(bits), sent.to(served.dtype).view(bits))


def _place(model: nn.Module, name: str) -> tuple[Tensor, int, int]:
    """What this rank serves of the tensor of a Hugging Face name, from which of its rows on, and the
    rank among those that divide it. Says again what vLLM's forward passes read, not its loaders.
    """
    path, _, leaf = name.rpartition(".")
    parent, _, last = path.rpartition(".")
    packed: Any = model.packed_modules_mapping
    module: Any  # of vLLM's own classes
    for together, parts in packed.items():
        if last not in parts:
            continue
        module = model.get_submodule(f"{parent}.{together}")
        at, rank = parts.index(last), module.tp_rank
        sizes = [size // module.tp_size for size in module.output_sizes]
        if at > 0:  # several ranks hold the same keys and values where there are fewer heads
            rank //= getattr(module, "num_kv_head_replicas", 1)
        served = module.get_parameter(leaf).narrow(0, sum(sizes[:at]), sizes[at])
        return served, rank * sizes[at], module.tp_rank
    module = model.get_submodule(path)
    served, rank = module.get_parameter(leaf), int(getattr(module, "tp_rank", 0))
    if hasattr(module, "shard_indices"):  # of the vocabulary
        start = module.shard_indices.org_vocab_start_index
        return served.narrow(0, 0, module.shard_indices.org_vocab_end_index - start), start, rank
    return served, 0, rank


def _stale_copies(model: nn.Module) -> list[str]:
    """The matrices whose packed copy, which the products read, is not theirs.

    Rows of the unit matrix times the copy are its columns, exactly: every other product is zero.
    """
    stale = []
    for name, module in model.named_modules():
        if not hasattr(module, "cpu_linear"):
            continue
        weight: Any = module.weight
        columns = torch.linspace(0, weight.shape[1] - 1, _COLUMNS).long()
        unit = torch.zeros(_COLUMNS, weight.shape[1], dtype=weight.dtype)
        unit[torch.arange(_COLUMNS), columns] = 1
        product = module.cpu_linear(unit, weight, None)
        if not torch.equal(product, weight[:, columns].T):
            stale.append(f"{name}.weight (packed)")
    return stale
