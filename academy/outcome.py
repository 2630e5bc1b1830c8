"""How an agent ends: why, with which errors, and what becomes of its mailbox."""

from __future__ import annotations

from typing import Any

from academy.exception import raise_exceptions
from academy.identifier import AgentId
from academy.message import AcademyErrorResponse, ErrorCode
from academy.runtime_config import RuntimeConfig


class Outcome:
    """What is known about the end of one agent.

    Args:
        config: Configuration of its runtime.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self.expected = True
        """Whether the agent was asked to end, rather than ending for an error."""
        self.terminate: bool | None = None
        """Whether to close the mailbox for good, where somebody has said."""
        self.owns_mailbox = True
        """Whether the mailbox is still this agent's to close."""
        self.errors: list[BaseException] = []
        """Errors that make the run a failure."""
        self.loop_errors: list[Exception] = []
        """Errors of control loops."""
        self.child_errors: list[Exception] = []
        """Errors of the agents that it launched."""

    def terminates(self) -> bool:
        """Return whether the mailbox is to be closed for good."""
        if not self.owns_mailbox:
            return False
        if self.terminate is not None:
            return self.terminate
        if self.expected and not self.errors:
            return self._config.terminate_on_success
        return self._config.terminate_on_error

    def reason(self) -> str | None:
        """Return why the agent failed, as text, if it did."""
        if self.expected and not self.errors:
            return None
        for error in [*self.errors, *self.loop_errors]:
            return f"{type(error).__name__}: {error}"
        return "it ended because of an error"

    def refusal(self, agent_id: AgentId[Any]) -> AcademyErrorResponse | None:
        """Return the answer to requests to an agent that could not start.

        `None` when its mailbox stays, so that another run may start.
        """
        if not self.terminates():
            return None
        return AcademyErrorResponse(
            error_code=ErrorCode.MAILBOX_TERMINATED,
            mailbox_id=agent_id,
            executed="no",
            detail=self.reason() or "",
        )

    def raise_errors(self, message: str) -> None:
        """Raise the errors, several as a group with this message.

        Those of control loops are left out where the configuration says so.
        """
        raised = [*self.errors, *self.child_errors]
        if self._config.raise_loop_errors_on_shutdown:
            raised += self.loop_errors
        raise_exceptions(raised, message=message)
