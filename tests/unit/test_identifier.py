from __future__ import annotations

import copy
import pickle
import uuid
from operator import eq, ne
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from academy.identifier import AgentId, EntityId, UserId

UID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
KINDS = pytest.mark.parametrize("kind", [AgentId, UserId])


class Calc:
    pass


@KINDS
class TestBoth:
    def test_new_is_unique(self, kind: type[Any]) -> None:
        first, second = kind.new(), kind.new(name="second")
        assert isinstance(first.uid, uuid.UUID)
        assert first != second
        assert (first.name, second.name) == (None, "second")

    def test_equality_is_by_uid(self, kind: type[Any]) -> None:
        one, other = kind(uid=UID, name="a"), kind(uid=UID, name="b")
        assert one == other
        assert not ne(one, other)
        assert hash(one) == hash(other)
        assert len({one, other}) == 1
        assert one != kind.new("a")
        assert not eq(one, kind.new("a"))
        assert one != UID
        assert not eq(one, UID)

    def test_uid_from_text(self, kind: type[Any]) -> None:
        assert kind(uid=str(UID)).uid == UID

    @pytest.mark.parametrize("uid", ["nothing", 7, None, b"x" * 16, ""])
    def test_wrong_uid(self, kind: type[Any], uid: object) -> None:
        message = f"{kind.__name__} needs a UUID as its uid, not"
        with pytest.raises(ValueError, match=message):
            kind(uid=uid)

    def test_text(self, kind: type[Any]) -> None:
        name = kind.__name__
        assert str(kind(uid=UID)) == f"{name}<00112233>"
        assert str(kind(uid=UID, name="bob")) == f"{name}<bob>"
        assert repr(kind(uid=UID, name="bob")) == f"{name}(uid={UID!r}, name='bob')"

    def test_frozen(self, kind: type[Any]) -> None:
        with pytest.raises(AttributeError):
            kind.new().name = "other"

    def test_copies_and_pickles(self, kind: type[Any]) -> None:
        one = kind.new(name="bob")
        for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert again == one
            assert again.name == "bob"
            assert again.role == one.role

    def test_json(self, kind: type[Any]) -> None:
        one = kind(uid=UID, name="bob")
        role = {AgentId: "agent", UserId: "user"}[kind]
        assert one.role == role
        assert one.model_dump() == {"role": role, "uid": UID, "name": "bob"}
        assert kind.model_validate_json(one.model_dump_json()).name == "bob"
        assert kind.model_validate({"uid": str(UID)}) == one

    @pytest.mark.parametrize(
        "obj",
        [
            {"uid": str(UID), "color": 1},
            {"uid": "x"},
            {"name": "bob"},
            {"uid": str(UID), "name": 3},
            {"uid": str(UID), "role": "stranger"},
        ],
    )
    def test_invalid(self, kind: type[Any], obj: object) -> None:
        with pytest.raises(ValueError, match=kind.__name__):
            kind.model_validate(obj)

    @given(uid=st.uuids(), name=st.none() | st.text())
    def test_round_trip(self, kind: type[Any], uid: uuid.UUID, name: str) -> None:
        one = kind(uid=uid, name=name)
        again = kind.model_validate_json(one.model_dump_json())
        assert (again, again.name) == (one, name)


def test_agents_and_users_differ() -> None:
    agent: AgentId[Any] = AgentId(uid=UID)
    user = UserId(uid=UID)
    assert agent != user
    assert not eq(agent, user)
    assert len({agent, user}) == 2


def test_role_tells_them_apart() -> None:
    ids: list[EntityId] = [AgentId(uid=UID), UserId(uid=UID)]
    for one in ids:
        again = msgspec.convert(one.model_dump(), EntityId)
        assert type(again) is type(one)


def test_generic_at_run_time() -> None:
    assert AgentId[Calc].new("calc").name == "calc"


def test_fields_of_pydantic_models() -> None:
    class Model(pydantic.BaseModel):
        agent: AgentId[Calc]
        owner: UserId | None = None

    model = Model(agent=AgentId.new("calc"), owner=UserId.new())
    again = Model.model_validate_json(model.model_dump_json())
    assert again == model
    assert isinstance(again.agent, AgentId)
    with pytest.raises(pydantic.ValidationError, match="AgentId"):
        Model.model_validate({"agent": {"uid": "x"}})
