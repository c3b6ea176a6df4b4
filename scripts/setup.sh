#!/usr/bin/env bash
# Makes .venv in the project's root with pinned packages. Safe to run again: takes seconds then.
#
#   bash scripts/setup.sh [--cpu | --gpu | --no-vllm] [--dev]
#
#   --cpu      vLLM's CPU build (default for a new .venv; an existing one keeps its build)
#   --gpu      vLLM's GPU build
#   --no-vllm  neither: training with engine=hf, and the unit tests
#   --dev      also what scripts/test.sh needs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
build='' dev=''
for argument in "$@"; do
    case $argument in
        --cpu) build=cpu ;;
        --gpu) build=gpu ;;
        --no-vllm) build=base ;;
        --dev) dev=yes ;;
        *) echo "setup: unknown option $argument (--cpu, --gpu, --no-vllm, --dev)" >&2; exit 2 ;;
    esac
done

say() { echo "setup: $*"; }
usable() { "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3 python3.12 python; do
        if usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: needs Python 3.11 or 3.12 with its venv module (on Debian: python3-venv)," \
        "in PATH or named by PYTHON=/path/to/python" >&2
    return 1
}

# The CPU and the GPU build write the same files, so changing the build means a new environment.
kept=$(cat .venv/build 2>/dev/null || true)
build=${build:-${kept:-cpu}}
if [[ -n $kept && $kept != "$build" ]] || ! usable "$python"; then
    base=$(find_python)
    say "making .venv ($("$base" --version), $build)"
    "$base" -m venv --clear .venv
fi
echo "$build" > .venv/build

source scripts/uv_env.sh
if ! cmp -s requirements/build.txt .venv/build.txt; then
    say 'installing uv'
    "$python" -m ensurepip > /dev/null  # lacking where making .venv was cut short
    "$python" -m pip install --quiet --disable-pip-version-check --no-input -r requirements/build.txt
    cp requirements/build.txt .venv/build.txt
fi

install() { .venv/bin/uv pip install --quiet --python "$python" --no-build-isolation "$@"; }

packages=(-r pyproject.toml --extra analysis -c "requirements/$build.txt")
[[ -z $dev ]] || packages+=(--extra dev)
[[ $build == base ]] || packages+=(--extra "$build")
if [[ $build == gpu ]]; then
    torch=auto
else
    torch=cpu
    packages+=(--override requirements/overrides.txt)
fi
# A folder that holds the right torch, or else the index that PyTorch keeps for each kind of it.
[[ -n ${UV_FIND_LINKS:-} ]] || packages+=(--torch-backend "${UV_TORCH_BACKEND:-$torch}")
say "installing the packages of requirements/$build.txt${dev:+, development tools included}"
install "${packages[@]}"
install --no-deps --editable .
say "ready: $PWD/.venv"
