"""A stand-in for a job runner: runs its own jobs and whatever it is handed.

Commands come on the input, reports go to descriptor 3.
"""

import os
import signal
import subprocess
import sys

CHILDREN = []

def report(text):
    os.write(3, (text + "\n").encode())


def start(*command, **options):
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    CHILDREN.append(child)
    return child


def reap(*_):
    CHILDREN[:] = [child for child in CHILDREN if child.poll() is None]


def main():
    signal.signal(signal.SIGCHLD, reap)
    shell = None
    report("waiting")
    for line in iter(sys.stdin.readline, ""):
        command, *words = line.split()
        if command == "work":
            # A shell that lives as long as the runner, for jobs that are sourced.
            shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"], stdin=subprocess.PIPE, text=True, bufsize=1
            )
            start("python3", "jobs.py", pass_fds=[3])
        elif command == "run":
            report(f"pid {words[0]} {start('sh', words[1]).pid}")
        elif command == "source" and shell is not None:
            shell.stdin.write(f". ./{words[1]}\n")
            report(f"pid {words[0]} 0")
    # Without whoever plays the scene nothing of it stays.
    os.killpg(0, signal.SIGKILL)


main()
