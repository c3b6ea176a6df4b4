"""Several processes: Lightning's FSDP2 strategy with one shape, all ranks in one row."""

from datetime import timedelta
from functools import cached_property

import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

# Long: a rank waits for the slowest to have sampled. A rank that died is noticed by other means.
COLLECTIVE_TIMEOUT = timedelta(hours=12)


class FullySharded(ModelParallelStrategy):
    """Parameters, gradients and optimizer state spread over all ranks; a layer is gathered when used.

    One rank is enough: its float32 weights then are cast to bfloat16 layer by layer, as with several.
    ``sharded_checkpoints``: every rank writes its own part, into a folder; else rank 0 writes one file.
    Either kind of checkpoint continues on any number of ranks.
    """

    def __init__(self, sharded_checkpoints: bool = True) -> None:
        super().__init__(
            save_distributed_checkpoint=sharded_checkpoints,
            # small tensors of the host are summed too
            process_group_backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            timeout=COLLECTIVE_TIMEOUT,
        )

    @cached_property
    def ranks_mesh(self) -> DeviceMesh:
        """All ranks in one row."""
        return init_device_mesh(self.root_device.type, (self.world_size,))

    @property
    def precision_plugin(self) -> Precision:
        """What Lightning wraps every step in: nothing."""
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin: Precision | None) -> None:
        self._precision_plugin = Gathered() if isinstance(plugin, MixedPrecision) else plugin

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of gathered layers; the shards are float32."""
        return torch.bfloat16 if isinstance(self.precision_plugin, Gathered) else torch.float32


class Gathered(Precision):
    """bf16-mixed by layers that are gathered in bfloat16: autocast would raise parts to float32 again."""

    precision = "bf16-mixed"
