"""Public path of `MailboxStatus`."""

from academy.exchange.transport import MailboxStatus

__all__ = ["MailboxStatus"]
