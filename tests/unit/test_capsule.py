from __future__ import annotations

import pickle
import struct
import sys
import threading
from dataclasses import replace

import cloudpickle
import msgspec
import pytest

import academy
from academy.capsule import MAGIC, RunSpec, WorkerFailure, dump_body, seal, unseal
from academy.exception import WorkerMismatchError
from academy.exchange.factory import ExchangeFactory
from academy.exchange.local import LocalAgentRegistration, LocalExchangeFactory
from academy.identifier import AgentId
from academy.logging import ConsoleLogging
from academy.runtime import RuntimeConfig
from academy.serialize import NoPickleMixin
from tests.launched_agents import Counter, UnpicklableError


class PicklableFactory(ExchangeFactory):
    """A factory that needs no exchange as long as nobody uses it."""

    async def _create_transport(self, mailbox_id=None, *, name=None, registration=None):
        raise AssertionError("nothing is run here")


@pytest.fixture
def spec() -> RunSpec:
    return RunSpec(
        agent=Counter,
        args=(3,),
        kwargs={"step": 2},
        config=RuntimeConfig(max_sync_concurrency=7),
        exchange_factory=PicklableFactory(),
        registration=LocalAgentRegistration(AgentId.new(name="c")),
        log_config=ConsoleLogging(level="ERROR"),
        debug=True,
    )


def headed(capsule: bytes, **changes: object) -> bytes:
    """Return a capsule with some fields of its header changed."""
    start = len(MAGIC) + 4
    (length,) = struct.unpack_from("!I", capsule, len(MAGIC))
    header = msgspec.json.decode(capsule[start : start + length])
    header.update(changes)
    changed = msgspec.json.encode(header)
    return MAGIC + struct.pack("!I", len(changed)) + changed + capsule[start + length :]


def test_round_trip(spec: RunSpec) -> None:
    opened = unseal(seal(dump_body(spec), final=True))
    assert opened.registration == spec.registration
    assert opened.config == spec.config
    assert opened.debug
    assert opened.log_config is not None
    assert opened.log_config.uuid == spec.log_config.uuid
    agent = opened.create_agent()
    assert (agent.value, agent.step) == (3, 2)


def test_only_the_last_try_may_close_the_mailbox(spec: RunSpec) -> None:
    body = dump_body(spec)
    assert unseal(seal(body, final=True)).config.terminate_on_error
    first = unseal(seal(body, final=False)).config
    assert first == RuntimeConfig(max_sync_concurrency=7, terminate_on_error=False)


def test_instance_is_used_as_it_is(spec: RunSpec) -> None:
    agent = Counter(5)
    assert replace(spec, agent=agent).create_agent() is agent


def test_class_of_main_travels_by_value(spec: RunSpec) -> None:
    class Local(Counter):
        def __init__(self) -> None:
            self.value = 99

    Local.__module__ = "__main__"
    body = dump_body(replace(spec, agent=Local, args=(), kwargs={}))
    assert unseal(seal(body, final=True)).create_agent().value == 99


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"python": "2.7"},
            "Python is 2.7 where it was launched and "
            f"{sys.version_info.major}.{sys.version_info.minor} on the worker",
        ),
        (
            {"packages": {"academy-hybrid": "0.0.1"}},
            "academy-hybrid is 0.0.1 where it was launched and "
            f"{academy.__version__} on the worker; cloudpickle is not installed",
        ),
        ({"protocol": 99}, "the capsule has format 99, but the worker reads 1"),
    ],
)
def test_mismatch_is_a_sentence(
    spec: RunSpec, changes: dict[str, object], sentence: str
) -> None:
    capsule = headed(seal(b"not even a pickle", final=True), **changes)
    with pytest.raises(WorkerMismatchError) as e:
        unseal(capsule)
    assert sentence in str(e.value)
    assert "Use the same environment on the worker" in str(e.value)


def test_patch_release_of_cloudpickle_is_no_mismatch(spec: RunSpec) -> None:
    [minor] = {".".join(cloudpickle.__version__.split(".")[:2])}
    capsule = seal(dump_body(spec), final=True)
    assert f'"cloudpickle":"{minor}"'.encode() in capsule


@pytest.mark.parametrize(
    ("capsule", "sentence"),
    [
        (b"PK\x03\x04", "not a capsule of this package"),
        (MAGIC + b"\x00", "the capsule is damaged"),
        (MAGIC + struct.pack("!I", 5) + b"{}", "the capsule is damaged"),
        (MAGIC + struct.pack("!I", 900) + b'{"final":', "the capsule is damaged"),
    ],
)
def test_damage(capsule: bytes, sentence: str) -> None:
    with pytest.raises(WorkerMismatchError, match=sentence):
        unseal(capsule)


def test_module_that_the_worker_lacks(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counter, "__module__", "tests.launched_agents")
    capsule = seal(dump_body(spec), final=True)
    monkeypatch.setitem(sys.modules, "tests.launched_agents", None)
    with pytest.raises(WorkerMismatchError, match="cannot be loaded there"):
        unseal(capsule)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"args": (1, threading.Lock())}, r"argument 2 \(lock\)"),
        ({"kwargs": {"step": threading.Lock()}}, r"argument 'step' \(lock\)"),
        (
            {"exchange_factory": LocalExchangeFactory()},
            r"the exchange factory \(LocalExchangeFactory\)",
        ),
    ],
)
def test_unpicklable_part_is_named(
    spec: RunSpec, changes: dict[str, object], part: str
) -> None:
    with pytest.raises(
        pickle.PicklingError, match=f"{part} cannot be sent to a worker process"
    ) as e:
        dump_body(replace(spec, **changes))
    hint = "hybrid" if "exchange_factory" in changes else "agent_on_startup()"
    assert hint in str(e.value)


def test_unpicklable_instance_is_named(spec: RunSpec) -> None:
    agent = Counter()
    agent.lock = threading.Lock()
    with pytest.raises(pickle.PicklingError, match=r"the agent \(Counter\)"):
        dump_body(replace(spec, agent=agent))


def test_parts_that_cannot_be_pickled_together(spec: RunSpec) -> None:
    """Something that can be pickled once, so that no single part is to blame."""

    class Once(NoPickleMixin):
        pickled = 0

        def __getstate__(self) -> None:
            type(self).pickled += 1
            if self.pickled == 1:
                raise ValueError("the first time")

    with pytest.raises(pickle.PicklingError, match="the agent with its arguments"):
        dump_body(replace(spec, args=(Once(),)))


class TestWorkerFailure:
    def raised(self, error: Exception) -> WorkerFailure:
        try:
            raise error
        except Exception as e:
            return pickle.loads(pickle.dumps(WorkerFailure.wrap(e)))

    def test_original_with_the_remote_traceback(self) -> None:
        failure = self.raised(KeyError("lattice"))
        assert str(failure) == "KeyError: 'lattice'"
        error = failure.unwrap()
        assert type(error) is KeyError
        assert error.args == ("lattice",)
        [note] = error.__notes__
        assert note.startswith("Raised on the worker:\nTraceback")
        assert "in raised" in note

    def test_class_of_main_keeps_its_identity(self) -> None:
        class MainError(Exception):
            pass

        MainError.__module__ = "__main__"
        assert type(self.raised(MainError("x")).unwrap()) is MainError

    def test_unpicklable(self) -> None:
        error = self.raised(UnpicklableError("stays here")).unwrap()
        assert type(error) is RuntimeError
        assert str(error) == "UnpicklableError: stays here"
        assert "in raised" in error.__notes__[0]

    def test_exception_that_cannot_be_rebuilt(self) -> None:
        class TwoArguments(Exception):
            def __init__(self, one: int, two: int) -> None:
                super().__init__("text")

        error = self.raised(TwoArguments(1, 2)).unwrap()
        assert type(error) is RuntimeError
        assert str(error) == "TwoArguments: text"

    def test_exception_that_only_the_worker_can_rebuild(self) -> None:
        error = WorkerFailure("Odd: text", "details", b"no pickle").unwrap()
        assert type(error) is RuntimeError
        assert str(error) == "Odd: text"
        assert "cannot be rebuilt here" in error.__notes__[0]

    def test_exception_without_text(self) -> None:
        assert str(self.raised(TimeoutError())) == "TimeoutError"
