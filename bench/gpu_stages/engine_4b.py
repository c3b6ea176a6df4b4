"""Stage 6: the engine of a Qwen3-4B with random weights."""

from gpu_stages.stage import Check, Skipped


def run(check: Check) -> None:
    """The engine wakes once before the first update."""
    if not check.card:  # before anything slow is imported
        raise Skipped(
            "CUDA graphs and gigabytes that sleep need a card; engine runs the same rounds"
        )
    import torch
    from gpu_stages.engine import serve
    from gpu_stages.model import shape_of_stage, write_model
    from transformers import AutoModelForCausalLM
    from workload import draw

    from rlrt.model.packed_attention import checkpoint_activations

    shape = shape_of_stage(check.card)
    folder = write_model(shape, check.folder / "model")
    check.doing("drawing the weights")
    torch.manual_seed(0)
    with torch.device(check.device):
        policy = AutoModelForCausalLM.from_config(shape, dtype=torch.float32).train()
    checkpoint_activations(policy, save_attention=False)
    serve(check, policy, folder, draw(8, 8, 256), updates=1, syncs_per_update=2)
