#!/usr/bin/env bash
# `make check-cuda`: compiles the feature `cuda` for sm_89 (an L4) and links the
# program, the Python wheel and the checking binary, on a machine without a card
# and without a driver. Half an hour of one processor the first time. Nothing is
# run on a card here. The wheel is put in .cache/wheels-cuda.
set -euo pipefail
# shellcheck source=cuda-env.sh
. "$(dirname "$0")/cuda-env.sh"

install_cuda
say "nvcc: $("$CUDA_HOME/bin/nvcc" --version | tail -n 2 | head -n 1)"
cuda_build_env "${CAP:-89}"
stub_driver "$CARGO_TARGET_DIR/stub" 75
export RUSTFLAGS="-L native=$CARGO_TARGET_DIR/stub -L native=$CUDA_HOME/lib ${RUSTFLAGS:-}"
say "compiling candle's kernels for sm_$CUDA_COMPUTE_CAP and linking (quiet for minutes)"
# shellcheck disable=SC2086 # options and their values
nice -n 19 cargo build --locked $CUDA_BUILD </dev/null

libraries=$CARGO_TARGET_DIR/stub:$CUDA_HOME/lib
check_links() {
	local binary=$1 missing
	say "$(basename "$binary") needs:"
	LD_LIBRARY_PATH=$libraries ldd "$binary" | sed 's/ (0x.*//'
	missing=$(LD_LIBRARY_PATH=$libraries ldd "$binary" | grep 'not found' || true)
	[ -z "$missing" ] || die "linked, but it needs more: $missing"
	LD_LIBRARY_PATH=$libraries ldd "$binary" | grep -q libcublas ||
		die "$binary was linked without CUDA"
}
program=$CARGO_TARGET_DIR/debug/inwarden
check=$CARGO_TARGET_DIR/debug/examples/cuda_check
check_links "$program"
check_links "$check"
check_links "$CARGO_TARGET_DIR/debug/lib_native.so"

# The stub describes a card of another kind: it must be refused, typed, before
# anything is computed.
refused() {
	local answer
	answer=$(LD_LIBRARY_PATH=$libraries "$@" 2>&1 </dev/null || true)
	case $answer in
	*"compiled for compute capability "*", the card has 7.5"*) ;;
	*) die "with a wrong card $1 said: $answer" ;;
	esac
}
refused "$check"
say "a card of compute capability 7.5 is refused"
LD_LIBRARY_PATH=$libraries "$program" --version

say "packing the wheel"
if [ ! -x "$VENV/bin/maturin" ]; then
	python3 -m venv "$VENV"
	"$VENV/bin/python" -m pip install -q --disable-pip-version-check 'maturin>=1.9,<2' </dev/null
fi
rm -rf .cache/wheels-cuda
INWARDEN_BUILD=$CUDA_BUILD INWARDEN_RUSTFLAGS=$RUSTFLAGS CARGO="$ROOT/scripts/maturin-cargo" \
	"$VENV/bin/maturin" build --profile dev --locked --features cuda --auditwheel skip --compatibility linux \
	--manifest-path bindings/python/Cargo.toml --out .cache/wheels-cuda </dev/null
say "check-cuda: program, wheel ($(ls .cache/wheels-cuda)) and check linked for sm_$CUDA_COMPUTE_CAP; NOT RUN on a card"
