#!/usr/bin/env bash
# Runs the tests of the kernels with address sanitizer, which needs a nightly
# toolchain: every access outside of a buffer ends the run. Exits with 2 if no
# nightly toolchain is installed.
set -euo pipefail
. "$(dirname "$0")/env.sh"

if ! rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
	say "NOT RUN: address sanitizer needs a nightly toolchain (rustup toolchain install nightly --profile minimal)"
	exit 2
fi
# Clippy is the pinned toolchain's, not the nightly one's.
unset RUSTC_WORKSPACE_WRAPPER
host=$(rustc -vV | sed -n 's/^host: //p')
# The sanitizer watches the leaks too; the tests leave none.
RUSTFLAGS=-Zsanitizer=address cargo +nightly test -p inwarden-kernels --lib --tests --locked \
	--target "$host" --target-dir "${ASAN_TARGET_DIR:-$ROOT/target/asan}" "$@" </dev/null
