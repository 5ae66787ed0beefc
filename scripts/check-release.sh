#!/usr/bin/env bash
# `make check-release`: what is checked before a release and takes too long for
# every change. Uses a target directory of its own, because these builds differ
# from the one build on purpose.
set -euo pipefail
. "$(dirname "$0")/env.sh"
export CARGO_TARGET_DIR="$ROOT/target/check-release" CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__
failed=()
not_run=()
phase() {
	say "=== $1"
	if "${@:2}" </dev/null; then say "=== $1 passed"; else failed+=("$1"); say "=== $1 FAILED"; fi
}
# As phase, for what exits with 2 where a tool that it needs is not installed.
phase_if_possible() {
	local status=0
	say "=== $1"
	"${@:2}" </dev/null || status=$?
	case $status in
	0) say "=== $1 passed" ;;
	2) not_run+=("$1: a tool is not installed, see above") && say "=== $1 NOT RUN" ;;
	*) failed+=("$1") && say "=== $1 FAILED" ;;
	esac
}

scripts/bootstrap.sh
phase "no features" cargo build --workspace --lib --bins --locked --no-default-features
features=$(cargo metadata --no-deps --offline --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    for feature in package["features"]:
        if feature not in ("default", "cuda"):
            print(package["name"] + "/" + feature)')
for feature in $features; do
	phase "feature $feature alone" cargo build --workspace --lib --bins --locked --no-default-features --features "$feature"
done
if [ -n "$features" ]; then
	phase "all features but cuda" cargo build --workspace --lib --bins --locked --features "$(echo $features | tr ' ' ,)"
fi
# All that is built here is built with the pinned toolchain.
minimum_rust() {
	local minimum pinned
	minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
	case $pinned in "$minimum" | "$minimum".*) ;; *) say "rust-version is $minimum, the pinned toolchain $pinned" && return 1 ;; esac
}
phase "minimum Rust version" minimum_rust
docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked; }
phase "documentation" docs

if cargo deny --version >/dev/null 2>&1; then
	phase "licences, bans and sources" cargo deny --offline check licenses bans sources
	cargo deny check advisories </dev/null || not_run+=("advisories: they failed, or their database cannot be had here")
else
	not_run+=("cargo deny: not installed (cargo install cargo-deny)")
fi

sdist() {
	local dir="$ROOT/.cache/sdist"
	[ -x "$VENV/bin/maturin" ] || { python3 -m venv "$VENV" && "$VENV/bin/python" -m pip install -q 'maturin>=1.9,<2'; }
	rm -rf "$dir"
	"$VENV/bin/maturin" sdist --manifest-path bindings/python/Cargo.toml --out "$dir" &&
		python3 -m venv "$dir/venv" &&
		env -u RUSTC_WORKSPACE_WRAPPER "$dir/venv/bin/python" -m pip install -q "$dir"/*.tar.gz &&
		(cd / && "$dir/venv/bin/python" -c 'import inwarden; print(inwarden.__name__)')
}
phase "source distribution" sdist

phase "a store killed 100 times" env INWARDEN_TEST_MEMORY_KILLS=100 \
	cargo test --locked -p inwarden-memory --test store killing -- --show-output
phase_if_possible "kernels under address sanitizer" scripts/kernels-asan.sh
phase_if_possible "fuzzing, shortly" scripts/fuzz-smoke.sh

if ! cargo semver-checks --version >/dev/null 2>&1; then
	not_run+=("semver: cargo-semver-checks is not installed (cargo install cargo-semver-checks --locked)")
elif ! release=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); then
	not_run+=("semver: there is no released version to compare with")
else
	phase "semver since $release" cargo semver-checks --workspace --baseline-rev "$release"
fi

for line in "${not_run[@]+"${not_run[@]}"}"; do say "NOT RUN: $line"; done
for line in "${failed[@]+"${failed[@]}"}"; do say "FAILED: $line"; done
say "check-release: ${#failed[@]} failed"
[ ${#failed[@]} = 0 ]
