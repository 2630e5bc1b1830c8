from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import pydantic
import pytest

from academy.value import Value, coerce_fields, field_names

UID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


class Point(Value, msgspec.Struct, frozen=True, kw_only=True):
    uid: uuid.UUID
    weight: float = 1.0


class Tagged(Value, msgspec.Struct, tag_field="role", tag="tagged", kw_only=True):
    name: str = "n"


@dataclass
class Receipt(Value):
    point: Point
    kind: Literal["receipt"] = field(default="receipt", repr=False)


class Quiet(Value, msgspec.Struct, kw_only=True):
    hidden_fields = frozenset({"secret"})
    shown: int = 1
    secret: str = "s"


class Config(Value, msgspec.Struct, kw_only=True):
    interval: float = 30
    modes: set[Literal["a", "b"]] | None = None

    def __post_init__(self) -> None:
        coerce_fields(self)


def test_repr_names_the_shown_fields() -> None:
    assert repr(Point(uid=UID)) == f"Point(uid={UID!r}, weight=1.0)"
    assert repr(Quiet()) == "Quiet(shown=1)"


@pytest.mark.parametrize(
    ("cls", "names"),
    [(Point, ("uid", "weight")), (Receipt, ("point", "kind")), (Tagged, ("name",))],
)
def test_field_names(cls: type, names: tuple[str, ...]) -> None:
    assert field_names(cls) == names


class TestDump:
    def test_python_keeps_uuids(self) -> None:
        dump = {"uid": UID, "weight": 1.0}
        assert Point(uid=UID).model_dump() == dump
        assert Receipt(Point(uid=UID)).model_dump() == {
            "point": dump,
            "kind": "receipt",
        }

    def test_json_has_only_what_json_has(self) -> None:
        assert Point(uid=UID).model_dump(mode="json") == {
            "uid": str(UID),
            "weight": 1.0,
        }

    def test_tag_is_part_of_it(self) -> None:
        assert Tagged().model_dump() == {"role": "tagged", "name": "n"}

    def test_json_text(self) -> None:
        text = Point(uid=UID).model_dump_json()
        assert text == f'{{"uid":"{UID}","weight":1.0}}'
        indented = Point(uid=UID).model_dump_json(indent=2)
        assert indented.splitlines()[1] == f'  "uid": "{UID}",'
        assert json.loads(indented) == json.loads(text)


class TestValidate:
    @pytest.mark.parametrize(
        "value", [Point(uid=UID, weight=2.5), Tagged(name="x"), Receipt(Point(uid=UID))]
    )
    def test_round_trips(self, value: Value) -> None:
        cls = type(value)
        assert cls.model_validate(value.model_dump()) == value
        assert cls.model_validate(value.model_dump(mode="json")) == value
        assert cls.model_validate_json(value.model_dump_json()) == value
        assert cls.model_validate_json(value.model_dump_json().encode()) == value

    def test_instance_is_returned_as_it_is(self) -> None:
        point = Point(uid=UID)
        assert Point.model_validate(point) is point

    def test_tag_may_be_missing_but_not_wrong(self) -> None:
        assert Tagged.model_validate({"name": "x"}).name == "x"
        with pytest.raises(ValueError, match=r"Not a valid Tagged: .*role"):
            Tagged.model_validate({"name": "x", "role": "other"})

    def test_unknown_fields_are_named(self) -> None:
        message = "Point has no field 'color', 'size'; its fields are uid, weight."
        with pytest.raises(ValueError, match=message):
            Point.model_validate({"uid": UID, "size": 1, "color": 2})
        with pytest.raises(ValueError, match="Receipt has no field 'x'"):
            Receipt.model_validate({"point": {"uid": UID}, "x": 1})

    @pytest.mark.parametrize(
        ("obj", "message"),
        [
            ({}, "Not a valid Point: .*missing required field `uid`"),
            ({"uid": "nothing"}, "Not a valid Point: .*UUID"),
            ({"uid": UID, "weight": "heavy"}, r"Not a valid Point: .*\$.weight"),
            (7, "Not a valid Point: Expected `object`, got `int`"),
            (None, "Not a valid Point"),
        ],
    )
    def test_errors_name_class_and_field(self, obj: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Point.model_validate(obj)

    @pytest.mark.parametrize("text", ["", "{", b"\xff\xfe", "[1,]"])
    def test_no_json(self, text: str | bytes) -> None:
        with pytest.raises(ValueError, match="Not JSON, so not a Point"):
            Point.model_validate_json(text)

    def test_json_of_something_else(self) -> None:
        with pytest.raises(ValueError, match="Not a valid Point"):
            Point.model_validate_json("[1]")


class TestCoerce:
    def test_numbers_are_converted(self) -> None:
        config = Config(interval=5, modes={"a"})
        assert isinstance(config.interval, float)
        assert config.modes == {"a"}

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"interval": "5"}, r"Config\(interval='5'\): Expected `float`, got `str`"),
            ({"modes": {"c"}}, r"Config\(modes=\{'c'\}\): Invalid enum value 'c'"),
            ({"modes": 3}, r"Config\(modes=3\): Expected `array \| null`, got `int`"),
        ],
    )
    def test_wrong_types(self, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Config(**fields)


class TestPydantic:
    """Users have our values as fields of their pydantic models."""

    def test_round_trip(self) -> None:
        class Model(pydantic.BaseModel):
            receipt: Receipt
            points: list[Point]

        model = Model(receipt=Receipt(Point(uid=UID)), points=[Point(uid=UID)])
        assert model.model_dump()["points"] == [{"uid": UID, "weight": 1.0}]
        again = Model.model_validate_json(model.model_dump_json())
        assert again == model
        assert isinstance(again.receipt.point, Point)

    def test_invalid(self) -> None:
        class Model(pydantic.BaseModel):
            point: Point

        with pytest.raises(pydantic.ValidationError, match="Not a valid Point"):
            Model.model_validate({"point": {"uid": 1}})
