#!/usr/bin/env bash
# One run as a SLURM job that goes on by itself after a preemption or at its time limit:
#
#   sbatch --nodes 2 --gpus-per-node 8 --time 24:00:00 scripts/slurm.sh \
#     credit=rlrt model=qwen3_8b strategy=fsdp
#
# The folder is logs/slurm-<job>, or RUN where that is set; all nodes must see it. Words that the
# cluster needs (partition, account) go to sbatch.
#SBATCH --job-name=rlrt
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -uo pipefail

run=${RUN:-logs/slurm-$SLURM_JOB_ID} # a requeued job keeps its number
devices=${SLURM_GPUS_ON_NODE:-1}
nodes=${SLURM_JOB_NUM_NODES:-1}
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 40000)) # jobs that share a node do not meet

words=("$@")
if compgen -G "$run/checkpoints/*" > /dev/null; then
    words=("resume=$run")
fi

srun --kill-on-bad-exit=1 \
    torchrun --nnodes "$nodes" --nproc-per-node "$devices" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:$port" \
    -m rlrt.train "${words[@]}" "trainer.devices=$devices" "trainer.num_nodes=$nodes" \
    "hydra.run.dir=$run" &
training=$!

# SLURM asks the batch script to end, two minutes before it would be killed
requeue() {
    kill -TERM "$training" 2> /dev/null
    wait "$training"
    echo "slurm: $run stopped; requeued"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap requeue TERM
wait "$training"
