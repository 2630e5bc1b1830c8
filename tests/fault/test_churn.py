"""Mailboxes that come, move and end while they are called."""

from __future__ import annotations

from academy.embedded import EmbeddedServer
from tests.fault.churn import churn


async def test_mailboxes_come_move_and_end(server: EmbeddedServer) -> None:
    findings = await churn(server, 5.0, seed=1)
    assert findings.calls > 100
    assert findings.good, str(findings)
