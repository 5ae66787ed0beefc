"""The ordinary work: 22 jobs, spread over the play.

A job's number is written to the work log only after its result was verified.
Many of the jobs look like what an intruder does.
"""

import os
import subprocess
import time

HTTP = "http://127.0.0.1:8080"
CONFIG = '{"queue": "mail", "limit": 12, "hosts": ["127.0.0.1"]}\n'


def run(*command, text=None):
    """The output of a command; an error if it fails."""
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return result.stdout


def shell(line):
    return run("sh", "-c", line)


def bash(line):
    return run("bash", "-c", line)


def lay_out():
    for name in ("queue", "out", "conf", "bin"):
        os.makedirs(name, exist_ok=True)
    with open("conf/runner.json", "w", encoding="ascii") as file:
        file.write(CONFIG)
    for number in range(1, 7):
        with open(f"queue/{number}.txt", "w", encoding="ascii") as file:
            file.write(f"to: user{number}\nsize: {number * 7}\n")
    return run("ls", "queue").count(".txt") == 6


def count_plan():
    return bash("for f in queue/*.txt; do head -n1 $f; done | wc -l").strip() == "6"


def install_tool():
    with open("bin/size", "w", encoding="ascii") as file:
        file.write("#!/bin/sh\nawk '/^size/ { s += $2 } END { print s }' \"$@\"\n")
    run("chmod", "0755", "bin/size")
    return os.access("bin/size", os.X_OK)


JOBS = [
    lay_out,
    lambda: run("cat", "conf/runner.json") == CONFIG,
    lambda: shell("base64 conf/runner.json > out/conf.txt; wc -l < out/conf.txt").strip() == "1",
    lambda: run("base64", "--decode", "out/conf.txt") == CONFIG,
    count_plan,
    lambda: run("curl", "--silent", "--fail", HTTP + "/health") == "ok\n",
    install_tool,
    lambda: run("bin/size", *(f"queue/{n}.txt" for n in range(1, 7))).strip() == "147",
    lambda: run("python3", "-c", "import json; print(json.load(open('conf/runner.json'))['limit'])")
    == "12\n",
    lambda: shell("tar cf - queue | gzip -c > out/queue.tgz && gunzip -t out/queue.tgz && echo fine")
    == "fine\n",
    lambda: run("find", "queue", "-name", "*.txt", "-size", "-2").count("\n") == 6,
    lambda: shell("find queue -type f | xargs grep -l user3").strip() == "queue/3.txt",
    lambda: run("od", "-An", "-c", "-N1", "conf/runner.json").strip() == "{",
    lambda: run("python3", "-m", "base64", "-e", "conf/runner.json").startswith("eyJ"),
    lambda: run("env", "-u", "TMPDIR", "sh", "-c", "echo ${TMPDIR:-unset}") == "unset\n",
    lambda: bash("set -e; cp -r queue out/stage; sed -i 's/user/person/' out/stage/*.txt; "
                 "grep -h person out/stage/*.txt | sort | tail -n1").strip() == "to: person6",
    lambda: run("curl", "-sS", "-X", "POST", "--data-binary", "@conf/runner.json", HTTP + "/status")
    == "ok\n",
    lambda: run("sha256sum", "conf/runner.json").split()[0]
    == shell("sha256sum < conf/runner.json").split()[0],
    lambda: run("tr", "a-z", "n-za-m", text="uryyb") == "hello",
    lambda: shell("mv out/stage out/done && ls out/done | wc -l").strip() == "6",
    lambda: run("stat", "-c", "%U%a", "bin/size").endswith("755\n"),
    lambda: bash("rm -rf out bin && mkdir out && ls -A out") == "",
]


def main():
    os.chdir(os.environ["HOME"])
    pause = (float(os.environ["SCENE_PACE"]) + 8) / len(JOBS)
    for number, job in enumerate(JOBS, start=1):
        try:
            finished = job()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"job {number}: {error}", flush=True)
            finished = False
        if finished:
            with open(os.environ["SCENE_WORK_LOG"], "a", encoding="ascii") as log:
                log.write(f"{number}\n")
        time.sleep(pause)
    os.write(3, b"worked\n")


main()
