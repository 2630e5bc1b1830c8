from __future__ import annotations

import re

import pytest

from academy.exchange.acl import OWN_COMMANDS, SCRIPT_COMMANDS, NamespaceUser
from academy.exchange.server import scripts

USER = NamespaceUser("joe", "canary", "lab")


def test_scripts_may_call_what_they_call_and_nothing_else() -> None:
    source = "\n".join(scripts().values())
    called = {name.lower() for name in re.findall(r"\bcall\('(\w+)'", source)}
    assert called == set(SCRIPT_COMMANDS)
    # Commands are named in no other way.
    assert len(re.findall(r"\bcall\(", source)) == len(
        re.findall(r"\bcall\('\w+'", source)
    )
    assert set(re.findall(r"redis\.p?call\b.*", source)) == {"redis.call"}


def test_the_rule() -> None:
    words = USER.rule.split()
    assert words[:6] == ["ACL", "SETUSER", "joe", "reset", "on", ">canary"]
    assert words[6:9] == ["~{lab}:*", "resetchannels", "-@all"]
    assert {word.removeprefix("+") for word in words[9:]} == {
        *OWN_COMMANDS,
        *SCRIPT_COMMANDS,
    }
    assert all(word.startswith("+") for word in words[9:])


def test_only_the_rule_tells_the_password() -> None:
    assert "canary" not in f"{USER} {USER!r}"


@pytest.mark.parametrize("text", ["", "a b", "*", "a?", "a[b", "a\\"])
def test_namespaces_that_would_be_patterns(text: str) -> None:
    with pytest.raises(ValueError, match="Not a namespace"):
        _ = NamespaceUser("joe", "canary", text).rule
