#!/usr/bin/env bash
# Compiles requirements/{cpu,base,gpu}.txt from pyproject.toml, on Linux, for Python 3.11.
#
#   bash scripts/lock.sh [--upgrade | --upgrade-package NAME]
#
# The files are used as constraints: every extra is in them, setup.sh takes what it needs. The local
# part of torch's version (+cpu) is left out, so that one line fits every machine's build of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
bash scripts/setup.sh
build=cpu
source scripts/uv_env.sh

compile() {
    local name=$1
    shift
    echo "lock: requirements/$name.txt"
    .venv/bin/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --no-emit-index-url --no-emit-find-links --no-annotate \
        --custom-compile-command 'bash scripts/lock.sh' \
        --extra analysis --extra dev --extra bench --extra wandb -c requirements/build.txt \
        --output-file "requirements/$name.txt" "$@" pyproject.toml
    sed -i 's/^\(torch==[0-9.]*\)+cpu$/\1/' "requirements/$name.txt"
}

cpu=(--override requirements/overrides.txt)
if [[ -z ${UV_FIND_LINKS:-} ]]; then
    cpu+=(--torch-backend cpu)
fi
compile cpu --extra cpu "${cpu[@]}" "$@"
compile base -c requirements/cpu.txt "${cpu[@]}" "$@"
unset UV_FIND_LINKS
compile gpu --extra gpu "$@"
