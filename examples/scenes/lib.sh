# shellcheck shell=bash
# What the scenes of this directory share: sourced by each run.sh, as root, with
# bash. Sets the stage (cgroup, network namespace, listener, service), passes the
# play's steps on to the service, and takes everything down again.
# README.md describes what `inwarden demo` expects of a run.sh.
#
# The scene sets before scene_prepare:
#   scene_dir        its directory
#   scene_scripts    the files of scene_dir that its service may read
#   scene_service    the command line of its service, run in the scripts' directory
#   scene_credentials  the planted file, relative to the service's home

: "${scene_dir:?}" "${scene_scripts:?}" "${scene_service:?}" "${scene_credentials:?}"

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8
umask 022

scene_uid=64999
scene_address=192.0.2.1
scene_state=${INWARDEN_SCENE_STATE:-}
scene_pace=${INWARDEN_SCENE_PACE:-6}

cgroup='' cgroup_mount='' listener='' service='' work_done=''
declare -A step_tgid=()

scene_fail() {
    printf 'scene: %s\n' "$1" >&2
    exit 2
}

# Sets the stage and starts the service, which waits.
scene_prepare() {
    [ "$(id -u)" -eq 0 ] || scene_fail 'must be started as root'
    [ -n "$scene_state" ] && [ -d "$scene_state" ] ||
        scene_fail 'INWARDEN_SCENE_STATE must name an existing directory'
    [[ $scene_pace =~ ^[1-9][0-9]?$ ]] || scene_fail 'INWARDEN_SCENE_PACE must be in 1..=99'
    scene_state=$(cd -- "$scene_state" && pwd -P)
    setpriv --reuid "$scene_uid" --regid "$scene_uid" --clear-groups test -x "$scene_state" ||
        scene_fail "uid $scene_uid cannot enter $scene_state: it and its parents need mode 0711"
    trap scene_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    plant_files
    make_cgroup
    start_listener
    start_service
}

# Tells that all stands ready and waits for `go`.
scene_ready() {
    printf 'cgroup %s\nready\n' "$cgroup"
    local line
    read -r line || scene_fail 'the input ended before go'
    [ "$line" = go ] || scene_fail 'expected go'
}

# scene_work: the service begins its ordinary work.
scene_work() {
    printf 'step work start\n'
    printf 'work\n' >&"$to_service"
}

# scene_step ID SCRIPT: the service runs SCRIPT as a process of its own.
scene_step() {
    printf 'step %s start\n' "$1"
    step_tgid[$1]=unknown
    printf 'run %s %s\n' "$1" "$2" >&"$to_service"
}

# scene_source ID SCRIPT: a running shell of the service reads SCRIPT.
scene_source() {
    printf 'step %s start\n' "$1"
    step_tgid[$1]=unknown
    printf 'source %s %s\n' "$1" "$2" >&"$to_service"
}

# scene_wait SECONDS: lets the play go on.
scene_wait() {
    local until=$((SECONDS + $1))
    while ((SECONDS < until)); do tick; done
}

# Waits until the ordinary work is done or nobody is left to do it, at most
# SECONDS; ends the play.
scene_finish() {
    local until=$((SECONDS + $1)) id
    while [ -z "$work_done" ] && ((SECONDS < until)); do
        [[ $(<"$cgroup/cgroup.events") != *'populated 0'* ]] || break
        tick
    done
    stop "$listener"
    listener=''
    for id in "${!step_tgid[@]}"; do printf 'step %s end\n' "$id"; done
    [ -n "$work_done" ] || printf 'step work end\n'
    printf 'done\n'
}

# A fifth of a second: what the service says, which steps ended, and whether
# whoever watches the play is still there.
tick() {
    local line id tgid status
    while read -r -t 0.01 -u "$from_service" line; do
        case $line in
        'pid '*)
            read -r _ id tgid <<<"$line"
            step_tgid[$id]=$tgid
            ;;
        worked)
            work_done=yes
            printf 'step work end\n'
            ;;
        esac
    done
    for id in "${!step_tgid[@]}"; do
        tgid=${step_tgid[$id]}
        [ "$tgid" = unknown ] && continue
        [ -d "/proc/$tgid" ] && continue
        unset "step_tgid[$id]"
        printf 'step %s end\n' "$id"
    done
    status=0
    read -r -t 0.2 line || status=$?
    # More than 128: nothing came in time. Any other failure: the input is closed.
    ((status == 0 || status > 128)) || exit 1
}

plant_files() {
    local tag file
    canary=$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')
    tag=${canary:0:8}
    home=$scene_state/home-$tag
    scripts=$scene_state/app-$tag
    (umask 077 && printf '%s\n' "$canary" >"$scene_state/canary")
    mkdir "$scripts" "$home"
    for file in "${scene_scripts[@]}"; do
        install -m 0644 -- "$scene_dir/$file" "$scripts/${file##*/}"
    done
    mkdir -p "$home/tmp" "$(dirname -- "$home/$scene_credentials")"
    printf '[default]\nkey_id = service\nsecret_key = %s\n' "$canary" >"$home/$scene_credentials"
    chmod 0600 "$home/$scene_credentials"
    chown -R "$scene_uid:$scene_uid" "$home"
    chmod 0700 "$home"
    # The service may write to these two, but not replace them.
    : >"$scene_state/work.log"
    : >"$scene_state/service.log"
    chown "$scene_uid" "$scene_state/work.log" "$scene_state/service.log"
}

make_cgroup() {
    local mount
    mount=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
    if [ -z "$mount" ]; then
        mount=$scene_state/cgroup2
        mkdir "$mount"
        mount -t cgroup2 none "$mount" || scene_fail 'cannot mount cgroup2'
        cgroup_mount=$mount
    fi
    mkdir "$mount/inwarden-scene-${canary:0:8}" || scene_fail "cannot make a cgroup in $mount"
    cgroup=$mount/inwarden-scene-${canary:0:8}
    [ -w "$cgroup/cgroup.kill" ] || scene_fail 'cgroup.kill is missing: Linux 5.14 or later is needed'
}

# The listener owns the network namespace, but is not of the scene's cgroup.
start_listener() {
    local line=''
    exec {from_listener}< <(
        # shellcheck disable=SC2016 # the inner shell expands
        exec setpriv --pdeathsig KILL unshare --net -- \
            bash -c 'ip link set lo up && ip address add "$1/32" dev lo && shift && exec python3 "$@"' \
            listener "$scene_address" "$scene_dir/../listener.py" \
            "$scene_state" "$scene_pace" "$home/$scene_credentials" </dev/null
    )
    listener=$!
    read -r -t 20 -u "$from_listener" line || true
    [ "$line" = listening ] || scene_fail 'the listener did not start'
}

# The service starts outside and is moved into the cgroup before it does
# anything, so that what set the stage does not happen inside.
start_service() {
    local line=''
    mkfifo -m 0600 "$scene_state/to-service" "$scene_state/from-service"
    exec {to_service}<>"$scene_state/to-service" {from_service}<>"$scene_state/from-service"
    (
        exec {to_service}>&- {from_service}>&- {from_listener}<&-
        cd "$scripts" || exit 2
        exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME="$home" TMPDIR="$home/tmp" \
            LC_ALL=C.UTF-8 SCENE_PACE="$scene_pace" SCENE_ADDRESS="$scene_address" \
            SCENE_CREDENTIALS="$home/$scene_credentials" SCENE_WORK_LOG="$scene_state/work.log" \
            nsenter --net="/proc/$listener/ns/net" \
            setsid setpriv --reuid "$scene_uid" --regid "$scene_uid" --clear-groups \
            --no-new-privs --inh-caps=-all --bounding-set=-all \
            "${scene_service[@]}" <"$scene_state/to-service" \
            3>"$scene_state/from-service" >"$scene_state/service.log" 2>&1
    ) &
    service=$!
    # Not a job of this shell, which would report how it ended.
    disown "$service"
    read -r -t 20 -u "$from_service" line || true
    [ "$line" = waiting ] || scene_fail "the service did not start, see $scene_state/service.log"
    printf '%s\n' "$service" >"$cgroup/cgroup.procs" || scene_fail 'cannot move the service'
    service=''
}

# stop TGID: asks one of our own children to end, and waits for it.
stop() {
    [ -n "$1" ] || return 0
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# Ends all processes of the play and removes what lies outside the state
# directory. Runs at every exit.
scene_end() {
    local status=$? tries
    trap '' INT TERM HUP PIPE
    trap - EXIT
    if [ -n "$cgroup" ]; then
        echo 1 >"$cgroup/cgroup.kill"
        for ((tries = 0; tries < 100; tries++)); do
            rmdir "$cgroup" 2>/dev/null && break
            sleep 0.05
        done
    fi
    # Set only while the service has not reached the cgroup yet.
    [ -z "$service" ] || kill -KILL "$service" 2>/dev/null || true
    stop "$listener"
    [ -z "$cgroup_mount" ] || umount "$cgroup_mount"
    wait 2>/dev/null || true
    exit "$status"
}
