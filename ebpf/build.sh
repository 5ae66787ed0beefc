#!/bin/sh
# Compiles the eBPF programs. The objects are committed, so that building the
# crates needs no clang; run this after changing a source here, and commit the
# object, SHA256SUMS and COMPILER with it.
#
# Usage: ebpf/build.sh [OUTPUT_DIRECTORY]     (default: this directory)
#
# The same compiler package gives the same bytes in every directory: sources
# are named relative to it, and llvm-strip removes the DWARF, which keeps paths.
#
# Exit 2 only if a tool is missing; 1 if a tool fails.
set -eu

CLANG=clang-14
STRIP=llvm-strip-14
OBJECTS="process"

cd "$(dirname "$0")"
output=${1:-.}

need() {
	command -v "$1" >/dev/null 2>&1 && return
	echo "build.sh: $1 is missing; on Debian 12: apt-get install $2" >&2
	exit 2
}
need $CLANG clang-14
need $STRIP llvm-14
need sha256sum coreutils

mkdir -p "$output"
output=$(cd "$output" && pwd)
for name in $OBJECTS; do
	$CLANG -g -O2 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Werror -mcpu=v3 -target bpf \
		-ffile-prefix-map="$PWD"=. -c "$name.bpf.c" -o "$output/$name.bpf.o" || exit 1
	$STRIP -g "$output/$name.bpf.o" || exit 1
done

cd "$output"
for name in $OBJECTS; do sha256sum "$name.bpf.o"; done >SHA256SUMS
{
	echo "package: $(dpkg-query -W -f '${Package} ${Version}' clang-14 2>/dev/null || echo "$CLANG, not from a Debian package")"
	echo "package: $(dpkg-query -W -f '${Package} ${Version}' llvm-14 2>/dev/null || echo "$STRIP, not from a Debian package")"
	echo "version: $($CLANG --version | head -n 1)"
} >COMPILER
