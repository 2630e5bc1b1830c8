from __future__ import annotations

from typing import TYPE_CHECKING

from academy.agent import ActionDescription, Agent, AgentDescription, action
from academy.describe import describe

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]


class Documented(Agent):
    """An agent.

    With more to say.
    """

    @action
    async def add(self, a: int, b: int | None = None) -> float:
        """Add.

        Really.
        """
        return a + (b or 0)

    @action
    async def bare(self, x, *rest):  # type: ignore[no-untyped-def]
        return x, rest

    @action
    async def puzzling(self, x: Unknown) -> int:
        """Cannot be resolved."""
        return 0

    @action(idempotent=True)
    async def safe(self) -> None: ...


class Derived(Documented):
    @action
    async def add(self, a: int, b: int | None = None) -> float:
        return a


async def test_describes_class_and_actions() -> None:
    description = await Documented().agent_describe()
    assert description.description == "An agent.\n\nWith more to say."
    assert list(description.actions) == [
        "add",
        "agent_describe",
        "bare",
        "puzzling",
        "safe",
    ]
    assert description.actions["add"] == ActionDescription(
        name="add",
        type_signature={
            "a": "<class 'int'>",
            "b": "int | None",
            "return": "<class 'float'>",
        },
        doc="Add.\n\nReally.",
    )


async def test_what_is_missing_is_empty() -> None:
    bare = (await Documented().agent_describe()).actions["bare"]
    assert bare == ActionDescription(name="bare", type_signature={}, doc="")
    assert (await Derived().agent_describe()).description == ""


async def test_annotations_that_cannot_be_resolved_stay_text() -> None:
    puzzling = (await Documented().agent_describe()).actions["puzzling"]
    assert puzzling.type_signature == {"x": "Unknown", "return": "int"}


def test_an_override_inherits_the_docstring() -> None:
    assert describe(Derived, ["add"]).actions["add"].doc == "Add.\n\nReally."


async def test_travels_as_json() -> None:
    description = await Documented().agent_describe()
    text = description.model_dump_json()
    assert AgentDescription.model_validate_json(text) == description


async def test_tells_what_may_run_twice() -> None:
    actions = (await Derived().agent_describe()).actions
    assert {name for name, about in actions.items() if about.idempotent} == {"safe"}
    assert actions["safe"].model_dump()["idempotent"] is True
