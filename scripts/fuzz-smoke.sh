#!/usr/bin/env bash
# Fuzzes every target of crates/inference/fuzz for a short while, from its seeds:
# SECONDS_EACH, 20 by default. Exits with 2 if cargo-fuzz or a nightly toolchain
# is not installed.
set -euo pipefail
. "$(dirname "$0")/env.sh"

if ! rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
	say "NOT RUN: fuzzing needs a nightly toolchain (rustup toolchain install nightly --profile minimal)"
	exit 2
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
	say "NOT RUN: fuzzing needs cargo-fuzz (cargo install cargo-fuzz --locked)"
	exit 2
fi
# Clippy is the pinned toolchain's, not the nightly one's.
unset RUSTC_WORKSPACE_WRAPPER
crate=$ROOT/crates/inference/fuzz
target_dir=${FUZZ_TARGET_DIR:-$ROOT/target/fuzz}
corpus=$target_dir/corpus
# The versions that everything else is built and tested with.
cp Cargo.lock "$crate/Cargo.lock"
python3 "$crate/seeds.py" "$corpus"
failed=()
for target in $(sed -n 's/^name = "\(.*\)"/\1/p' "$crate/Cargo.toml" | grep -v '^inwarden-'); do
	say "fuzzing $target"
	SEED_CORPUS="$corpus/saved_prefix" cargo +nightly fuzz run --fuzz-dir "$crate" --target-dir "$target_dir" "$target" "$corpus/$target" -- \
		-max_total_time="${SECONDS_EACH:-20}" -max_len=16384 -malloc_limit_mb=16 -rss_limit_mb=1500 \
		-artifact_prefix="$target_dir/crash-$target-" -verbosity=0 -print_final_stats=1 </dev/null || failed+=("$target")
done
for target in "${failed[@]+"${failed[@]}"}"; do say "fuzzing $target FAILED; its input is in $target_dir"; done
[ ${#failed[@]} = 0 ]
