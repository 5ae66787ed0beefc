"""A server that forks its workers: what was made before answers at once there."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ATTACK, ORDINARY, needs_models, rules_only

import inwarden

# Newer Pythons warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

# At once, with room for a slow machine; a question's deadline is far behind it.
AT_ONCE_S = 10.0
DEADLINE_S = 600.0


def in_child(work: Callable[[], object], within_s: float = AT_ONCE_S) -> str:
    """What `work` returns, or the name of what it raises, in a forked child."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(work())
        except BaseException as error:
            answer = type(error).__name__
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    try:
        ready, _, _ = select.select([read], [], [], within_s)
        return os.read(read, 10_000).decode() if ready else f"nothing after {within_s} s"
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def close_twice(guard: inwarden.Guard) -> str:
    guard.close()
    guard.close()
    return "closed"


def ask_async(guard: inwarden.Guard) -> inwarden.Case:
    return asyncio.run(guard.check_tool_call_async("a", "shell", ATTACK))


@pytest.mark.parametrize(
    "ask",
    [
        lambda guard: guard.check_tool_call("a", "shell", ATTACK),
        lambda guard: guard.require("a", "shell", ATTACK),
        lambda guard: guard.counters(),
        ask_async,
    ],
)
def test_a_guard_made_before_a_fork_raises_in_the_child(ask):
    with rules_only(deadline_s=DEADLINE_S) as guard:
        # So that its pool has a thread that the child has not.
        assert not ask_async(guard).allowed
        assert in_child(lambda: ask(guard)) == "ForkedProcessError"
        assert not guard.check_tool_call("a", "shell", ATTACK).allowed


def test_a_child_closes_and_drops_nothing(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    with rules_only(audit_log=log, deadline_s=DEADLINE_S) as guard:
        guard.check_tool_call("a", "shell", ATTACK)
        before = log.read_text()
        assert in_child(lambda: close_twice(guard)) == "'closed'"
        assert log.read_text() == before, "its audit log is the parent's"
        guard.check_tool_call("a", "shell", ATTACK)
    kinds = [line.split('"kind":"')[1].split('"')[0] for line in log.read_text().splitlines()]
    assert kinds == ["start", "case", "case", "end"]


def test_a_child_may_make_a_guard_of_its_own():
    def ask_anew():
        with rules_only() as own:
            return own.check_tool_call("a", "shell", ATTACK).allowed

    with rules_only() as guard:
        assert not guard.check_tool_call("a", "shell", ATTACK).allowed
        assert in_child(ask_anew) == "False"


def test_a_replay_begun_before_a_fork_raises_in_the_child(tmp_path: Path):
    recording = tmp_path / "r.jsonl"
    recording.write_text(
        '{"schema":"inwarden.recording/1"}\n{"id":"1","argv":["ls"]}\n{"id":"2","argv":["ls"]}\n'
    )
    cases = inwarden.Warden.replay(recording, without=["model", "precedents"])
    next(cases)
    assert in_child(lambda: next(cases)) == "ForkedProcessError"
    assert next(cases).id == "2"


def test_a_child_ends_as_usual():
    script = """
import os, sys, inwarden
guard = inwarden.Guard(mode="enforce", failure="closed", without=["model", "precedents"])
guard.check_tool_call("a", "shell", {"command": "ls"})
child = os.fork()
if child == 0:
    sys.exit(7)
_, status = os.waitpid(child, 0)
guard.close()
sys.exit(0 if os.waitstatus_to_exitcode(status) == 7 else 1)
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0


def test_a_fork_while_the_model_judges_hangs_nobody():
    def start():
        return inwarden.Guard(mode="enforce", failure="closed", deadline_s=120)

    guard = needs_models(start)
    with guard:
        guard.check_tool_call("a", "shell", ORDINARY)
        asked = {"command": "tar czf " + " ".join(f"backup{n}.tgz" for n in range(60))}
        judging = threading.Thread(target=guard.check_tool_call, args=("a", "shell", asked))
        judging.start()
        for _ in range(5):
            answer = in_child(lambda: guard.check_tool_call("a", "shell", ORDINARY))
            assert answer == "ForkedProcessError"
        judging.join()

        def ask_anew():
            with start() as own:
                return own.check_tool_call("a", "shell", ORDINARY).settled_by

        assert in_child(ask_anew, within_s=100) == "'model'"
