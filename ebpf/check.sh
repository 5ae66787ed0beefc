#!/bin/sh
# Builds the eBPF programs in two directories of different depth and compares
# both with the committed objects. Exit 0: all equal; 1: a difference, or the
# sources do not compile; 2: no compiler.
set -eu

cd "$(dirname "$0")"
source=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

differences=0
for directory in "$work/a" "$work/a longer/way/down"; do
	mkdir -p "$directory"
	cp "$source"/*.c "$source"/*.h "$source/build.sh" "$directory/"
	status=0
	"$directory/build.sh" || status=$?
	case $status in
	0) ;;
	2) exit 2 ;;
	*)
		echo "check.sh: the sources do not compile" >&2
		exit 1
		;;
	esac
	for object in "$source"/*.bpf.o; do
		name=${object##*/}
		if cmp "$object" "$directory/$name"; then
			echo "check.sh: $name is reproduced in a directory of ${#directory} characters"
		else
			differences=1
		fi
	done
	if ! cmp "$source/COMPILER" "$directory/COMPILER"; then
		echo "check.sh: another compiler; the committed objects were built with:" >&2
		cat "$source/COMPILER" >&2
	fi
done
sha256sum --check --quiet SHA256SUMS || differences=1
[ $differences -eq 0 ] || echo "check.sh: the committed objects differ from their sources" >&2
exit $differences
