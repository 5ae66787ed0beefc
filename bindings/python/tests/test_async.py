"""`Guard.check_tool_call_async` without model files."""

import asyncio

import pytest
from conftest import ATTACK, rules_only

import inwarden


def test_tasks_ask_side_by_side():
    async def ask(guard):
        calls = [guard.check_tool_call_async("a", "shell", ATTACK) for _ in range(50)]
        return await asyncio.gather(*calls)

    with rules_only() as guard:
        cases = asyncio.run(ask(guard))
    assert {case.policies[0] for case in cases} == {"never-call-malicious"}
    assert len({case.id for case in cases}) == 50


def test_more_tasks_than_the_queue_holds_are_all_answered():
    async def ask(guard):
        calls = [guard.check_tool_call_async("a", "shell", ATTACK) for _ in range(50)]
        return await asyncio.gather(*calls)

    with rules_only(queue=1) as guard:
        cases = asyncio.run(ask(guard))
        counters = guard.counters()
    assert {case.enforced for case in cases} == {"deny"}
    assert {case.reason for case in cases} <= {"forbidden", "engine_failed"}
    assert sum(case.reason == "engine_failed" for case in cases) == counters["queue_full"]


def test_a_cancelled_task_leaves_the_guard_working():
    async def cancel(guard):
        task = asyncio.create_task(guard.check_tool_call_async("a", "shell", ATTACK))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await guard.check_tool_call_async("a", "shell", ATTACK)

    with rules_only() as guard:
        assert asyncio.run(cancel(guard)).enforced == "deny"


def test_a_closed_guard_says_so():
    guard = rules_only()
    guard.close()
    with pytest.raises(inwarden.InwardenError, match="the guard is closed"):
        asyncio.run(guard.check_tool_call_async("a", "shell", ATTACK))


def test_arguments_that_are_not_json_are_an_error():
    with rules_only() as guard, pytest.raises(TypeError):
        asyncio.run(guard.check_tool_call_async("a", "shell", {"x": object()}))


def test_texts_are_asked_about_side_by_side_with_calls():
    async def ask(guard):
        return await asyncio.gather(
            guard.check_tool_call_async("a", "shell", ATTACK, history=[{"tool": "list"}]),
            guard.check_text_async("a", "It is nine.", given_by="tool", tool="clock"),
        )

    with rules_only() as guard:
        call, text = asyncio.run(ask(guard))
    assert call.label == "malicious"
    assert text.id.startswith("text:")
