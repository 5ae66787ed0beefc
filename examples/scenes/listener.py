"""The far end of a scene: what it is sent is the proof of what happened.

Usage: listener.py STATE PACE CREDENTIALS

Ports, on every address of its network namespace:
  4444  a shell: PACE seconds after it connects, one command is sent to it
  5555  beats: each line is written down with its time
  6666  single lines
  8080  HTTP: GET /health answers `ok`, what is posted is written down

Writes into STATE: listener.log (everything), shell.log, closed.log, upload.log,
beats.log, lines.log. Prints `listening` when it can be reached. SIGTERM ends it.
"""

import os
import signal
import socket
import socketserver
import sys
import threading
import time

STATE, PACE, CREDENTIALS = sys.argv[1], float(sys.argv[2]), sys.argv[3]
MARKER = "pace-elapsed"
START = time.monotonic()
LOCK = threading.Lock()
FIRST_BEAT = threading.Event()
FILES = {}


def note(name, text):
    """Appends one line to the file `name` and to listener.log."""
    clean = text.encode("unicode_escape").decode("ascii")
    stamp = f"{time.monotonic() - START:8.3f}"
    with LOCK:
        for file, line in ((name, f"{stamp} {clean}"), ("listener", f"{stamp} {name}: {clean}")):
            FILES[file].write(line + "\n")
            FILES[file].flush()


class Shell(socketserver.BaseRequestHandler):
    def handle(self):
        note("shell", "connected")
        deadline, asked = time.monotonic() + PACE, False
        self.request.settimeout(0.1)
        while True:
            try:
                received = self.request.recv(4096)
                if not received:
                    break
                note("shell", "received " + received.decode("utf-8", "replace"))
            except socket.timeout:
                pass
            except OSError:
                break
            if not asked and time.monotonic() >= deadline:
                asked = True
                note("shell", "asking for the file")
                try:
                    self.request.sendall(f"cat '{CREDENTIALS}'\n".encode())
                except OSError:
                    break
        note("closed", "the shell's side closed the connection")


class Beats(socketserver.StreamRequestHandler):
    def handle(self):
        FIRST_BEAT.set()
        try:
            for line in self.rfile:
                note("beats", line.decode("utf-8", "replace").strip())
        except OSError:
            pass


class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            for line in self.rfile:
                note("lines", line.decode("utf-8", "replace").strip())
        except OSError:
            pass


class Http(socketserver.StreamRequestHandler):
    """As much HTTP/1.0 as curl and a shell speak."""

    timeout = 10

    def handle(self):
        try:
            method, path, length = self.head()
            body = self.rfile.read(min(length, 1 << 20))
            if method == "POST" and path != "/status":
                note("upload", f"{path} {body.decode('utf-8', 'replace')}")
            answer = b"ok\n"
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n")
            self.wfile.write(b"Content-Length: %d\r\n\r\n%s" % (len(answer), answer))
        except (OSError, ValueError):
            pass

    def head(self):
        method, path, _ = self.rfile.readline(4096).decode("latin-1").split(maxsplit=2)
        length = 0
        for _ in range(100):
            name, _, value = self.rfile.readline(4096).decode("latin-1").partition(":")
            if not name.strip():
                break
            if name.strip().lower() == "content-length":
                length = int(value)
        return method, path, max(length, 0)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def mark_pace():
    """Separates the beats of the first PACE seconds from those that follow."""
    FIRST_BEAT.wait()
    time.sleep(PACE)
    note("beats", MARKER)


def main():
    # Ctrl-C is for whoever plays the scene, and then SIGTERM comes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before the threads start: they inherit it, and `sigwait` gets the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for name in ("listener", "shell", "closed", "upload", "beats", "lines"):
        FILES[name] = open(os.path.join(STATE, name + ".log"), "w", encoding="ascii")
    handlers = {4444: Shell, 5555: Beats, 6666: Lines, 8080: Http}
    servers = [Server(("0.0.0.0", port), handler) for port, handler in handlers.items()]
    for target in [mark_pace] + [server.serve_forever for server in servers]:
        threading.Thread(target=target, daemon=True).start()
    print("listening", flush=True)
    signal.sigwait({signal.SIGTERM})
    with LOCK:
        for file in FILES.values():
            file.close()
        # Without this the open connections would still be written about.
        os._exit(0)


if __name__ == "__main__":
    main()
