#!/bin/sh
# Make a virtual environment that holds exactly the packages of a hashed lock.
#   usage: scripts/make-venv.sh DIRECTORY LOCK
# Uses uv if it is there, otherwise Python's own venv and pip. pip is also the way out when uv fails, for it reads
# the machine's own pip configuration. BASE_PYTHON=python3.12 chooses the interpreter.
set -eu
venv=$1
lock=$2

fail() { echo "error: $1" >&2; exit 1; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

choose_python() {
    for candidate in ${BASE_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        # A name on PATH proves nothing: version managers leave names that refuse to run.
        if is_new_enough "$candidate"; then echo "$candidate"; return; fi
    done
    fail "no Python 3.11 or newer found; name one: make setup BASE_PYTHON=/path/to/python3"
}

with_uv() {
    command -v uv >/dev/null 2>&1 || return 1
    echo "$venv: $("$python" --version), packages by uv"
    # uv brings its own certificates, which do not know a proxy of the house; the system's do.
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_PYTHON_DOWNLOADS=never
    uv venv --quiet --clear --python "$("$python" -c 'import sys; print(sys.executable)')" "$venv" &&
        uv pip install --quiet --python "$venv/bin/python" --compile-bytecode --require-hashes -r "$lock" &&
        return
    echo "$venv: uv did not manage; trying pip" >&2
    return 1
}

with_pip() {
    echo "$venv: $("$python" --version), packages by pip"
    "$python" -m venv --clear "$venv" ||
        fail "this Python cannot make environments; on Debian and Ubuntu: apt install python3-venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r "$lock"
}

python=$(choose_python)
with_uv || with_pip
