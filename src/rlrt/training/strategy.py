"""Several processes: Lightning's FSDP2 strategy with one shape, all ranks in one row."""

from datetime import timedelta
from functools import cached_property

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

# Long: a rank waits for the slowest to have sampled. A rank that died is noticed by other means.
PATIENCE = timedelta(hours=12)


class FullySharded(ModelParallelStrategy):
    """Parameters, gradients and optimiser state spread over all ranks; a layer is gathered when used.

    ``sharded_checkpoints``: every rank writes its own part, into a folder; else rank 0 writes one file.
    ``offload_optimizer``: the optimiser's state waits in the host's memory while the engine samples.
    Either kind of checkpoint continues on any number of ranks.
    """

    def __init__(self, sharded_checkpoints: bool = True, offload_optimizer: bool = False) -> None:
        super().__init__(
            save_distributed_checkpoint=sharded_checkpoints,
            # small tensors of the host are summed too
            process_group_backend="cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            timeout=PATIENCE,
        )
        self.offload_optimizer = offload_optimizer

    @cached_property
    def ranks_mesh(self) -> DeviceMesh:
        """All ranks in one row."""
        return init_device_mesh(self.root_device.type, (self.world_size,))

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of gathered layers; the shards are float32."""
        mixed = self.precision_plugin.precision == "bf16-mixed"
        return torch.bfloat16 if mixed else torch.float32
