#!/bin/bash
# Plays a scene twice, as root: once untouched, once with the attack's processes
# killed by hand the way `inwarden demo` does it, and compares the facts that the
# listener and the work log hold. Usage: test-run.sh SCENE_DIR PATTERN...
# A PATTERN is an extended regular expression; a process of the scene whose
# command line matches is killed with its descendants.
set -u
scene=$1
shift
failed=0

# Prints the tgids of $1 and all its descendants.
tree() {
    local status
    printf '%s\n' "$1"
    # shellcheck disable=SC2013
    for status in $(grep -ls "^PPid:[[:space:]]$1\$" /proc/[0-9]*/status); do
        status=${status#/proc/}
        tree "${status%/status}"
    done
}

kill_matching() {
    local cgroup=$1 tgid line pattern victims
    shift
    # Read at once: the list moves while processes end.
    # shellcheck disable=SC2013
    for tgid in $(cat "$cgroup/cgroup.procs"); do
        line=$(tr '\0' ' ' 2>/dev/null <"/proc/$tgid/cmdline") || continue
        for pattern in "$@"; do
            [[ $line =~ $pattern ]] || continue
            victims=$(tree "$tgid")
            # shellcheck disable=SC2086
            kill -STOP $victims 2>/dev/null
            # shellcheck disable=SC2046,SC2086
            kill -KILL $victims $(tree "$tgid") 2>/dev/null
        done
    done
}

count() { grep -c "$@" || true; }

play() {
    local state line cgroup='' number
    state=$(mktemp -d /tmp/scene-test.XXXXXX)
    chmod 0711 "$state"
    coproc RUN { INWARDEN_SCENE_STATE=$state exec bash "$scene/run.sh"; }
    while read -r -u "${RUN[0]}" line; do
        printf '  %s\n' "$line"
        case $line in
        'cgroup '*) cgroup=${line#cgroup } ;;
        ready) printf 'go\n' >&"${RUN[1]}" ;;
        done) break ;;
        'step d start')
            [ $# -eq 0 ] || { sleep 1; kill_matching "$cgroup" "$@"; }
            ;;
        esac
    done
    wait "$RUN_PID" 2>/dev/null
    canary=$(cat "$state/canary")
    shell=$(count "$canary" "$state/shell.log")
    upload=$(count "$canary" "$state/upload.log")
    beats=$(sed '0,/pace-elapsed/d' "$state/beats.log" | count beat)
    closed=$(count . "$state/closed.log")
    lines=$(count . "$state/lines.log")
    work=$(awk '$1 != NR { exit 1 } END { print NR }' "$state/work.log") || work=gap
    printf '  canary by shell %s, by upload %s; late beats %s; closed %s; lines %s; work %s\n' \
        "$shell" "$upload" "$beats" "$closed" "$lines" "$work"
    number=$(sed -n 's/^expected = //p' "$scene/scene.toml")
    [ "$work" = "$number" ] || { failed=1; cat "$state/service.log"; }
    [ "$lines" -eq 1 ] || failed=1
    [ -z "$cgroup" ] || [ ! -e "$cgroup" ] || { printf '  the cgroup is still there\n'; failed=1; }
    rm -rf "$state"
}

printf 'untouched\n'
play
[ "$shell" -ge 1 ] && [ "$upload" -ge 1 ] && [ "$beats" -ge 10 ] && [ "$closed" -eq 0 ] || failed=1
printf 'killed by hand\n'
play "$@"
[ "$shell" -eq 0 ] && [ "$upload" -eq 0 ] && [ "$beats" -eq 0 ] && [ "$closed" -ge 1 ] || failed=1
[ "$failed" -eq 0 ] && printf 'as expected\n' || printf 'NOT as expected\n'
exit "$failed"
