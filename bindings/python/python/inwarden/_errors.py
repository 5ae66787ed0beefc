"""The exceptions, grouped by who must act."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inwarden._native import Case

__all__ = [
    "AuditError",
    "ConfigurationError",
    "DataError",
    "ForkedProcessError",
    "HostError",
    "InwardenError",
    "ModelNotFoundError",
    "ToolCallDenied",
]


class InwardenError(Exception):
    """Root of all exceptions of this package."""


class ForkedProcessError(InwardenError, RuntimeError):
    """It was made before this process was forked; make one in each process."""


class ConfigurationError(InwardenError, ValueError):
    """A value or a policy is not allowed; the message names it and what is."""


class ModelNotFoundError(InwardenError, FileNotFoundError):
    """A model is not on this machine; the message names the command that gets it."""


class HostError(InwardenError, OSError):
    """This machine lacks something, or another process holds it."""


class AuditError(InwardenError, OSError):
    """The audit log cannot be opened or written.

    Attributes:
        unwritten: The records that are not in the file, one JSON object each.
    """

    unwritten: list[str]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.unwritten = []


class DataError(InwardenError, ValueError):
    """A model, rule, recording or event is damaged."""


class ToolCallDenied(InwardenError, PermissionError):
    """Policy refused a tool call.

    Attributes:
        case: The judged case.
    """

    def __init__(self, case: "Case") -> None:
        super().__init__(f"tool call denied: {case!r}")
        self.case = case
