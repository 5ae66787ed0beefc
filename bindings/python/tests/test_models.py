"""With the real models; skipped loudly where their files are absent."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ORDINARY, ctrl_c_after, needs_models

import inwarden


class Ticks:
    """Counts how often Python code can run meanwhile."""

    def __enter__(self) -> "Ticks":
        self.count = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tick)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._done.wait(0.001):
            self.count += 1


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory") / "store"


@pytest.fixture(scope="module")
def guard(log: Path, store: Path) -> Iterator[inwarden.Guard]:
    def start():
        return inwarden.Guard(
            mode="enforce", failure="closed", deadline_s=120, audit_log=log, memory_dir=store
        )

    with Ticks() as ticks:
        guard = needs_models(start)
    # Loading takes seconds; with the GIL held the other thread would stand still.
    assert ticks.count > 20
    with guard:
        yield guard


def test_the_gil_is_free_while_the_model_judges(guard: inwarden.Guard):
    with Ticks() as ticks:
        case = guard.check_tool_call("a", "shell", ORDINARY)
    assert case.settled_by == "model"
    judged_ms = case.stages_us["judge"] / 1000
    assert judged_ms > 10
    # A tick takes 1 ms at best; a held GIL would allow one or two in all.
    assert ticks.count > min(judged_ms / 20, 20)


def test_ctrl_c_ends_a_call_whose_answer_is_still_recorded(guard: inwarden.Guard, log: Path):
    before = guard.counters()["cases"]
    with pytest.raises(KeyboardInterrupt), ctrl_c_after(0.05):
        for number in range(1000):
            guard.check_tool_call("a", "shell", {"command": f"tar czf backup{number}.tgz reports"})
    asked = guard.counters()["cases"] - before
    assert asked >= 1
    deadline = time.monotonic() + 60
    while cases_in(log) < before + asked and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cases_in(log) == before + asked


def test_a_cancelled_question_is_still_recorded(guard: inwarden.Guard, log: Path):
    before = guard.counters()["cases"]

    async def ask():
        args = {"command": "rsync -a reports backup:"}
        await asyncio.wait_for(guard.check_tool_call_async("a", "shell", args), 0.05)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(ask())
    deadline = time.monotonic() + 60
    while cases_in(log) <= before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cases_in(log) == before + 1


def test_two_guards_share_a_store(guard: inwarden.Guard, store: Path):
    options = {"memory_dir": store, "without": ["model"]}
    with inwarden.Guard(mode="enforce", failure="closed", **options) as second:
        case = second.check_tool_call("a", "shell", ORDINARY)
        assert case.stages_us["precedents"] > 0
    assert 0 <= guard.check_tool_call("a", "shell", ORDINARY).score <= 1


def test_replay_judges_with_the_model(tmp_path: Path):
    recording = tmp_path / "r.jsonl"
    recording.write_text(
        '{"schema":"inwarden.recording/1"}\n'
        '{"id":"1","argv":["tar","czf","backup.tgz","reports"]}\n'
        '{"id":"2","argv":["tar","czf","backup.tgz","reports"]}\n'
    )

    def start():
        return inwarden.Warden.replay(recording, without=["precedents"])

    first, second = needs_models(start)
    assert (first.settled_by, first.score) == ("model", second.score)


def cases_in(log: Path) -> int:
    # A line may be half written.
    lines = log.read_text().splitlines(keepends=True)
    return sum(json.loads(line)["kind"] == "case" for line in lines if line.endswith("\n"))
