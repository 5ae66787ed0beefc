"""What was said about a case counts at once, and can be taken back."""

import json
from pathlib import Path

import pytest
from conftest import ORDINARY, needs_models, rules_only

import inwarden


def test_without_a_store_of_its_own_there_is_nowhere_to_put_it():
    with rules_only() as guard:
        case = guard.check_tool_call("reporter", "shell", ORDINARY)
        with pytest.raises(inwarden.ConfigurationError, match="store of your own"):
            guard.give_feedback(case, "benign")
        with pytest.raises(inwarden.ConfigurationError, match='label="fine"'):
            guard.give_feedback(case, "fine")
        with pytest.raises(TypeError):
            guard.give_feedback("case", "benign")
        with pytest.raises(inwarden.ConfigurationError):
            guard.list_feedback()
    with pytest.raises(inwarden.InwardenError, match="closed"):
        guard.undo_feedback("feedback-0")


def test_feedback_counts_from_the_next_case_on_until_it_is_undone(tmp_path: Path):
    store = tmp_path / "store"
    guard = needs_models(lambda: rules_only(without=["model"], memory_dir=store))
    with guard:

        def ask() -> inwarden.Case:
            return guard.check_tool_call("reporter", "shell", ORDINARY)

        before = ask()
        assert before.settled_by == "fallback"
        entry = guard.give_feedback(before, "benign", note="nightly; token=hunter2")
        assert (entry.label, entry.case, entry.kind) == ("benign", before.id, "tool_call")
        after = ask()
        assert (after.settled_by, after.source) == ("precedent", entry.id)
        assert after.allowed
        # The same behaviour has one label.
        again = guard.give_feedback(after, "malicious")
        assert again.id == entry.id
        assert not ask().allowed
        assert [one.id for one in guard.list_feedback()] == [entry.id]
        text = (store / "feedback" / "toolcalls-feedback.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        assert [(row["id"], row["label"]) for row in rows] == [(entry.id, "attack")]
        assert "hunter2" not in text
        assert guard.undo_feedback(entry.id).label == "malicious"
        assert ask().settled_by == "fallback"
        assert guard.list_feedback() == []
        with pytest.raises(inwarden.ConfigurationError, match="no feedback"):
            guard.undo_feedback(entry.id)
