#!/usr/bin/env bash
# Fails if any way of building here compiles a registry crate that the first
# build had compiled already. Run after `make build` and the Python tests.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# not_fresh FILE: registry crates that cargo's messages say were compiled anew.
not_fresh() {
	python3 - "$1" <<'PY'
import json
import sys

rebuilt = set()
seen = 0
for line in open(sys.argv[1], encoding="utf-8"):
    if not line.startswith("{"):
        continue
    message = json.loads(line)
    if message.get("reason") == "compiler-artifact" and message["package_id"].startswith("registry+"):
        seen += 1
        if not message["fresh"]:
            rebuilt.add(message["package_id"].split("#")[-1])
if not seen:
    sys.exit("there is no message about a registry crate: is this a build at all?")
if rebuilt:
    sys.exit("compiled again: " + ", ".join(sorted(rebuilt)))
print(f"all {seen} artifacts of registry crates were fresh")
PY
}

check() { # NAME COMMAND...
	local name=$1
	shift
	"$@" >"$LOGS/no-rebuild.json" </dev/null || die "$name failed"
	say "$name: $(not_fresh "$LOGS/no-rebuild.json" 2>&1)" && not_fresh "$LOGS/no-rebuild.json" >/dev/null
}

check "cargo build" cargo build --workspace --all-targets --locked --message-format json
check "cargo test" cargo test --workspace --all-targets --locked --no-run --message-format json
if [ -e "$LOGS/maturin-cargo.json" ]; then
	say "maturin: $(not_fresh "$LOGS/maturin-cargo.json")"
else
	say "maturin: not checked, no wheel was built"
fi
