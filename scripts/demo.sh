#!/usr/bin/env bash
# Sets everything up and trains the tiny policy with RLRT through the vLLM engine on the CPU.
# Arguments are settings of the run, as in: bash scripts/demo.sh credit=grpo seed=1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python src/rlrt/train.py credit=rlrt model=tiny "$@"
