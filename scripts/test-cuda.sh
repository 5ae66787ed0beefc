#!/usr/bin/env bash
# `make test-cuda CAP=80|89|90`: on a machine with such a card and its driver
# (580 or newer), builds the checking binary for it and runs it.
#
# What the binary needs besides the driver (libcuda.so.1): libcublas.so.13,
# libcublasLt.so.13, libcurand.so.10 and libcudart.so.13, which are taken from
# .cache/cuda here.
set -euo pipefail
# shellcheck source=cuda-env.sh
. "$(dirname "$0")/cuda-env.sh"

case ${CAP:-} in
80 | 89 | 90) ;;
*) die "usage: make test-cuda CAP=80|89|90 (the card's compute capability without the dot)" ;;
esac
driver=$(ldconfig -p | awk '/libcuda\.so\.1 / { print $NF; exit }')
[ -n "$driver" ] || die "there is no NVIDIA driver on this machine (libcuda.so.1)"

install_cuda
cuda_build_env "$CAP"
# The driver itself is linked with, under the name that a linker looks for.
mkdir -p "$CARGO_TARGET_DIR/driver"
ln -sf "$driver" "$CARGO_TARGET_DIR/driver/libcuda.so"
export RUSTFLAGS="-L native=$CARGO_TARGET_DIR/driver -L native=$CUDA_HOME/lib ${RUSTFLAGS:-}"
export CARGO_BUILD_JOBS CUDAFORGE_THREADS
CARGO_BUILD_JOBS=$(nproc)
CUDAFORGE_THREADS=$(nproc)
say "compiling for sm_$CAP"
cargo build --locked --release -p inwarden-inference --features cuda --example cuda_check </dev/null
say "running on the card"
LD_LIBRARY_PATH="$CUDA_HOME/lib:${LD_LIBRARY_PATH:-}" "$CARGO_TARGET_DIR/release/examples/cuda_check" "${CARD:-0}"
say "test-cuda: passed"
