#!/usr/bin/env bash
# Makes the environments of the peers that `make bench` measures:
#   scripts/make_peers.sh [DIRECTORY] [PYTHON]
# DIRECTORY has xoscar, pyzmq, nats-py, and what draws plots; academy-py 1.0.0 is in
# DIRECTORY/academy-py, since it is a package `academy`, too.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=${1:-.venv-peers} python=${2:-python3}

make_environment() {
    local place=$1
    shift
    "$python" -m venv "$place"
    "$place/bin/pip" install -q --disable-pip-version-check "$@"
}

make_environment "$directory" xoscar pyzmq nats-py numpy matplotlib
make_environment "$directory/academy-py" academy-py==1.0.0 numpy
