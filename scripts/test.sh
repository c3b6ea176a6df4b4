#!/usr/bin/env bash
# Sets everything up, then checks format, lint and types, and runs the tests.
# Arguments go to pytest, as in: bash scripts/test.sh -m "not slow"
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh --dev || exit

failed=()
check() {
    local name=$1
    shift
    echo "== $name"
    if ! .venv/bin/python -m "$@"; then
        failed+=("$name")
    fi
}

check format ruff format --check .
check lint ruff check .
check types mypy
echo "== so far: ${failed[*]:-no} failures"
# Every worker's tests start engines and further processes of their own: one thread for each of them,
# and what one has compiled of a library is there for all: a new environment has nothing compiled, and
# importing vLLM then takes half a minute each time.
export PYTHONDONTWRITEBYTECODE=
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} check tests pytest -n auto --maxprocesses 4 --dist worksteal "$@"
if ((${#failed[@]})); then
    echo "FAILED: ${failed[*]}" >&2
    exit 1
fi
