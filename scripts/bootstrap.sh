#!/usr/bin/env bash
# Installs what a fresh Debian needs to build and run Inwarden, and nothing that
# is there already. Uses sudo when not root.
#
# Usage: scripts/bootstrap.sh [COMMAND=PACKAGE ...]     further needs
set -euo pipefail
. "$(dirname "$0")/env.sh"

missing=""
need() { # COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need cc gcc
need make make
need curl curl
need git git
need python3 python3
if is_root; then
	# The kernel tests and the play of the scene; others replay a recording, and
	# their PATH often lacks the directories of the two.
	need ip iproute2
	need setpriv util-linux
fi
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
echo 'int main(void){return 0;}' >"$LOGS/probe.c"
if command -v cc >/dev/null 2>&1 && ! cc -include stdlib.h -o "$LOGS/probe" "$LOGS/probe.c" 2>/dev/null; then
	missing="$missing libc6-dev"
fi
command -v cc >/dev/null 2>&1 || missing="$missing libc6-dev"
python3 -c 'import pip' 2>/dev/null || missing="$missing python3-pip"
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
for pair in "$@"; do
	need "${pair%%=*}" "${pair#*=}"
done

if [ -n "$missing" ]; then
	command -v apt-get >/dev/null 2>&1 ||
		die "this is not Debian; install the equivalents of:$missing"
	as_root=""
	if ! is_root; then
		command -v sudo >/dev/null 2>&1 || die "as root, run: apt-get install -y$missing"
		as_root=sudo
	fi
	say "installing$missing"
	$as_root apt-get update -qq </dev/null || say "the package lists could not be renewed; going on with the old ones"
	# shellcheck disable=SC2086 # one word a package
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing </dev/null ||
		die "apt-get could not install$missing"
fi

if ! command -v cargo >/dev/null 2>&1; then
	say "installing the Rust toolchain with rustup into $HOME/.cargo"
	curl --proto '=https' --tlsv1.2 -sSf -o "$LOGS/rustup-init.sh" https://sh.rustup.rs ||
		die "rustup could not be fetched; install Rust $(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml) with clippy and rustfmt"
	sh "$LOGS/rustup-init.sh" -y --profile minimal --default-toolchain none --no-modify-path </dev/null
	export PATH="$PATH:$HOME/.cargo/bin"
fi
cargo --version >/dev/null || die "cargo does not run; see the message above"
command -v clippy-driver >/dev/null 2>&1 ||
	die "clippy is missing; get it with: rustup component add clippy rustfmt"
