from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.config import LARGEST_HANDSHAKE
from academy.link.handshake import (
    SECRETS,
    Handshake,
    HandshakeError,
    Identity,
    Role,
    namespace_hash,
)
from academy.link.refusal import Refusal
from tests.unit.link.pair import CLIENT, SECRET, SERVER, identity

OTHER = b"another secret"


def client(
    secrets: Sequence[bytes] = (SECRET,), expected: bytes | None = SERVER, **me: bytes
) -> Handshake:
    who = dataclasses.replace(identity(CLIENT), **me)
    return Handshake(Role.CLIENT, who, secrets, expected)


def server(secrets: Sequence[bytes] = (SECRET,), **me: bytes) -> Handshake:
    return Handshake(Role.SERVER, dataclasses.replace(identity(SERVER), **me), secrets)


def shake(a: Handshake, b: Handshake) -> tuple[bytes, bytes, bytes]:
    """Carry the three frames between two sides and return them."""
    hello = a.start()
    challenge = b.receive(hello)
    assert challenge is not None
    proof = a.receive(challenge)
    assert proof is not None
    assert b.receive(proof) is None
    return hello, challenge, proof


def test_both_sides_prove_themselves() -> None:
    a, b = client(), server()
    assert not a.done
    assert not b.done
    frames = shake(a, b)
    assert (a.done, b.done) == (True, True)
    assert (a.peer, b.peer) == (SERVER, CLIENT)
    assert all(len(frame) <= LARGEST_HANDSHAKE for frame in frames)
    assert not any(SECRET in frame for frame in frames)


def test_the_client_is_done_first_and_the_server_with_the_proof() -> None:
    a, b = client(), server()
    challenge = b.receive(a.start())
    assert not b.done
    a.receive(challenge or b"")
    assert (a.done, b.done) == (True, False)


def test_any_process_may_be_expected() -> None:
    a = client(expected=None)
    shake(a, server())
    assert a.peer == SERVER


def test_the_largest_frame() -> None:
    many = [bytes([i]) * 32 for i in range(1, 9)]
    challenge = server(many).receive(client().start())
    assert challenge is not None
    assert len(challenge) == LARGEST_HANDSHAKE


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ([SECRET, OTHER], [OTHER]),
        ([OTHER], [SECRET, OTHER]),
        ([SECRET, OTHER], [OTHER, SECRET]),
        ([b"x", b"y", b"z", SECRET], [SECRET, b"0"]),
        ([SECRET], [b"x", b"y", b"z", SECRET]),
    ],
)
def test_a_secret_can_be_changed_while_processes_run(
    mine: list[bytes], theirs: list[bytes]
) -> None:
    a, b = client(mine), server(theirs)
    shake(a, b)
    assert a.done
    assert b.done


def test_only_so_many_secrets_count() -> None:
    many = [bytes([i]) * 32 for i in range(1, SECRETS + 1)]
    with pytest.raises(HandshakeError):
        shake(client(), server([*many, SECRET]))


def test_wrong_secret() -> None:
    a, b = client([OTHER]), server()
    challenge = b.receive(a.start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="does not know the secret") as caught:
        a.receive(challenge)
    assert caught.value.refusal is Refusal.SECRET
    assert not a.done


def test_wrong_proof() -> None:
    b = server()
    b.receive(client().start())
    with pytest.raises(HandshakeError, match="does not know the secret"):
        b.receive(bytes(32))
    assert not b.done


def test_a_challenge_without_a_proof() -> None:
    a, b = client(), server()
    challenge = b.receive(a.start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="does not know the secret"):
        a.receive(challenge[:-32])


def test_wrong_namespace() -> None:
    a = client(namespace=namespace_hash("foreign"))
    with pytest.raises(HandshakeError, match="another namespace") as caught:
        server().receive(a.start())
    assert caught.value.refusal is Refusal.NAMESPACE


def test_a_client_that_lies_about_its_namespace_has_no_proof() -> None:
    a = client(namespace=namespace_hash("foreign"))
    lie = client().start()
    challenge = server().receive(lie)
    assert challenge is not None
    with pytest.raises(HandshakeError, match="does not know the secret"):
        a.receive(challenge)


def test_replayed_frames_prove_nothing() -> None:
    hello, challenge, proof = shake(client(), server())
    later = server(nonce=b"n" * 32)
    later.receive(hello)
    with pytest.raises(HandshakeError, match="does not know the secret"):
        later.receive(proof)
    again = client(nonce=b"m" * 32)
    with pytest.raises(HandshakeError, match="does not know the secret"):
        again.receive(challenge)


def test_the_servers_proof_reflected_proves_nothing() -> None:
    b = server()
    challenge = b.receive(client().start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="does not know the secret"):
        b.receive(challenge[-32:])


def test_a_hello_reflected_is_no_challenge() -> None:
    a = client(expected=None)
    with pytest.raises(HandshakeError):
        a.receive(a.start())


def test_reflection_to_a_second_connection_of_the_same_process() -> None:
    """A stranger has the server answer the challenge that the server gave it."""
    first = server()
    challenge = first.receive(client().start())
    assert challenge is not None
    nonce = challenge[21:53]
    second = server(nonce=b"2" * 32)
    reflected = second.receive(client(nonce=nonce).start())
    assert reflected is not None
    with pytest.raises(HandshakeError, match="does not know the secret"):
        first.receive(reflected[-32:])


def test_a_process_does_not_link_to_itself() -> None:
    with pytest.raises(HandshakeError, match="claims to be this process"):
        server().receive(client(process=SERVER).start())
    a = client(expected=None)
    twin = Handshake(Role.SERVER, identity(b"t" * 16), [SECRET])
    challenge = twin.receive(a.start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="claims to be this process"):
        a.receive(challenge[:5] + CLIENT + challenge[21:])


def test_another_process_at_the_address() -> None:
    a, b = client(expected=b"x" * 16), server()
    challenge = b.receive(a.start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="another process answers"):
        a.receive(challenge)


def test_wrong_binding() -> None:
    """Somebody in between has a certificate of its own."""
    a, b = client(binding=b"what I saw"), server(binding=b"what I have")
    challenge = b.receive(a.start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="does not know the secret"):
        a.receive(challenge)
    shake(client(binding=b"same"), server(binding=b"same"))


@pytest.mark.parametrize("change", [-1, 1, 32])
def test_frames_of_wrong_sizes(change: int) -> None:
    def resized(frame: bytes | None) -> bytes:
        assert frame is not None
        return frame[:change] if change < 0 else frame + bytes(change)

    with pytest.raises(HandshakeError, match="something else than a handshake"):
        server().receive(resized(client().start()))
    a, b = client(), server()
    challenge = b.receive(a.start())
    if change != 32:
        with pytest.raises(HandshakeError, match="something else than a handshake"):
            client().receive(resized(challenge))
    proof = a.receive(challenge or b"")
    with pytest.raises(HandshakeError, match="something else than a handshake"):
        b.receive(resized(proof))


def test_too_many_proofs() -> None:
    challenge = server([bytes([i]) for i in range(1, 5)]).receive(client().start())
    assert challenge is not None
    with pytest.raises(HandshakeError, match="something else than a handshake"):
        client().receive(challenge + bytes(32))


def test_short_challenges() -> None:
    for size in range(53):
        with pytest.raises(HandshakeError, match="something else than a handshake"):
            client().receive(bytes(size))


def test_frames_after_the_end() -> None:
    a, b = client(), server()
    hello, challenge, proof = shake(a, b)
    for side in (a, b):
        for frame in (hello, challenge, proof):
            with pytest.raises(HandshakeError, match="goes on after the end"):
                side.receive(frame)
        assert side.done


def test_frames_after_a_failure() -> None:
    b = server()
    hello = client().start()
    with pytest.raises(HandshakeError, match="something else"):
        b.receive(b"?")
    with pytest.raises(HandshakeError, match="goes on after the end"):
        b.receive(hello)


def test_other_protocols_and_versions() -> None:
    hello = client().start()
    with pytest.raises(HandshakeError, match="does not speak this protocol"):
        server().receive(b"HTTP" + hello[4:])
    with pytest.raises(HandshakeError, match="speaks version 1, this side 3"):
        server().receive(hello[:4] + b"\x01" + hello[5:])


@given(st.integers(0, 2), st.data())
def test_no_changed_byte_is_accepted(which: int, data: st.DataObject) -> None:
    """Whatever is changed on the way, one side refuses, so that there is no link."""
    a, b = client(), server()

    def carried(index: int, frame: bytes | None) -> bytes:
        assert frame is not None
        if index != which:
            return frame
        at = data.draw(st.integers(0, len(frame) - 1))
        flip = data.draw(st.integers(1, 255))
        return frame[:at] + bytes([frame[at] ^ flip]) + frame[at + 1 :]

    with pytest.raises(HandshakeError):
        b.receive(carried(2, a.receive(carried(1, b.receive(carried(0, a.start()))))))


@given(st.lists(st.binary(max_size=200), max_size=4), st.sampled_from(Role))
def test_random_frames(frames: list[bytes], role: Role) -> None:
    side = client() if role is Role.CLIENT else server()
    for frame in frames:
        with pytest.raises(HandshakeError):
            side.receive(frame)
    assert not side.done


@pytest.mark.parametrize("secrets", [[], [b""], [SECRET, b""]])
def test_secrets_are_needed(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="needs secrets"):
        Handshake(Role.SERVER, identity(SERVER), secrets)


@pytest.mark.parametrize("sizes", [(15, 16, 32), (16, 17, 32), (16, 16, 31)])
def test_sizes_of_an_identity(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="An identity needs 16, 16 and 32 bytes"):
        Identity(*map(bytes, sizes))


def test_no_secret_is_shown() -> None:
    side = client()
    assert "secret" not in repr(side)
    assert namespace_hash("a") != namespace_hash("b")
    assert len(namespace_hash("a")) == 16
