"""The security analyst that lives inside the process.

`Guard` judges tool calls before an agent makes them, and texts before it reads them.
`Warden.replay` judges the events of a recording. Nothing leaves the machine.
"""

import asyncio
import concurrent.futures
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from inwarden import _native
from inwarden._errors import (
    AuditError,
    ConfigurationError,
    DataError,
    ForkedProcessError,
    HostError,
    InwardenError,
    ModelNotFoundError,
    ToolCallDenied,
)
from inwarden._native import DEFAULT_MODEL, Case, FeedbackEntry, __version__

__all__ = [
    "DEFAULT_MODEL",
    "AuditError",
    "Case",
    "ConfigurationError",
    "DataError",
    "FeedbackEntry",
    "ForkedProcessError",
    "Guard",
    "HostError",
    "InwardenError",
    "ModelNotFoundError",
    "ToolCallDenied",
    "Warden",
    "__version__",
]

Mode = Literal["enforce", "monitor"]
FailureMode = Literal["closed", "open"]
Stage = Literal["model", "rules", "precedents"]
FeedbackLabel = Literal["benign", "malicious"]
TextGiver = Literal["user", "tool"]
PathLike = str | os.PathLike[str]


def _analyst(
    model: str | None,
    models_dir: PathLike | None,
    memory_dir: PathLike | None,
    policies: Iterable[PathLike],
    without: Iterable[Stage],
    device: str,
) -> dict[str, Any]:
    return {
        "model": model,
        "models_dir": models_dir,
        "memory_dir": memory_dir,
        "policies": list(policies),
        "without": list(without),
        "device": device,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _past_call(call: Mapping[str, Any]) -> tuple[str, str, str]:
    unknown = set(call) - {"tool", "args", "output"}
    if unknown:
        raise ValueError(f"history: no key {min(map(str, unknown))!r} is known")
    output = call.get("output", "")
    if not isinstance(output, str):
        output = _json(output)
    return call["tool"], _json(dict(call.get("args", {}))), output


class Guard:
    """Judges tool calls before they are made, and texts before they are read.

    Args:
        mode: `"enforce"` carries refusals out, `"monitor"` only records them.
        failure: What is answered when the guard cannot judge in time or fails:
            `"closed"` refuses the call, `"open"` lets it pass.
        deadline_s: Seconds from question to answer, 0.001 to 3600.
        queue: Questions that may wait, 1 to 65536; one more is answered by
            `failure` at once.
        audit_log: File that answers are appended to.
        model: Id of the language model; default `DEFAULT_MODEL`.
        models_dir: Directory of model files; default as for the command line.
        memory_dir: Directory of the precedent store, which processes of one
            user share; default the shipped precedents, read-only.
        policies: Cedar policy files, instead of the shipped ones.
        without: Stages to leave out.
        device: Where the language model runs: `"cpu"`, or `"cuda:0"` for the first
            NVIDIA card, which needs the wheel that was built for it.

    Raises:
        ModelNotFoundError: A model is not on this machine.
        FileNotFoundError: A policy file is not there.
        ConfigurationError: A value or policy is not allowed.
        AuditError: The audit log cannot be opened.
        HostError: The store belongs to a process that does not answer, or the
            card cannot be used.
        DataError: A model file or rule is damaged.

    It owns threads: use it in `with`, or call `close()`. Any number of threads may
    share it. A forked child has none of its threads: there each question raises
    `ForkedProcessError`, so a server that forks its workers makes a guard in each.

    Example:
        >>> with Guard(mode="enforce", failure="closed") as guard:  # doctest: +SKIP
        ...     case = guard.check_tool_call("reporter", "shell", {"command": "ls"})
        ...     case.allowed
        True
    """

    def __init__(
        self,
        *,
        mode: Mode,
        failure: FailureMode,
        deadline_s: float = 5.0,
        queue: int = 256,
        audit_log: PathLike | None = None,
        model: str | None = None,
        models_dir: PathLike | None = None,
        memory_dir: PathLike | None = None,
        policies: Iterable[PathLike] = (),
        without: Iterable[Stage] = (),
        device: str = "cpu",
    ) -> None:
        self._guard = _native.Guard(
            _analyst(model, models_dir, memory_dir, policies, without, device),
            {
                "mode": mode,
                "failure": failure,
                "deadline_s": deadline_s,
                "queue": queue,
                "audit_log": audit_log,
            },
        )
        # Two are judged, `queue` wait, one more is being refused: so `deadline_s`
        # also holds for however many tasks ask at once.
        self._pool = concurrent.futures.ThreadPoolExecutor(
            max_workers=queue + 3, thread_name_prefix="inwarden"
        )
        self._closed = False

    def check_tool_call(
        self,
        agent: str,
        tool: str,
        args: Mapping[str, Any],
        *,
        user_task: str | None = None,
        role: str | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> Case:
        """Judges one call; the GIL is released meanwhile.

        Args:
            agent: The agent's id; what policies name.
            tool: The tool's name.
            args: Its arguments; must be JSON.
            user_task: What the user asked the agent for.
            role: The agent's role.
            history: The calls it made before for the task, oldest first: mappings
                with `tool`, `args` and `output`, a text or what JSON has a form
                for. An order in an output that the call follows tells whose call
                it is.

        Returns:
            The judged case; `case.allowed` says whether to go on.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: It was made before this process was forked.
            KeyError: An earlier call has no `tool`.
            TypeError: `args` or an output holds what JSON has no form for.
            ValueError: They hold a number that is not finite, or themselves; an
                earlier call has another key; or a text is not Unicode.
        """
        return self._guard.check_tool_call(
            {
                "agent": agent,
                "tool": tool,
                "args_json": _json(dict(args)),
                "user_task": user_task,
                "role": role,
                "history": [_past_call(call) for call in history],
            }
        )

    async def check_tool_call_async(
        self,
        agent: str,
        tool: str,
        args: Mapping[str, Any],
        *,
        user_task: str | None = None,
        role: str | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> Case:
        """As `check_tool_call`, without blocking the event loop.

        Cancelling the task drops the answer, not its audit record.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
            KeyError: As for `check_tool_call`.
            TypeError: As for `check_tool_call`.
            ValueError: As for `check_tool_call`.
        """

        def ask() -> Case:
            return self.check_tool_call(
                agent, tool, args, user_task=user_task, role=role, history=history
            )

        return await self._in_pool(ask)

    def check_text(
        self,
        agent: str,
        text: str,
        *,
        given_by: TextGiver,
        tool: str | None = None,
        user_task: str | None = None,
        role: str | None = None,
    ) -> Case:
        """Judges a text before an agent reads it; the GIL is released meanwhile.

        Args:
            agent: The agent's id; what policies name.
            text: The text; of a long one, windows are judged, which takes longer.
            given_by: `"user"`, or `"tool"` for what came with a tool's answer: a
                mail, a page, a file.
            tool: The tool that gave it.
            user_task: What the user asked the agent for.
            role: The agent's role.

        Returns:
            The judged case; `case.allowed` says whether it may be read.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
            ConfigurationError: `given_by` is another word.
        """
        return self._guard.check_text(
            {
                "agent": agent,
                "text": text,
                "given_by": given_by,
                "tool": tool,
                "user_task": user_task,
                "role": role,
            }
        )

    async def check_text_async(
        self,
        agent: str,
        text: str,
        *,
        given_by: TextGiver,
        tool: str | None = None,
        user_task: str | None = None,
        role: str | None = None,
    ) -> Case:
        """As `check_text`, without blocking the event loop.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
            ConfigurationError: As for `check_text`.
        """

        def ask() -> Case:
            return self.check_text(
                agent, text, given_by=given_by, tool=tool, user_task=user_task, role=role
            )

        return await self._in_pool(ask)

    async def _in_pool(self, ask: Callable[[], Case]) -> Case:
        # A pool that was forked would never begin.
        self._guard.check_process()
        try:
            answer = self._pool.submit(ask)
        except RuntimeError as error:
            raise InwardenError("the guard is closed") from error
        return await asyncio.wrap_future(answer)

    def require(
        self,
        agent: str,
        tool: str,
        args: Mapping[str, Any],
        *,
        user_task: str | None = None,
        role: str | None = None,
        history: Sequence[Mapping[str, Any]] = (),
    ) -> Case:
        """As `check_tool_call`, but a refusal is an exception.

        Args:
            agent: As for `check_tool_call`, and so are the remaining ones.
            tool: See `check_tool_call`.
            args: See `check_tool_call`.
            user_task: See `check_tool_call`.
            role: See `check_tool_call`.
            history: See `check_tool_call`.

        Returns:
            The judged case.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
            ToolCallDenied: The call may not be made; `error.case` says why.
        """
        case = self.check_tool_call(
            agent, tool, args, user_task=user_task, role=role, history=history
        )
        if not case.allowed:
            raise ToolCallDenied(case)
        return case

    def give_feedback(
        self, case: Case, label: FeedbackLabel, *, note: str | None = None
    ) -> FeedbackEntry:
        """Says what a case really was. Needs a guard with a `memory_dir`.

        It counts from the next case on, for all who share the store, and is written
        beside the store as a row to learn from, without what looks like a secret.
        What was said before of the same behaviour is replaced.

        Args:
            case: An answer of this guard, of another one or of a replay.
            label: What it was.
            note: Why, for people; at most 2,000 bytes.

        Returns:
            What was said, with the id to undo it by.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
            ConfigurationError: `label` is another word, the note is too long, or the
                guard has no store of its own.
            HostError: The store or the rows cannot be written.
            DataError: The rows are damaged.
        """
        return self._guard.give_feedback(case, label, note)

    def list_feedback(self) -> list[FeedbackEntry]:
        """What was said about cases, the oldest first.

        Returns:
            All of it that the guard's store holds, also what others said.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
            ConfigurationError: The guard has no store of its own.
            HostError: The rows cannot be read.
            DataError: The rows are damaged.
        """
        return self._guard.list_feedback()

    def undo_feedback(self, id: str) -> FeedbackEntry:
        """Takes back what was said about a case.

        Args:
            id: `FeedbackEntry.id`.

        Returns:
            What was taken back.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
            ConfigurationError: There is no such feedback, or the guard has no store
                of its own.
            HostError: As for `give_feedback`.
            DataError: As for `give_feedback`.
        """
        return self._guard.undo_feedback(id)

    def counters(self) -> dict[str, int]:
        """Counts since the start.

        Returns:
            Each count by the name under which it is exported.

        Raises:
            InwardenError: The guard is closed.
            ForkedProcessError: As for `check_tool_call`.
        """
        return dict(self._guard.counters())

    def close(self) -> None:
        """Answers what was asked and flushes the audit log.

        Afterwards questions raise `InwardenError`; closing again does nothing, and
        neither does closing in a forked child.

        Raises:
            AuditError: Some records are not in the audit log.
        """
        self._closed = True
        try:
            self._guard.check_process()
        except ForkedProcessError:
            return
        self._pool.shutdown(wait=True)
        self._guard.close()

    def __del__(self) -> None:
        # A guard whose start failed has no pool and needs no closing.
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)

    def __enter__(self) -> "Guard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Warden:
    """The background door. From Python: on recordings."""

    @staticmethod
    def replay(
        recording: PathLike,
        *,
        mode: Mode = "monitor",
        scope_cgroups: Iterable[int] = (),
        model: str | None = None,
        models_dir: PathLike | None = None,
        memory_dir: PathLike | None = None,
        policies: Iterable[PathLike] = (),
        without: Iterable[Stage] = (),
        device: str = "cpu",
    ) -> Iterator[Case]:
        """Judges the events of a recording, one case at a time.

        Nothing is carried out, and replaying twice gives the same cases, stage
        times aside.

        Args:
            recording: A file that `inwarden watch --record` wrote; may be a pipe.
            mode: The mode decisions are made in.
            scope_cgroups: The cgroup ids actions may touch; none: alert only.
            model: As for `Guard`, and so are the remaining ones.
            models_dir: See `Guard`.
            memory_dir: See `Guard`.
            policies: See `Guard`.
            without: See `Guard`.
            device: See `Guard`.

        Returns:
            An iterator; threads may share it, a forked child gets
            `ForkedProcessError`. A damaged line raises `DataError`;
            going on with `next()` reads the line after it. The case at which
            Ctrl-C came is not given again.

        Raises:
            FileNotFoundError: There is no such recording or policy file.
            ModelNotFoundError: A model is not on this machine.
            ConfigurationError: A value or policy is not allowed.
            HostError: As for `Guard`.
            DataError: It is not a recording, or a model file or rule is damaged.
        """
        return _native.Replay(
            recording,
            _analyst(model, models_dir, memory_dir, policies, without, device),
            mode,
            set(scope_cgroups),
        )
