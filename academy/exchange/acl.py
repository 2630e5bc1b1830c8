"""What a user of a Redis or Valkey server must be allowed, to use one namespace."""

from __future__ import annotations

from typing import NamedTuple

from academy.exchange.keys import Keys

OWN_COMMANDS = ("eval", "evalsha", "script|load", "xread")
"""What clients send, beside `HELLO` and `AUTH`, which are allowed to everybody."""

SCRIPT_COMMANDS = (
    "del",
    "exists",
    "get",
    "hdel",
    "hget",
    "hgetall",
    "hkeys",
    "hlen",
    "hmget",
    "hset",
    "pexpire",
    "pttl",
    "sadd",
    "scard",
    "set",
    "sismember",
    "smembers",
    "srem",
    "time",
    "xadd",
    "xlen",
    "xrange",
    "xtrim",
    "zadd",
    "zrange",
    "zrem",
    "zscore",
)
"""What the scripts call; the server checks them as if the user had."""


class NamespaceUser(NamedTuple):
    """A user who can use one namespace of a server, and nothing else there.

    Attributes:
        name: Name of the user.
        password: The password; in the text it does not show.
        namespace: The namespace.

    Raises:
        ValueError: `rule` raises it if the namespace cannot be used in keys.
    """

    name: str
    password: str
    namespace: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, '***', {self.namespace!r})"

    @property
    def rule(self) -> str:
        """The command that makes the user, for `redis-cli`; it has the password.

        The user can read and change keys of the namespace only, also by scripts, in
        database 0. The names of other keys cannot be seen.
        """
        commands = sorted((*OWN_COMMANDS, *SCRIPT_COMMANDS))
        return (
            f"ACL SETUSER {self.name} reset on >{self.password} "
            f"~{Keys(self.namespace).prefix}* resetchannels -@all "
            + " ".join(f"+{command}" for command in commands)
        )
