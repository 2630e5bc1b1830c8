from __future__ import annotations

import contextvars
import json
import pathlib
import pickle
import struct
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from academy.exception import (
    AcademyRemoteError,
    DeserializationError,
    DeserializationMethodProhibitedError,
    SerializationError,
)
from academy.segment import KINDS, Segment, detach
from academy.serialize import (
    ALL_SERIALIZERS,
    OUT_OF_BAND,
    JsonSerializer,
    NoPickleMixin,
    PickleSerializer,
    SerializationStrategy,
    allowed_deserializers,
    allowing,
    check_allowed,
    default_serializer,
    deserialize,
    join,
    json_exception_deserializer,
    json_exception_serializer,
    pack,
    serialize,
    split,
    unpack,
)

PICKLE, JSON = SerializationStrategy.PICKLE, SerializationStrategy.JSON
PLAIN = {"numbers": [1, 2.5, None, True], "text": "ä"}
both = pytest.mark.parametrize("strategy", [PICKLE, JSON])


class Pest:
    """Leaves a file behind when somebody unpickles it."""

    def __init__(self, trace: pathlib.Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return pathlib.Path.touch, (self.trace,)


class Grumpy(Exception):
    """Can be neither pickled nor cloudpickled."""

    def __reduce__(self) -> Any:
        raise ValueError("not me")


class Gone:
    """Its class is taken away between pickling and unpickling."""


class Bound(NoPickleMixin):
    pass


def test_strategies() -> None:
    assert {s.value for s in ALL_SERIALIZERS} == {"pickle", "json"}
    assert SerializationStrategy("json") is JSON
    context = contextvars.Context()
    assert context.run(default_serializer.get) is PICKLE
    assert context.run(allowed_deserializers.get) == ALL_SERIALIZERS


class TestText:
    @both
    def test_round_trip(self, strategy: SerializationStrategy) -> None:
        text = serialize(PLAIN, strategy)
        assert isinstance(text, str)
        assert deserialize(text, strategy) == PLAIN

    def test_strategy_by_name(self) -> None:
        assert deserialize(serialize([1], "json"), "json") == [1]  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="yaml"):
            serialize(1, "yaml")  # type: ignore[arg-type]

    def test_serializer_classes(self) -> None:
        assert JsonSerializer.serialize([1]) == "[1]"
        assert JsonSerializer.deserialize("[1]") == [1]
        assert PickleSerializer.deserialize(PickleSerializer.serialize({1})) == {1}

    def test_pickle_carries_functions(self) -> None:
        assert deserialize(serialize(lambda x: x + 1, PICKLE), PICKLE)(1) == 2

    def test_what_the_strategy_cannot(self) -> None:
        with pytest.raises(TypeError, match="object has no notation in JSON"):
            serialize(object(), JSON)
        with pytest.raises(TypeError, match="lock"):
            serialize(threading.Lock(), PICKLE)

    def test_exception_as_json(self) -> None:
        text = serialize({"error": ValueError("x")}, JSON)
        error = deserialize(text, JSON)["error"]
        assert type(error) is AcademyRemoteError
        assert str(error) == "ValueError: x\n"

    def test_json_hooks(self) -> None:
        as_dict = json_exception_serializer(KeyError("k"))
        assert as_dict == {"__exception__": True, "exception_str": "KeyError: 'k'\n"}
        assert isinstance(json_exception_deserializer(as_dict), AcademyRemoteError)
        with pytest.raises(TypeError, match="set has no notation"):
            json_exception_serializer({1})

    @pytest.mark.parametrize(
        "plain", [{}, {"__exception__": True}, {"exception_str": "x"}, {"a": 1}]
    )
    def test_other_dicts_stay(self, plain: dict[str, Any]) -> None:
        assert json_exception_deserializer(plain) is plain


class TestPolicy:
    def test_refused_before_it_is_decoded(self, tmp_path: pathlib.Path) -> None:
        trace = tmp_path / "trace"
        text = serialize(Pest(trace), PICKLE)
        segments = pack(Pest(trace), PICKLE, what="result")
        with allowing({JSON}):
            with pytest.raises(DeserializationMethodProhibitedError) as caught:
                deserialize(text, PICKLE)
            assert caught.value.allowed == ("json",)
            with pytest.raises(DeserializationMethodProhibitedError):
                unpack(segments, PICKLE, what="result")
        assert not trace.exists()
        unpack(segments, PICKLE, what="result")
        assert trace.exists()

    @both
    def test_nothing_is_allowed(self, strategy: SerializationStrategy) -> None:
        with (
            allowing(set()),
            pytest.raises(DeserializationMethodProhibitedError, match="nothing"),
        ):
            check_allowed(strategy)

    def test_block_ends(self) -> None:
        before = allowed_deserializers.get()
        with allowing({JSON}), allowing(None):
            assert allowed_deserializers.get() == {JSON}
        assert allowed_deserializers.get() == before
        with pytest.raises(KeyError), allowing({JSON}):
            raise KeyError
        assert allowed_deserializers.get() == before
        with allowing(None):
            assert allowed_deserializers.get() == before

    def test_a_plain_set_will_do(self) -> None:
        def refuse() -> None:
            allowed_deserializers.set({JSON})
            check_allowed(JSON)
            check_allowed(PICKLE)

        with pytest.raises(DeserializationMethodProhibitedError):
            contextvars.copy_context().run(refuse)


class TestPack:
    @both
    def test_round_trip(self, strategy: SerializationStrategy) -> None:
        segments = pack(PLAIN, strategy, what="result")
        assert len(segments) == 1
        assert unpack(segments, strategy, what="result") == PLAIN

    def test_buffers_are_views(self) -> None:
        array = np.arange(1000.0)
        segments = pack({"a": array}, PICKLE, what="result")
        assert len(segments) == 2
        assert len(segments[0]) < 500
        assert np.shares_memory(np.frombuffer(segments[1]), array)

    @pytest.mark.parametrize("extra", [None, lambda: None], ids=["pickle", "cloud"])
    def test_arrays_arrive_writable(self, extra: Any) -> None:
        array = np.arange(1000.0)
        segments = pack([array, extra], PICKLE, what="result")
        assert len(segments) == 2
        block = join(segments)
        [again, _] = unpack(split(block), PICKLE, what="result")
        assert np.array_equal(again, array)
        again[0] = 7.0
        assert array[0] == 0.0

    @pytest.mark.parametrize("kind", [bytes, bytearray])
    @pytest.mark.parametrize("more", [-1, 0, 1])
    def test_large_bytes_are_not_copied(self, kind: Any, more: int) -> None:
        data = kind(OUT_OF_BAND + more)
        segments = pack(data, PICKLE, what="result")
        assert (segments[-1] is data) is (more >= 0)
        found = unpack(segments, PICKLE, what="result")
        assert type(found) is kind
        assert found == data
        assert (found is data) is (more >= 0)

    def test_large_arguments_are_not_copied(self) -> None:
        one, two = bytes(OUT_OF_BAND), bytearray(OUT_OF_BAND)
        arguments = (one, 5), {"two": two, "small": b"x"}
        stream, *buffers = pack(arguments, PICKLE, what="arguments")
        assert len(stream) < 200
        assert buffers[0] is one
        assert buffers[1] is two
        found = unpack([stream, *buffers], PICKLE, what="arguments")
        assert found == arguments
        assert type(found[0][0]) is bytes
        assert type(found[1]["two"]) is bytearray

    def test_an_argument_that_is_there_twice_stays_one(self) -> None:
        data = bytearray(OUT_OF_BAND)
        segments = pack(((data, data), {"b": data}), PICKLE, what="arguments")
        (one, two), kargs = unpack(segments, PICKLE, what="arguments")
        assert one is two is kargs["b"]
        assert one == data

    def test_only_what_is_bytes_itself_is_taken_out(self) -> None:
        class Text(bytes):
            pass

        for value in ([bytes(OUT_OF_BAND)], Text(OUT_OF_BAND)):
            (stream,) = pack(value, PICKLE, what="result")
            assert len(stream) > OUT_OF_BAND

    def test_arguments_of_strange_kinds(self) -> None:
        arguments = (np.arange(10),), {}
        (found,), _ = unpack(pack(arguments, PICKLE, what="arguments"), PICKLE, what="")
        assert (found == np.arange(10)).all()

    def test_bytes_for_json(self) -> None:
        with pytest.raises(SerializationError, match="bytes"):
            pack(bytes(OUT_OF_BAND), SerializationStrategy.JSON, what="result")

    def test_detached_copies(self) -> None:
        array = np.zeros(10)
        segments = detach(pack(array, PICKLE, what="result"))
        array[:] = 1.0
        again = unpack(segments, PICKLE, what="result")
        assert not again.any()
        again[0] = 2.0
        assert segments[1] is not detach(segments)[1]
        assert segments[0] is detach(segments)[0]

    def test_local_classes_travel(self) -> None:
        class Local:
            value = 3

        obj = unpack(pack(Local(), PICKLE, what="result"), PICKLE, what="result")
        assert obj.value == 3

    def test_classes_of_main_travel_by_value(self) -> None:
        """The worker's `__main__` is not that of the sender."""
        program = (
            "import sys\n"
            "from academy.serialize import *\n"
            "from academy.serialize import join, pack\n"
            "class Mine:\n"
            "    def __init__(self): self.x = 4\n"
            "    def double(self): return 2 * self.x\n"
            "segments = pack(Mine(), SerializationStrategy.PICKLE, what='result')\n"
            "sys.stdout.buffer.write(join(segments))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, check=True
        )
        obj = unpack(split(done.stdout), PICKLE, what="result")
        assert obj.double() == 8

    def test_text_about_main_is_no_matter(self) -> None:
        segments = pack("__main__", PICKLE, what="result")
        assert unpack(segments, PICKLE, what="result") == "__main__"

    @pytest.mark.parametrize(
        ("obj", "strategy", "types", "detail"),
        [
            (threading.Lock(), PICKLE, "lock", "TypeError: cannot pickle"),
            (Bound(), PICKLE, "Bound", "PicklingError: Bound holds connections"),
            (Grumpy(), PICKLE, "Grumpy", "ValueError: not me"),
            ({1}, JSON, "set", "TypeError: set has no notation in JSON"),
            (((1, {2}), {"k": b"x"}), JSON, "int, set, k: bytes", "TypeError: set"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_cannot_travel(
        self, obj: Any, strategy: SerializationStrategy, types: str, detail: str
    ) -> None:
        with pytest.raises(SerializationError) as caught:
            pack(obj, strategy, what="result")
        error = caught.value
        assert (error.what, error.type_name) == ("result", types)
        assert error.serializer == strategy.value
        assert error.detail.startswith(detail)
        assert error.__cause__ is not None

    @both
    def test_endless_nesting(self, strategy: SerializationStrategy) -> None:
        nested: list[Any] = []
        for _ in range(100_000):
            nested = [nested]
        with pytest.raises(SerializationError, match="RecursionError"):
            pack(nested, strategy, what="result")

    @given(data=st.binary())
    @example(data=b"")
    @example(data=b"[" * 100_000)
    def test_damaged_json(self, data: bytes) -> None:
        try:
            expected = json.loads(data.decode())
        except (ValueError, RecursionError):
            with pytest.raises(DeserializationError, match="arguments could not") as e:
                unpack([data], JSON, what="arguments")
            assert e.value.__cause__ is not None
        else:
            assert repr(unpack([data], JSON, what="arguments")) == repr(expected)

    @given(data=st.data())
    def test_pickle_that_was_cut(self, data: st.DataObject) -> None:
        [stream] = pack(PLAIN, PICKLE, what="result")
        cut = data.draw(st.integers(0, len(stream) - 1))
        with pytest.raises(DeserializationError, match="result could not be read"):
            unpack([stream[:cut]], PICKLE, what="result")

    def test_pickle_without_its_buffers(self) -> None:
        stream, _ = pack(np.arange(10), PICKLE, what="result")
        with pytest.raises(DeserializationError, match="buffer"):
            unpack([stream], PICKLE, what="result")

    def test_missing_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        segments = pack(Gone(), PICKLE, what="result")
        monkeypatch.delitem(globals(), "Gone")
        with pytest.raises(DeserializationError, match=r"Gone.*same packages"):
            unpack(segments, PICKLE, what="result")

    @both
    def test_no_segments(self, strategy: SerializationStrategy) -> None:
        with pytest.raises(DeserializationError):
            unpack([], strategy, what="result")


class TestSegments:
    @given(st.lists(st.tuples(st.sampled_from([*KINDS]), st.binary())))
    def test_round_trip(self, found: list[tuple[type[Segment], bytes]]) -> None:
        segments = [kind(data) for kind, data in found]
        block = join(segments)
        for same in (block, bytearray(block), memoryview(block)):
            again = split(same)
            assert [bytes(s) for s in again] == [bytes(s) for s in segments]
            assert [type(s) for s in again] == [type(s) for s in segments]

    @given(block=st.binary())
    @example(block=struct.pack("!I", 2**32 - 1))
    @example(block=struct.pack("!IQ", 1, 2**64 - 1))
    @example(block=struct.pack("!IQQ", 2, 2**64 - 1, 2))
    def test_random_blocks(self, block: bytes) -> None:
        try:
            segments = split(block)
        except ValueError:
            return
        assert join(segments) == block

    @given(segments=st.lists(st.binary(), min_size=1), data=st.data())
    def test_every_cut_is_noticed(
        self, segments: list[bytes], data: st.DataObject
    ) -> None:
        block = join(segments)
        cut = data.draw(st.integers(0, len(block) - 1))
        with pytest.raises(ValueError, match=r"cut off|do not add up"):
            split(block[:cut])
        with pytest.raises(ValueError, match="do not add up"):
            split(block + b"x")


def test_no_pickle() -> None:
    with pytest.raises(pickle.PicklingError, match=r"Bound holds .* Send its factory"):
        pickle.dumps(Bound())


def test_json_is_real_json() -> None:
    [segment] = pack(PLAIN, JSON, what="result")
    assert json.loads(bytes(segment)) == PLAIN
