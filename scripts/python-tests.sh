#!/usr/bin/env bash
# Builds the wheel from the library that the workspace build made, installs it
# in a clean virtual environment and runs the Python tests there.
#
# Usage: scripts/python-tests.sh [wheel]      `wheel`: stop after building it
set -euo pipefail
. "$(dirname "$0")/env.sh"

pip_quiet() { "$1/bin/python" -m pip install -q --disable-pip-version-check "${@:2}" </dev/null; }

if [ ! -x "$VENV/bin/maturin" ]; then
	say "making a virtual environment with maturin in .cache/venv"
	python3 -m venv "$VENV"
	pip_quiet "$VENV" 'maturin>=1.9,<2'
fi
say "building the wheel"
rm -rf .cache/wheels
CARGO="$ROOT/scripts/maturin-cargo" "$VENV/bin/maturin" build --profile dev --locked \
	--compatibility linux --manifest-path bindings/python/Cargo.toml --out .cache/wheels </dev/null
wheel=$(ls .cache/wheels/*.whl)
[ "${1:-}" != wheel ] || { say "the wheel is $wheel"; exit 0; }

say "installing the wheel in a clean virtual environment"
rm -rf .cache/clean
python3 -m venv .cache/clean
pip_quiet .cache/clean "$wheel[test]"
say "running the Python tests"
cd bindings/python
"$ROOT/.cache/clean/bin/python" -m pytest -q -rs -p no:cacheprovider tests </dev/null
say "comparing the stub with the module"
"$ROOT/.cache/clean/bin/python" -m mypy.stubtest inwarden._native --ignore-disjoint-bases </dev/null
say "checking types of the package and of the example"
for what in "-p inwarden" "$ROOT/examples/guard_agent.py"; do
	# shellcheck disable=SC2086 # an option and its value
	"$ROOT/.cache/clean/bin/python" -m mypy --strict --cache-dir=/dev/null $what </dev/null
done
