"""The native module; use the package `inwarden` instead."""

import os
from typing import Any, final

__all__ = ["DEFAULT_MODEL", "Case", "FeedbackEntry", "Guard", "Replay", "__version__"]

__version__: str
DEFAULT_MODEL: str
"""Id of the language model used where none is named."""

@final
class Case:
    """A judged case."""

    @property
    def id(self) -> str:
        """The id of the event that was judged."""
    @property
    def argv(self) -> list[str]:
        """The arguments of the judged program; empty for a tool call or text."""
    @property
    def label(self) -> str:
        """`benign`, `malicious` or `undetermined`."""
    @property
    def score(self) -> float:
        """The calibrated probability of malicious, 0 to 1."""
    @property
    def technique(self) -> str | None:
        """An ATT&CK technique id."""
    @property
    def settled_by(self) -> str:
        """`rule`, `precedent`, `model` or `fallback`."""
    @property
    def source(self) -> str | None:
        """The id of the rule or precedent that settled it."""
    @property
    def undetermined(self) -> str | None:
        """Why it is undetermined, if it is."""
    @property
    def decision(self) -> str:
        """What policy rules: `allow`, `alert`, `deny`, `quarantine` or `kill`."""
    @property
    def enforced(self) -> str:
        """What is carried out: `decision`, or at most `alert` in monitor mode."""
    @property
    def mode(self) -> str:
        """`enforce` or `monitor`."""
    @property
    def reason(self) -> str:
        """Why the decision is what it is."""
    @property
    def policies(self) -> list[str]:
        """The ids of the policies that determined it."""
    @property
    def outcome(self) -> str:
        """What was carried out."""
    @property
    def allowed(self) -> bool:
        """Whether the call may be made, or the text be read."""
    @property
    def stages_us(self) -> dict[str, int]:
        """Microseconds per stage."""

@final
class FeedbackEntry:
    """What was said about a case."""

    @property
    def id(self) -> str:
        """Its name: that of the precedent and of the row to learn from."""
    @property
    def label(self) -> str:
        """`benign` or `malicious`."""
    @property
    def case(self) -> str:
        """The id of the case it was said of."""
    @property
    def kind(self) -> str:
        """`exec`, `tool_call` or `text`."""
    @property
    def note(self) -> str | None:
        """Why, redacted."""
    @property
    def given_unix_ns(self) -> int:
        """When it was said, in nanoseconds of Unix time."""
    @property
    def summary(self) -> str:
        """The beginning of what was done or said, redacted."""

@final
class Guard:
    """Native part of `inwarden.Guard`."""

    def __new__(cls, analyst: dict[str, Any], guard: dict[str, Any]) -> Guard: ...
    def check_tool_call(self, call: dict[str, Any]) -> Case:
        """See `inwarden.Guard.check_tool_call`."""
    def check_text(self, text: dict[str, Any]) -> Case:
        """See `inwarden.Guard.check_text`."""
    def give_feedback(self, case: Case, label: str, note: str | None) -> FeedbackEntry:
        """See `inwarden.Guard.give_feedback`."""
    def list_feedback(self) -> list[FeedbackEntry]:
        """See `inwarden.Guard.list_feedback`."""
    def undo_feedback(self, id: str) -> FeedbackEntry:
        """See `inwarden.Guard.undo_feedback`."""
    def check_process(self) -> None:
        """Raises `ForkedProcessError` in a forked child."""
    def counters(self) -> list[tuple[str, int]]:
        """See `inwarden.Guard.counters`."""
    def close(self) -> None:
        """See `inwarden.Guard.close`."""

@final
class Replay:
    """Native part of `inwarden.Warden.replay`: the cases of a recording."""

    def __new__(
        cls,
        recording: str | os.PathLike[str],
        analyst: dict[str, Any],
        mode_name: str,
        scope_cgroups: set[int],
    ) -> Replay: ...
    def __iter__(self) -> Replay: ...
    def __next__(self) -> Case: ...
