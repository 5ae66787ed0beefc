#!/usr/bin/env bash
# `make test`: everything that can be tested here, the real kernel and the real
# models included. All phases run even if one fails; what could not run at all is
# named in the last lines.
set -euo pipefail
. "$(dirname "$0")/env.sh"

passed=0 failed=0
not_run=()

# phase NAME COMMAND...: runs it with its output shown and kept.
phase() {
	local name=$1 log="$LOGS/${1// /-}.log" start=$SECONDS
	shift
	say "=== $name"
	if "$@" </dev/null 2>&1 | tee "$log"; then
		passed=$((passed + 1))
		say "=== $name passed in $((SECONDS - start)) s"
	else
		failed=$((failed + 1))
		say "=== $name FAILED in $((SECONDS - start)) s; see $log"
	fi
	while read -r line; do not_run+=("$line"); done < <(grep -h '^SKIPPED' "$log" | sort -u || true)
}

scripts/bootstrap.sh
if is_root; then
	# Only to prove that the committed eBPF objects come from their sources.
	scripts/bootstrap.sh clang-14=clang-14 llvm-strip-14=llvm-14 || true
fi
start_models
build_all
finish_models
if is_root; then
	export INWARDEN_TEST_REAL=1
else
	not_run+=("everything that loads eBPF programs: this is not root")
fi

ebpf() {
	local status=0
	ebpf/check.sh || status=$?
	[ $status != 2 ] || { echo "SKIPPED: the eBPF objects were not rebuilt: clang-14 and llvm-14 are missing"; return 0; }
	return $status
}
examples() {
	local ran=0
	for source in examples/*.rs; do
		say "example $(basename "$source" .rs)"
		"target/debug/examples/$(basename "$source" .rs)" || return 1
		ran=$((ran + 1))
	done
	[ $ran -gt 0 ]
}
# Among them are the plays of both scenes on this kernel, with and without rules
# (crates/cli/tests/demo); misses are printed.
phase "Rust tests" cargo test --workspace --all-targets --locked --no-fail-fast -- --show-output
phase "documentation tests" cargo test --workspace --doc --locked
phase "examples" examples
phase "eBPF objects" ebpf
corpus() {
	python3 -B crates/classifier/data/corpus/check.py && python3 -B crates/classifier/data/corpus/check_text.py
}
phase "corpus" corpus
phase "Python tests" scripts/python-tests.sh
phase "nothing is compiled twice" scripts/check-no-rebuild.sh

say "tests: $(cat "$LOGS/Rust-tests.log" "$LOGS/documentation-tests.log" |
	awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed", passed, failed }') in Rust;" \
	"$(grep -E '^[0-9]+ (passed|failed)|, [0-9]+ passed' "$LOGS/Python-tests.log" | tail -n 1) in Python"
for line in "${not_run[@]+"${not_run[@]}"}"; do
	say "NOT RUN: $line"
done
say "memory: $(grep -h '^server: ' "$LOGS/Rust-tests.log" | tail -n 1)"
say "phases: $passed passed, $failed failed"
[ $failed = 0 ]
