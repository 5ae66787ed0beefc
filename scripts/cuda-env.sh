# shellcheck shell=bash
# Sourced by check-cuda.sh and test-cuda.sh: makes nvcc and CUDA's libraries
# from PyPI's packages in .cache/cuda, and sets what the build needs to find
# them. Nothing is installed outside the checkout.
#
# CUDA 13.0, not the newest: the driver compiles part of the kernels when they
# are loaded, and an older toolkit asks for an older driver (580).

# shellcheck source=env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

CUDA_PACKAGES=(
	nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
	nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cuda-nvrtc==13.0.88
	nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35
)
CUDA_VENV=$ROOT/.cache/cuda
CUDA_STAMP=$CUDA_VENV/installed

# install_cuda: the packages in a virtual environment, once.
install_cuda() {
	local wanted="${CUDA_PACKAGES[*]}"
	if [ "$(cat "$CUDA_STAMP" 2>/dev/null)" != "$wanted" ]; then
		say "installing nvcc and CUDA's libraries from PyPI in .cache/cuda (700 MB)"
		rm -rf "$CUDA_VENV"
		python3 -m venv "$CUDA_VENV"
		"$CUDA_VENV/bin/python" -m pip install -q --disable-pip-version-check --no-deps \
			"${CUDA_PACKAGES[@]}" </dev/null
		link_names
		printf '%s\n' "$wanted" >"$CUDA_STAMP"
	fi
	CUDA_HOME=$(echo "$CUDA_VENV"/lib/python3*/site-packages/nvidia/cu13)
	[ -x "$CUDA_HOME/bin/nvcc" ] || die "there is no nvcc in $CUDA_HOME"
}

# link_names: the packages hold libX.so.N alone; a linker looks for libX.so.
link_names() {
	local lib dir
	dir=$(echo "$CUDA_VENV"/lib/python3*/site-packages/nvidia/cu13/lib)
	for lib in "$dir"/*.so.*; do
		ln -sf "$(basename "$lib")" "${lib%%.so.*}.so"
	done
	[ -e "$dir/../lib64" ] || ln -s lib "$dir/../lib64"
}

# cuda_build_env CAP: what cargo's build scripts read. CAP has no dot.
cuda_build_env() {
	export CUDA_HOME CUDA_PATH=$CUDA_HOME CUDA_ROOT=$CUDA_HOME CUDA_TOOLKIT_ROOT_DIR=$CUDA_HOME
	export NVCC=$CUDA_HOME/bin/nvcc PATH="$CUDA_HOME/bin:$PATH"
	export CUDA_COMPUTE_CAP=$1 CUDARC_CUDA_VERSION=13000
	# These builds differ from the one build on purpose: a directory of their own,
	# and one for each card.
	export CARGO_TARGET_DIR="$ROOT/target/cuda/$1"
	export CARGO_BUILD_JOBS=${CARGO_BUILD_JOBS:-1} CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-1}
}

# What the CUDA build is of: the program, the Python module and the checking
# binary, always together, so that nothing is compiled twice.
CUDA_BUILD="-p inwarden-inference -p inwarden-cli -p inwarden-python \
--features inwarden-inference/cuda,inwarden-cli/cuda,inwarden-python/cuda \
--lib --bin inwarden --example cuda_check"

# stub_driver DIR CAP: a library in the driver's place, to link where there is
# none. It has every function that the Rust wrapper declares; all fail, but for
# those that describe one card of compute capability CAP.
stub_driver() {
	local dir=$1 cap=$2 wrapper
	mkdir -p "$dir"
	wrapper=$(cargo metadata --format-version 1 --locked --features inwarden-inference/cuda |
		python3 -c 'import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "cudarc":
        print(package["manifest_path"].rsplit("/", 1)[0])')
	cat >"$dir/stub.c" <<-END
		#include <stddef.h>
		#include <string.h>
		int cuInit(unsigned flags) { return 0; }
		int cuDeviceGetCount(int *count) { *count = 1; return 0; }
		int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
		int cuDeviceGetName(char *name, int len, int device) { strncpy(name, "stub", len); return 0; }
		int cuDeviceGetPCIBusId(char *id, int len, int device) { strncpy(id, "0000:00:00.0", len); return 0; }
		int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 1; return 0; }
		int cuDeviceGetAttribute(int *value, int attribute, int device) {
			*value = attribute == 75 ? ${cap%?} : ${cap: -1};
			return 0;
		}
	END
	grep -rhoE 'fn cu[A-Z][A-Za-z0-9_]*' "$wrapper/src/driver/sys" | sed 's/^fn //' | sort -u |
		grep -vxE 'cuInit|cuDeviceGet(Count|Name|PCIBusId|Attribute)?|cuDeviceTotalMem_v2' |
		sed 's/.*/int &(void) { return 999; }/' >>"$dir/stub.c"
	cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$dir/libcuda.so.1" "$dir/stub.c"
	ln -sf libcuda.so.1 "$dir/libcuda.so"
}
