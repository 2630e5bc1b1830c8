"""What was refused: counted, and told in the log without filling it."""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Mapping

from academy.link.refusal import Refusal

logger = logging.getLogger(__name__)

QUIET = 60.0
"""Seconds between two lines of the log about the same source."""
SOURCES = 64
"""Sources that get lines of their own in that time; the others are only counted."""


class Tally:
    """Counts refusals by their reason.

    Args:
        clock: Gives the time, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: collections.Counter[str] = collections.Counter()
        self._told: dict[str, float] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """How often something was refused, by reason, without those never met."""
        return dict(self._counts)

    @property
    def total(self) -> int:
        """How often something was refused."""
        return self._counts.total()

    def count(self, reason: Refusal, source: str, detail: str) -> None:
        """Count a refusal; the log tells it once per source and minute.

        Args:
            reason: Why.
            source: From where, without what changes with each attempt.
            detail: The same for people to read; nothing that a stranger has chosen.
        """
        self._counts[reason.value] += 1
        if self._may_tell(source):
            logger.warning(
                "Refused %s: %s. Further ones from there are not told for %g s, but "
                "counted (%d so far).",
                source,
                detail,
                QUIET,
                self._counts[reason.value],
            )

    def _may_tell(self, source: str) -> bool:
        now = self._clock()
        for told in [s for s, at in self._told.items() if at <= now - QUIET]:
            del self._told[told]
        if source in self._told or len(self._told) >= SOURCES:
            return False
        self._told[source] = now
        return True
