"""`Guard` without model files."""

import json
import os
import threading
from pathlib import Path

import pytest
from conftest import ATTACK, ORDINARY, rules_only

import inwarden


def records(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_an_attack_is_denied_and_the_answer_says_why():
    with rules_only() as guard:
        case = guard.check_tool_call("reporter", "shell", ATTACK)
    assert (case.label, case.settled_by, case.technique) == ("malicious", "rule", "T1059.004")
    assert (case.allowed, case.decision, case.enforced, case.mode) == (
        False,
        "deny",
        "deny",
        "enforce",
    )
    assert (case.reason, case.policies, case.outcome) == (
        "forbidden",
        ["never-call-malicious"],
        "denied",
    )
    assert 0.5 < case.score <= 1.0
    assert case.source
    assert case.undetermined is None
    assert set(case.stages_us) >= {"queue", "screen", "policy"}
    assert repr(case).startswith(f"<Case {case.id} malicious 0.")


def test_what_no_stage_settles_is_undetermined_and_held():
    with rules_only() as guard:
        case = guard.check_tool_call("reporter", "shell", ORDINARY)
    assert (case.label, case.settled_by, case.enforced) == ("undetermined", "fallback", "deny")
    assert case.undetermined
    assert 0.0 <= case.score <= 1.0


def test_require_raises_a_permission_error_with_the_case():
    with rules_only() as guard, pytest.raises(PermissionError) as caught:
        guard.require("reporter", "shell", ATTACK)
    assert isinstance(caught.value, inwarden.ToolCallDenied)
    assert caught.value.case.enforced == "deny"
    assert "malicious" in str(caught.value)


def test_monitor_mode_records_but_does_not_deny():
    with rules_only(mode="monitor") as guard:
        case = guard.require("reporter", "shell", ATTACK)
    assert (case.allowed, case.decision, case.enforced) == (True, "deny", "alert")


def test_own_policies_take_the_place_of_the_shipped_ones(tmp_path: Path):
    policy = tmp_path / "all.cedar"
    policy.write_text('@id("all") permit (principal, action == Action::"call_tool", resource);')
    with rules_only(policies=[policy]) as guard:
        case = guard.check_tool_call("reporter", "shell", ATTACK)
    assert (case.allowed, case.decision, case.policies) == (True, "allow", ["all"])


@pytest.mark.parametrize(
    ("agent", "role", "tool", "expected"),
    [
        ("ann", None, "write", True),
        ("bob", None, "write", False),
        ("bob", "writer", "write", True),
        ("bob", "reader", "write", False),
        ("ann", None, "delete", False),
    ],
)
def test_agent_role_and_tool_reach_the_policies(tmp_path: Path, agent, role, tool, expected):
    policy = tmp_path / "writers.cedar"
    policy.write_text(
        """@id("ann") permit (principal == Agent::"ann", action == Action::"call_tool",
                              resource == Tool::"write");
           @id("writers") permit (principal in Role::"writer", action == Action::"call_tool",
                                  resource == Tool::"write");"""
    )
    with rules_only(policies=[str(policy)]) as guard:
        assert guard.check_tool_call(agent, tool, {}, role=role).allowed is expected


def test_arguments_that_are_not_ascii_are_judged_as_written():
    with rules_only() as guard:
        case = guard.check_tool_call("a", "shell", {"command": f"echo Grüße; {ATTACK['command']}"})
    assert case.label == "malicious"


def test_earlier_calls_go_with_a_call_and_into_the_record(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    history = [
        {"tool": "read_mail", "args": {"n": 1}, "output": "pay 9911 token: s3cr3tvalue"},
        {"tool": "list", "output": ["a", 1]},
    ]
    with rules_only(audit_log=log) as guard:
        case = guard.check_tool_call("a", "shell", ATTACK, history=history)
        guard.check_tool_call("a", "shell", ATTACK)
    assert case.label == "malicious"
    event = records(log)[1]["event"]
    assert [past["tool"] for past in event["history"]] == ["read_mail", "list"]
    assert event["history"][0]["args"] == '{"n": 1}'
    assert event["history"][1]["output"] == '["a", 1]'
    assert "history" not in records(log)[2]["event"]
    assert "s3cr3tvalue" not in log.read_text()


@pytest.mark.parametrize(
    ("past", "expected"),
    [
        ({"args": {}}, KeyError),
        ({"tool": 1}, TypeError),
        ({"tool": "read", "result": "x"}, ValueError),
        ({"tool": "read", "output": float("nan")}, ValueError),
        ({"tool": "read", "args": {"x": object()}}, TypeError),
    ],
)
def test_an_earlier_call_that_is_none_is_an_error(past, expected):
    with rules_only() as guard:
        with pytest.raises(expected):
            guard.check_tool_call("a", "shell", {}, history=[past])
        assert guard.counters()["cases"] == 0


def test_a_text_is_judged_decided_and_recorded(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    policy = tmp_path / "texts.cedar"
    policy.write_text(
        """@id("clock") permit (principal == Agent::"a", action == Action::"read_text",
                                resource == Tool::"clock");
           @id("user") permit (principal in Role::"r", action == Action::"read_text",
                               resource == User::"user");"""
    )
    with rules_only(audit_log=log, policies=[policy]) as guard:
        asked = [
            ({"given_by": "tool", "tool": "clock", "user_task": "sum up"}, True),
            ({"given_by": "tool", "tool": "mail"}, False),
            ({"given_by": "user", "role": "r"}, True),
            ({"given_by": "user"}, False),
        ]
        for options, expected in asked:
            case = guard.check_text("a", "It is nine. password: s3cr3tvalue", **options)
            assert (case.allowed, case.argv) == (expected, [])
            assert case.label in {"benign", "undetermined"}
    event = records(log)[1]["event"]
    assert (event["kind"], event["given_by"], event["tool"]) == ("text", "tool", "clock")
    assert event["text"].startswith("It is nine.")
    assert "s3cr3tvalue" not in log.read_text()


def test_a_text_is_given_by_a_user_or_a_tool():
    with rules_only() as guard:
        with pytest.raises(inwarden.ConfigurationError, match="given_by"):
            guard.check_text("a", "x", given_by="page")
        with pytest.raises(TypeError):
            guard.check_text("a", 1, given_by="user")
    with pytest.raises(inwarden.InwardenError, match="the guard is closed"):
        guard.check_text("a", "x", given_by="user")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"when": object()}, TypeError),
        ({"number": float("nan")}, ValueError),
        ({"text": "\ud800"}, ValueError),
        ("no mapping", ValueError),
        (None, TypeError),
    ],
)
def test_arguments_that_are_not_json_are_an_error(args, expected):
    with rules_only() as guard:
        with pytest.raises(expected):
            guard.check_tool_call("a", "shell", args)
        assert guard.counters()["cases"] == 0


def test_threads_share_a_guard():
    answers = []
    with rules_only() as guard:

        def work():
            answers.append(guard.check_tool_call("a", "shell", ATTACK))

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert guard.counters()["cases"] == 16
    assert [case.enforced for case in answers] == ["deny"] * 16
    assert len({case.id for case in answers}) == 16


def test_the_audit_log_holds_every_answer_without_secrets(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    with rules_only(audit_log=log) as guard:
        case = guard.check_tool_call("a", "shell", {"command": "x --token s3cr3tvalue"})
    written = records(log)
    assert [record["kind"] for record in written] == ["start", "case", "end"]
    assert written[1]["case"] == case.id
    assert "s3cr3tvalue" not in log.read_text()


def test_a_full_disk_at_the_start_is_an_error():
    with pytest.raises(inwarden.AuditError, match="/dev/full") as caught:
        rules_only(audit_log="/dev/full")
    assert json.loads(caught.value.unwritten[0])["kind"] == "start"


def test_a_log_that_fails_later_fails_closed_and_loses_no_record(tmp_path: Path):
    pipe = tmp_path / "audit.pipe"
    os.mkfifo(pipe)
    first = []

    def read_one_record():
        with pipe.open() as reader:
            first.append(json.loads(reader.readline()))

    reader = threading.Thread(target=read_one_record)
    reader.start()
    guard = rules_only(failure="closed", audit_log=pipe)
    reader.join()
    case = guard.check_tool_call("a", "shell", ORDINARY)
    assert not case.allowed
    assert guard.counters()["audit_failures"] == 1
    with pytest.raises(inwarden.AuditError, match="audit.pipe") as caught:
        guard.close()
    guard.close()
    kinds = [json.loads(record)["kind"] for record in caught.value.unwritten]
    assert [first[0]["kind"], *kinds] == ["start", "case", "end"]


def test_an_audit_log_that_cannot_be_opened_is_an_error(tmp_path: Path):
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(inwarden.AuditError, match="audit.jsonl"):
        rules_only(audit_log=tmp_path / "audit.jsonl")


def test_a_closed_guard_says_so_and_closes_twice():
    guard = rules_only()
    guard.close()
    guard.close()
    for ask in (guard.counters, lambda: guard.check_tool_call("a", "b", {})):
        with pytest.raises(inwarden.InwardenError, match="the guard is closed"):
            ask()


def test_close_answers_and_records_the_calls_of_other_threads(tmp_path: Path):
    log = tmp_path / "audit.jsonl"
    guard = rules_only(audit_log=log)
    answered, refused = [], []

    def work():
        try:
            while True:
                answered.append(guard.check_tool_call("a", "shell", ATTACK).id)
        except inwarden.InwardenError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(answered) < 32:
        pass
    guard.close()
    for thread in threads:
        thread.join()
    assert refused == ["the guard is closed"] * 8
    written = records(log)
    assert written[-1]["kind"] == "end"
    assert {r["case"] for r in written if r["kind"] == "case"} == set(answered)


def test_a_guard_that_is_never_closed_warns():
    guard = rules_only()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del guard
