from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.link.config import LinkConfig
from academy.link.frame import (
    Ack,
    Bye,
    Close,
    Control,
    Data,
    Frame,
    Ping,
    Pong,
    Refused,
)
from academy.link.handshake import Handshake, Role
from academy.link.protocol import (
    MEASURE,
    TRANSITIONS,
    Cause,
    LinkClosed,
    LinkOpen,
    LinkProtocol,
    State,
    Suspected,
    Trusted,
)
from academy.link.refusal import Refusal
from tests.unit.link.pair import (
    CLIENT,
    CONFIG,
    SERVER,
    identity,
    open_pair,
    protocol,
    wire,
    written,
)

FRAMES: list[Frame] = [
    Close(1),
    Data(1, 5, [b"head", b"body"]),
    Ack(((1, 2),)),
    Refused(3, 0),
]


def closed(link: LinkProtocol) -> LinkClosed:
    """Return the last event of a link that has ended."""
    assert link.state is State.CLOSED
    assert link.closed
    assert link.next_timer() is None
    *_, last = link.events_received()
    assert isinstance(last, LinkClosed)
    return last


def received(link: LinkProtocol) -> list[object]:
    return [e for e in link.events_received() if isinstance(e, Frame)]


def test_the_client_speaks_first() -> None:
    client, server = protocol(Role.CLIENT), protocol(Role.SERVER)
    assert written(server) == b""
    hello = written(client)
    assert len(hello) == 4 + struct.unpack_from("!I", hello)[0]
    assert written(client) == b""


def test_both_sides_open() -> None:
    client, server = protocol(Role.CLIENT), protocol(Role.SERVER)
    server.receive_data(written(client), 0.0)
    assert server.events_received() == []
    client.receive_data(written(server), 0.0)
    assert client.events_received() == [LinkOpen(SERVER)]
    server.receive_data(written(client), 0.0)
    assert server.events_received() == [LinkOpen(CLIENT)]
    assert (client.state, server.state) == (State.OPEN, State.OPEN)
    assert written(client) == written(server) == b""
    assert not client.closed


def test_byte_by_byte() -> None:
    client, server = protocol(Role.CLIENT), protocol(Role.SERVER)
    for _ in range(2):
        for sender, receiver in ((client, server), (server, client)):
            for byte in written(sender):
                receiver.receive_data(bytes([byte]), 0.0)
    client.events_received()
    server.events_received()
    for frame in FRAMES:
        client.send(frame)
    for byte in written(client):
        server.receive_data(bytes([byte]), 0.0)
    assert received(server) == FRAMES


def test_frames_right_behind_the_handshake() -> None:
    client, server = protocol(Role.CLIENT), protocol(Role.SERVER)
    server.receive_data(written(client), 0.0)
    client.receive_data(written(server), 0.0)
    large = Control(b"x" * (CONFIG.handshake_limit + 1))
    client.send(large)
    server.receive_data(written(client), 0.0)
    assert server.events_received() == [LinkOpen(CLIENT), large]


def test_frames_in_both_directions() -> None:
    client, server = open_pair()
    for sender, receiver in ((client, server), (server, client)):
        for frame in FRAMES:
            sender.send(frame)
        receiver.receive_data(written(sender), 1.0)
        assert received(receiver) == FRAMES
        assert receiver.events_received() == []


def test_large_pieces_are_not_copied() -> None:
    client, _ = open_pair()
    large = bytearray(1000)
    client.send(Data(1, 1, [b"head", large]))
    assert client.data_to_send()[-1] is large


def test_frames_before_the_link_is_open_are_dropped() -> None:
    client = protocol(Role.CLIENT)
    written(client)
    client.send(Close(1))
    assert written(client) == b""


# The end


def test_close_tells_the_peer() -> None:
    client, server = open_pair()
    client.close("enough")
    client.close("again")
    assert closed(client) == LinkClosed(Cause.CLOSED_HERE, "enough")
    goodbye = written(client)
    assert goodbye == wire([Bye()])
    server.receive_data(goodbye + wire(FRAMES), 1.0)
    assert closed(server).cause is Cause.CLOSED_BY_PEER
    assert written(server) == b""


def test_close_amid_the_handshake_tells_nothing() -> None:
    server = protocol(Role.SERVER)
    server.close("enough")
    assert closed(server) == LinkClosed(Cause.CLOSED_HERE, "enough")
    assert written(server) == b""


def test_fail_ends_an_open_link() -> None:
    client, server = open_pair()
    client.fail("a part amid those of another message")
    end = closed(client)
    assert end.cause is Cause.VIOLATED
    assert end.reason == "the peer sent a part amid those of another message"
    server.receive_data(written(client), 1.0)
    assert closed(server).cause is Cause.CLOSED_BY_PEER
    client.fail("more")
    assert client.events_received() == []


def test_fail_is_for_open_links() -> None:
    server = protocol(Role.SERVER)
    server.fail("something")
    assert server.state is State.HANDSHAKE


def test_refuse_tells_nothing() -> None:
    client = protocol(Role.CLIENT)
    client.refuse(Refusal.CERTIFICATE, "its certificate is another one")
    end = LinkClosed(
        Cause.REFUSED, "the peer was refused: its certificate is another one"
    )
    assert closed(client) == end
    assert client.refusal is Refusal.CERTIFICATE
    assert written(client) == b""
    client.refuse(Refusal.LATE, "again")
    assert client.refusal is Refusal.CERTIFICATE


def test_refuse_is_for_the_handshake() -> None:
    client, _ = open_pair()
    client.refuse(Refusal.CERTIFICATE, "something")
    assert client.state is State.OPEN
    assert client.refusal is None


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"GET / HTTP/1.1", Refusal.GARBAGE),
        (b"\0\0\0\4what", Refusal.GARBAGE),
        (b"\xff" * 4, Refusal.GARBAGE),
    ],
)
def test_why_a_stranger_is_refused(data: bytes, refusal: Refusal) -> None:
    server = protocol(Role.SERVER)
    server.receive_data(data, 1.0)
    assert closed(server).cause is Cause.REFUSED
    assert server.refusal is refusal


def test_why_a_silent_stranger_is_refused() -> None:
    server = protocol(Role.SERVER)
    fall_silent(server)
    assert closed(server).cause is Cause.REFUSED
    assert server.refusal is Refusal.LATE


def test_why_a_member_is_refused() -> None:
    client, _ = open_pair()
    client.receive_data(b"\xff" * 4, 1.0)
    assert closed(client).cause is Cause.VIOLATED
    assert client.refusal is Refusal.VIOLATION


@pytest.mark.parametrize("opened", [False, True])
def test_end_of_the_byte_stream(opened: bool) -> None:
    link = open_pair()[0] if opened else protocol(Role.CLIENT)
    link.receive_eof(1.0)
    link.receive_eof(2.0)
    assert closed(link) == LinkClosed(Cause.LOST, "the connection was lost")
    assert link.events_received() == []


def test_nothing_happens_after_the_end() -> None:
    client, server = open_pair()
    run(client, 4.0)
    client.close("enough")
    written(client)
    client.events_received()
    server.send(Close(1))
    client.receive_data(written(server), 1.0)
    client.receive_data(b"\xff" * 100, 1.0)
    client.receive_eof(1.0)
    client.handle_timer(1e9)
    client.send(Close(1))
    client.fail("something")
    assert client.events_received() == []
    assert client.data_to_send() == []


# What strangers may do


def test_wrong_secret() -> None:
    client = LinkProtocol(
        CONFIG, Role.CLIENT, Handshake(Role.CLIENT, identity(CLIENT), [b"wrong"]), 0.0
    )
    server = protocol(Role.SERVER)
    server.receive_data(written(client), 0.0)
    client.receive_data(written(server), 0.0)
    end = closed(client)
    assert end.cause is Cause.REFUSED
    assert end.reason == "the peer was refused: it does not know the secret"
    assert written(client) == b""


def test_strangers_get_no_more_than_a_challenge() -> None:
    client, server = protocol(Role.CLIENT), protocol(Role.SERVER)
    hello = written(client)
    server.receive_data(hello + hello, 0.0)
    assert closed(server).cause is Cause.REFUSED
    assert written(server) == b""


@pytest.mark.parametrize("length", [0, 513, 0xFFFFFFFF])
def test_frames_of_strangers_are_small(length: int) -> None:
    server = protocol(Role.SERVER)
    server.receive_data(struct.pack("!I", length), 0.0)
    end = closed(server)
    assert end.cause is Cause.REFUSED
    assert end.reason.startswith(f"the peer sent a frame of {length} bytes")


def test_little_is_kept_of_a_stranger() -> None:
    server = protocol(Role.SERVER)
    server.receive_data(struct.pack("!I", 512) + bytes(511), 0.0)
    assert server.state is State.HANDSHAKE
    assert server._reader.pending == 515
    server.receive_data(bytes(100_000), 0.0)
    assert closed(server).cause is Cause.REFUSED
    assert server._reader.pending == 0


def test_time_of_strangers() -> None:
    server = protocol(Role.SERVER, now=100.0)
    assert server.next_timer() == 105.0
    server.receive_data(b"\x00", 104.0)
    server.handle_timer(104.9)
    assert server.state is State.HANDSHAKE
    assert server.next_timer() == 105.0
    server.handle_timer(105.0)
    end = closed(server)
    assert end == LinkClosed(Cause.REFUSED, "the peer did not prove itself in time")


# What proved peers may do


@pytest.mark.parametrize("length", [0, CONFIG.frame_limit + 1, 0xFFFFFFFF])
def test_frames_of_peers_have_a_limit(length: int) -> None:
    client, server = open_pair()
    server.receive_data(struct.pack("!I", length), 1.0)
    end = closed(server)
    assert end.cause is Cause.VIOLATED
    assert end.reason.startswith(f"the peer sent a frame of {length} bytes")
    client.receive_data(written(server), 1.0)
    assert closed(client).cause is Cause.CLOSED_BY_PEER


def test_nothing_is_allocated_from_a_length() -> None:
    _, server = open_pair()
    server.receive_data(struct.pack("!I", CONFIG.frame_limit) + b"abc", 1.0)
    assert server.state is State.OPEN
    assert server._reader.pending == 7
    server.close("enough")
    assert server._reader.pending == 0


def test_a_damaged_frame_ends_the_link_behind_good_ones() -> None:
    _, server = open_pair()
    server.receive_data(wire(FRAMES) + b"\x00\x00\x00\x01\xff" + wire(FRAMES), 1.0)
    events = server.events_received()
    assert events[:-1] == FRAMES
    end = LinkClosed(Cause.VIOLATED, "the peer sent a frame of unknown type 255")
    assert events[-1] == end


def test_pings_that_come_together_get_one_answer() -> None:
    client, server = open_pair()
    server.receive_data(wire([Ping()] * 1000 + [Close(1)]), 1.0)
    assert received(server) == [Close(1)]
    answer = written(server)
    assert answer == wire([Pong()])
    client.receive_data(answer, 1.0)
    assert client.events_received() == []
    server.receive_data(wire([Pong()]), 1.0)
    assert written(server) == b""
    server.receive_data(wire([Ping()]), 2.0)
    assert written(server) == wire([Pong()])


def test_a_ping_before_the_goodbye_gets_none() -> None:
    _, server = open_pair()
    server.receive_data(wire([Ping(), Bye()]), 1.0)
    assert written(server) == b""
    _, server = open_pair()
    server.receive_data(wire([Ping()]) + b"\x00\x00\x00\x01\xff", 1.0)
    assert written(server) == wire([Bye()])


@given(st.lists(st.binary(max_size=200), max_size=10), st.sampled_from(Role))
def test_random_bytes_of_strangers(chunks: list[bytes], role: Role) -> None:
    link = protocol(role)
    for chunk in chunks:
        link.receive_data(chunk, 0.0)
        assert link._reader.pending <= CONFIG.handshake_limit + 4
    assert link.state is not State.OPEN
    assert all(isinstance(e, LinkClosed) for e in link.events_received())


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_random_bytes_of_peers(chunks: list[bytes]) -> None:
    _, server = open_pair()
    for chunk in chunks:
        server.receive_data(chunk, 0.0)
    assert server.state in (State.OPEN, State.CLOSED)


@given(st.binary(min_size=1, max_size=60).filter(lambda body: body[0] > 0))
def test_random_frames_of_peers(body: bytes) -> None:
    _, server = open_pair()
    server.receive_data(struct.pack("!I", len(body)) + body, 0.0)
    events = server.events_received()
    if server.closed:
        (end,) = events
        assert isinstance(end, LinkClosed)
        assert end.cause in (Cause.VIOLATED, Cause.CLOSED_BY_PEER)
    else:
        assert all(isinstance(e, Frame) for e in events)


# Signs of life


def run(link: LinkProtocol, until: float) -> list[tuple[float, object]]:
    """Let timers fire; return what happens and is sent, with the time."""
    happened: list[tuple[float, object]] = []
    while (due := link.next_timer()) is not None and due <= until:
        link.handle_timer(due)
        if sent := written(link):
            happened.append((due, sent))
        happened += [(due, event) for event in link.events_received()]
    return happened


PING = wire([Ping()])


def test_a_silent_peer_is_asked_suspected_and_given_up() -> None:
    link, _ = open_pair(now=100.0)
    assert run(link, 104.0) == [(102.0, PING), (104.0, PING)]
    assert run(link, 106.0) == [(106.0, PING), (106.0, Suspected())]
    assert run(link, 114.9) == [(t, PING) for t in (108.0, 110.0, 112.0, 114.0)]
    silent = LinkClosed(Cause.LOST, "the peer was silent for 15.0 s")
    assert run(link, 200.0) == [(115.0, silent)]


def test_any_byte_is_a_sign_of_life() -> None:
    link, _ = open_pair()
    run(link, 14.0)
    link.receive_data(b"\x00", 14.5)
    assert link.events_received() == [Trusted()]
    assert link.next_timer() == 16.5
    assert run(link, 20.0) == [(16.5, PING), (18.5, PING)]
    assert run(link, 20.5) == [(20.5, PING), (20.5, Suspected())]


def test_a_peer_that_speaks_is_not_asked() -> None:
    link, _ = open_pair()
    for second in range(1, 100):
        link.receive_data(wire([Pong()]), float(second))
        assert run(link, second + 0.9) == []


def test_trust_comes_before_the_frame() -> None:
    link, _ = open_pair()
    run(link, 10.0)
    link.receive_data(wire([Close(1)]), 10.0)
    assert link.events_received() == [Trusted(), Close(1)]


def test_a_late_timer_is_no_verdict() -> None:
    """This process was stopped for a minute: the peer gets its time to answer."""
    link, _ = open_pair()
    link.handle_timer(60.0)
    assert link.events_received() == []
    assert written(link) == PING
    assert run(link, 63.9) == [(62.0, PING)]
    assert run(link, 64.0) == [(64.0, PING), (64.0, Suspected())]
    silent = LinkClosed(Cause.LOST, "the peer was silent for 73.0 s")
    assert run(link, 73.0)[-1] == (73.0, silent)


def test_an_early_timer_does_nothing() -> None:
    link, _ = open_pair()
    link.handle_timer(1.9)
    assert written(link) == b""
    assert link.next_timer() == 2.0


@given(
    st.floats(0, 1e9),
    st.floats(0.001, 10),
    st.floats(0.001, 10),
    st.floats(0.001, 10),
    st.lists(st.floats(0, 30), max_size=5),
)
def test_a_timer_that_fires_moves(
    start: float, ping: float, suspect: float, dead: float, waits: list[float]
) -> None:
    config = LinkConfig(
        ping_interval=ping,
        suspect_after=ping + suspect,
        dead_after=ping + suspect + dead,
    )
    link, _ = open_pair(config, start)
    now = start
    for wait in [*waits, 1e9]:
        end = now + wait
        for _ in range(10_000):
            due = link.next_timer()
            if due is None or due > end:
                break
            link.handle_timer(due)
            moved = link.next_timer()
            assert moved is None or moved > due
            now = due
        if link.closed:
            return
        now = max(now, end)
        link.receive_data(wire([Pong()]), now)


# The table


def awaiting_proof() -> tuple[LinkProtocol, bytes]:
    """Return a server amid the handshake, and the proof that it waits for."""
    client, server = protocol(Role.CLIENT), protocol(Role.SERVER)
    server.receive_data(written(client), 0.0)
    client.receive_data(written(server), 0.0)
    return server, written(client)


def fall_silent(link: LinkProtocol) -> None:
    while (due := link.next_timer()) is not None:
        link.handle_timer(due)


INPUTS: dict[str, Callable[[LinkProtocol, bytes], None]] = {
    "proof": lambda link, proof: link.receive_data(proof, 1.0),
    "bye": lambda link, _: link.receive_data(wire([Bye()]), 1.0),
    "frame": lambda link, _: link.receive_data(wire([Close(1)]), 1.0),
    "oversized": lambda link, _: link.receive_data(b"\xff" * 4, 1.0),
    "eof": lambda link, _: link.receive_eof(1.0),
    "send": lambda link, _: link.send(Close(1)),
    "close": lambda link, _: link.close("enough"),
    "fail": lambda link, _: link.fail("something"),
    "early": lambda link, _: link.handle_timer(0.0),
    "silence": lambda link, _: fall_silent(link),
}


def causes(link: LinkProtocol) -> list[Cause]:
    found = []
    for event in link.events_received():
        match event:
            case LinkOpen():
                found.append(Cause.PROVED)
            case LinkClosed(cause, _):
                found.append(cause)
    return found


@pytest.mark.parametrize("first", INPUTS)
def test_a_state_changes_as_the_table_says(first: str) -> None:
    for second in INPUTS:
        link, proof = awaiting_proof()
        state = State.HANDSHAKE
        for name in (first, second):
            INPUTS[name](link, proof)
            for cause in causes(link):
                state = TRANSITIONS[state, cause]
            assert link.state is state


def test_every_transition_of_the_table_happens() -> None:
    seen = set()
    for names in itertools.product(INPUTS, repeat=2):
        link, proof = awaiting_proof()
        for name in names:
            before = link.state
            INPUTS[name](link, proof)
            found = causes(link)
            assert len(found) <= 1
            seen |= {(before, cause) for cause in found}
    assert seen == set(TRANSITIONS)


# Round trips


def test_the_handshake_is_the_first_round_trip() -> None:
    client, server = protocol(Role.CLIENT), protocol(Role.SERVER)
    assert client.rtt is server.rtt is None
    server.receive_data(written(client), 1.0)
    client.receive_data(written(server), 2.0)
    server.receive_data(written(client), 4.0)
    assert (client.rtt, server.rtt) == (2.0, 3.0)


def test_a_ping_measures_the_round_trip() -> None:
    client, server = open_pair()
    client.handle_timer(CONFIG.ping_interval)
    asked = written(client)
    assert asked == PING
    server.receive_data(asked, 2.1)
    client.receive_data(written(server), 2.25)
    assert client.rtt == pytest.approx(0.25)
    assert server.rtt == 0.0
    # One that nobody asked for measures nothing.
    client.receive_data(wire([Pong()]), 9.0)
    assert client.rtt == pytest.approx(0.25)


def test_of_several_pings_the_first_one_counts() -> None:
    client, _ = open_pair()
    for now in (2.0, 4.0):
        client.handle_timer(now)
    assert written(client) == PING * 2
    client.receive_data(wire([Pong()]), 5.0)
    assert client.rtt == pytest.approx(3.0)


def test_a_link_that_is_never_silent_is_measured_too() -> None:
    client, _ = open_pair()
    pings = []
    for tenth in range(1, 10 * 25):
        now = tenth / 10
        client.receive_data(wire([Close(1)]), now)
        client.handle_timer(now)
        if written(client):
            pings.append(now)
            client.receive_data(wire([Pong()]), now + 0.01)
    assert pings == [MEASURE, pytest.approx(2 * MEASURE + 0.1)]
    assert client.rtt == pytest.approx(0.01)
