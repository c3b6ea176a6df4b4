# Sourced by setup.sh and lock.sh, with $python and $build set: tells pip and uv how to fetch.

# uv does not read pip's settings; hand over those that decide what can be found at all.
pip_setting() {
    "$python" -m pip config list 2>/dev/null |
        sed -nE "s/^(:env:|global|user|site)?\.?$1='(.*)'\$/\2/p" | tail -n 1 || true
}

# Not for the GPU: a folder of local wheels that holds a CPU torch would win there.
if [[ -z ${UV_FIND_LINKS:-} && $build != gpu ]]; then
    links=${PIP_FIND_LINKS:-$(pip_setting find-links)}
    if [[ -n $links ]]; then
        export UV_FIND_LINKS=${links// /,}
    fi
fi
if [[ -z ${UV_DEFAULT_INDEX:-} ]]; then
    index=${PIP_INDEX_URL:-$(pip_setting index-url)}
    if [[ -n $index ]]; then
        export UV_DEFAULT_INDEX=$index
    fi
fi
if [[ -z ${SSL_CERT_FILE:-} ]]; then
    certificates=${PIP_CERT:-$(pip_setting cert)}
    if [[ -n $certificates ]]; then
        export SSL_CERT_FILE=$certificates
    fi
fi

# Big wheels over slow lines: seconds without a byte, and tries.
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-600} UV_HTTP_RETRIES=${UV_HTTP_RETRIES:-8}
export PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-180}

if [[ -z ${UV_CACHE_DIR:-} ]]; then
    cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}
    if ! { mkdir -p "$cache/uv" && [[ -w $cache/uv ]]; } 2>/dev/null; then
        export UV_CACHE_DIR=$PWD/.venv/cache
    fi
fi
