#!/usr/bin/env bash
# `make demo`: from nothing to the demo. As root it uses the real kernel,
# otherwise a recording.
#
# Usage: scripts/demo.sh [ARGUMENTS of `inwarden demo`]
set -euo pipefail
. "$(dirname "$0")/env.sh"

scripts/bootstrap.sh
start_models
build_all
finish_models
is_root || say "this is not root: the scene is replayed from a recording"
exec "$INWARDEN" demo "$@"
