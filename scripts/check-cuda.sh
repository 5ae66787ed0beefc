#!/usr/bin/env bash
# `make check-cuda`: compiles the feature `cuda` for sm_89 (an L4) and links the
# checking binary, on a machine without a card and without a driver. About ten
# minutes of one processor the first time. Nothing is run on a card here.
set -euo pipefail
# shellcheck source=cuda-env.sh
. "$(dirname "$0")/cuda-env.sh"

install_cuda
say "nvcc: $("$CUDA_HOME/bin/nvcc" --version | tail -n 2 | head -n 1)"
cuda_build_env "${CAP:-89}"
stub_driver "$CARGO_TARGET_DIR/stub" 75
export RUSTFLAGS="-L native=$CARGO_TARGET_DIR/stub -L native=$CUDA_HOME/lib ${RUSTFLAGS:-}"
say "compiling candle's kernels for sm_$CUDA_COMPUTE_CAP and linking (quiet for minutes)"
nice -n 19 cargo build --locked -p inwarden-inference --features cuda --example cuda_check </dev/null

binary=$CARGO_TARGET_DIR/debug/examples/cuda_check
missing() { LD_LIBRARY_PATH=$1 ldd "$binary" | grep 'not found' || true; }
[ -z "$(missing "$CARGO_TARGET_DIR/stub:$CUDA_HOME/lib")" ] ||
	die "linked, but it needs more: $(missing "$CARGO_TARGET_DIR/stub:$CUDA_HOME/lib")"
# The stub describes a card of another kind: it must be refused, typed, before
# anything is computed.
answer=$(LD_LIBRARY_PATH="$CARGO_TARGET_DIR/stub:$CUDA_HOME/lib" "$binary" 2>&1 || true)
case $answer in
*"compiled for compute capability "*", the card has 7.5"*) say "a card of compute capability 7.5 is refused" ;;
*) die "with a wrong card the binary said: $answer" ;;
esac
say "check-cuda: compiled and linked for sm_$CUDA_COMPUTE_CAP; NOT RUN on a card"
