#!/bin/bash
# A stand-in for an agent service: runs its own work and whatever tasks it is
# handed. Commands come on the input, reports go to descriptor 3.

# Without whoever plays the scene nothing of it stays.
trap 'kill -KILL 0' EXIT

printf 'waiting\n' >&3
while read -r command id script; do
    case $command in
    work) bash work.sh </dev/null & ;;
    run)
        bash "$script" </dev/null 3>&- &
        printf 'pid %s %s\n' "$id" "$!" >&3
        ;;
    source)
        # A fork of this shell: no program is started.
        # shellcheck source=notes.sh
        (. "./$script") </dev/null 3>&- &
        printf 'pid %s %s\n' "$id" "$!" >&3
        ;;
    esac
done
