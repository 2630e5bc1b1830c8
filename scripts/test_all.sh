#!/usr/bin/env bash
# Runs the tests once per CPython >= 3.11 found in PATH or under ~/.pyenv/versions.
# Each version has its own environment in .venv-all/. Ends non-zero if any run fails.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

# Prints "3.12" for a usable interpreter; a pyenv shim without a version fails here.
version_of() {
    "$1" -c '
import ensurepip, ssl, sys, venv
usable = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)
usable or sys.exit(1)
print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

run_tests() {
    local environment=.venv-all/$1 python=$2
    if [ ! "$environment/.ok" -nt pyproject.toml ]; then
        "$python" -m venv --clear "$environment" &&
            "$environment/bin/pip" install -q --disable-pip-version-check -e '.[dev]' &&
            touch "$environment/.ok" || return 1
    fi
    "$environment/bin/pytest" -q -n 2 --dist loadfile -m "not slow and not fault"
}

done="" failed=""
for python in python3.{11,12,13,14} python3 ~/.pyenv/versions/*/bin/python3; do
    version=$(version_of "$python") || continue
    case " $done " in *" $version "*) continue ;; esac
    done="$done $version"
    echo "== CPython $version ($python)"
    run_tests "$version" "$python" || failed="$failed $version"
done

[ -n "$done" ] || { echo "no CPython >= 3.11 found" >&2; exit 2; }
[ -z "$failed" ] || { echo "failed on:$failed" >&2; exit 1; }
echo "green on:$done"
