from __future__ import annotations

import pathlib
import pickle
import re
import stat
import tomllib
from typing import Any

import pytest

from academy.agent import Agent
from academy.exchange.hybrid import HybridAgentRegistration, HybridExchangeFactory
from academy.exchange.redis import RedisExchangeFactory
from academy.identifier import AgentId
from academy.process_config import (
    AgentModel,
    AgentProcessConfig,
    ConfigError,
    HybridExchangeModel,
    RedisExchangeModel,
)
from academy.runtime import RuntimeConfig
from tests.launched_agents import Counter

HYBRID = """
# Where it runs.
[exchange]
exchange_type = "hybrid"
redis_host = "localhost"
redis_port = 6379
redis_kwargs = { password = "sesame" }
ports = [4000, 4001]

[agent]
constructor = "tests.launched_agents:Counter"
start = 3
step = 2

[config]
terminate_on_success = false
"""

REDIS = """
[exchange]
exchange_type = "redis"
hostname = "localhost"
port = 6379
namespace = "ns"
password = "sesame"

[agent]
constructor = "tests.launched_agents.Counter"
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "agent.toml"


def load(path: pathlib.Path, text: str) -> AgentProcessConfig:
    path.write_text(text)
    return AgentProcessConfig.load(path)


def test_hybrid(path: pathlib.Path) -> None:
    config = load(path, HYBRID)
    assert isinstance(config.exchange, HybridExchangeModel)
    assert config.config == RuntimeConfig(terminate_on_success=False)
    assert config.agent_registration is None
    agent = config.get_agent()
    assert isinstance(agent, Counter)
    assert (agent.value, agent.step) == (3, 2)
    factory = config.get_exchange()
    assert isinstance(factory, HybridExchangeFactory)
    assert factory.redis_info == ("localhost", 6379, {"password": "sesame"})
    assert factory.namespace == "default"
    assert repr(factory.ports) == "[4000, 4001]"


def permits(action: str, source: Any) -> bool:
    return False


def test_security_options(path: pathlib.Path) -> None:
    hook = f"authorize = '{__name__}:permits'\n"
    text = HYBRID.replace("redis_port", "encrypt_relay = true\nredis_port") + hook
    config = load(path, text)
    assert config.get_exchange().encrypt_relay  # type: ignore[attr-defined]
    assert config.config.authorize is not None
    assert config.config.authorize.__name__ == "permits"  # type: ignore[attr-defined]
    assert not config.config.terminate_on_success
    with pytest.raises(TypeError, match="authorize"):
        config.to_toml(path)


@pytest.mark.parametrize(
    "name",
    ['"nowhere:f"', f'"{__name__}:nothing"', '"f"', "3", f'"{__name__}:HYBRID"'],
)
def test_bad_hooks(path: pathlib.Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\[config\].*authorize="):
        load(path, f"{HYBRID}authorize = {name}\n")


def test_redis(path: pathlib.Path) -> None:
    config = load(path, REDIS)
    assert config.config == RuntimeConfig()
    assert isinstance(config.get_agent(), Counter)
    factory = config.get_exchange()
    assert isinstance(factory, RedisExchangeFactory)
    assert factory.redis_info == ("localhost", 6379, {"password": "sesame"})
    assert factory.namespace == "ns"


@pytest.mark.parametrize("text", [HYBRID, REDIS])
def test_secrets_are_not_shown(path: pathlib.Path, text: str) -> None:
    config = load(path, text)
    assert "sesame" not in repr(config)
    assert "localhost" in repr(config)


@pytest.mark.parametrize("text", [HYBRID, REDIS])
def test_a_password_that_others_may_read(
    path: pathlib.Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.touch(mode=0o600)
    load(path, text)
    assert not caplog.records
    path.chmod(0o640)
    load(path, text)
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "sesame" not in record.getMessage()


@pytest.mark.parametrize("text", [HYBRID, REDIS])
def test_a_reference_to_a_password(
    path: pathlib.Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.touch(mode=0o644)
    config = load(path, re.sub(r'password = ".*?"', 'password_env = "X"', text))
    assert "VariableSecret(variable='X')" in repr(config.get_exchange())
    assert not caplog.records


def test_arguments_of_the_agent_are_not_shown() -> None:
    model = AgentModel(constructor="m:C", token="sesame")
    assert repr(model) == "AgentModel('m:C', token=...)"


@pytest.mark.parametrize("text", [HYBRID, REDIS])
def test_round_trip(path: pathlib.Path, text: str) -> None:
    config = load(path, text)
    config.agent_registration = None
    config.to_toml(path)
    again = AgentProcessConfig.load(path)
    for part in ("exchange", "agent", "config"):
        before, after = getattr(config, part), getattr(again, part)
        assert before.model_dump() == after.model_dump()


def test_new_files_are_private(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config = load(path, HYBRID)
    path.chmod(0o640)
    config.to_toml(path)
    config.to_toml(tmp_path / "new.toml")
    modes = [
        stat.S_IMODE(file.stat().st_mode) for file in (path, tmp_path / "new.toml")
    ]
    assert modes == [0o640, 0o600]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "agent.toml",
        "new.toml",
    ]


def test_registration(path: pathlib.Path) -> None:
    config = load(path, HYBRID)
    registration = HybridAgentRegistration(AgentId.new(name="c"))
    config.note_registration(path, registration)
    assert config.agent_registration is registration
    again = AgentProcessConfig.load(path)
    assert again.agent_registration == registration
    assert again.agent_registration.agent_id.name == "c"
    assert path.read_text().startswith(HYBRID.rstrip())  # comments are kept
    again.to_toml(path)
    assert AgentProcessConfig.load(path).agent_registration == registration


def test_registration_behind_a_link(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link.toml"
    config = load(path, HYBRID)
    link.symlink_to(path)
    config.note_registration(link, HybridAgentRegistration(AgentId.new()))
    assert link.is_symlink()
    assert "agent_registration" in tomllib.loads(path.read_text())


def test_failed_write_leaves_the_file_alone(path: pathlib.Path) -> None:
    config = load(path, HYBRID)
    config.agent.kwargs["start"] = object()
    with pytest.raises(TypeError):
        config.to_toml(path)
    assert path.read_text() == HYBRID


def test_pickle(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "agent.pickle"
    file.write_bytes(pickle.dumps(Counter(7)))
    model = AgentModel(pickle=file)
    agent = model.create()
    assert isinstance(agent, Counter)
    assert agent.value == 7
    assert model.model_dump() == {"constructor": None, "pickle": str(file)}
    assert repr(model) == f"AgentModel({str(file)!r})"


def test_nested_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "Inner", Counter, raising=False)
    model = AgentModel(constructor="tests.launched_agents:Counter.Inner")
    assert isinstance(model.create(), Counter)


@pytest.mark.parametrize("content", [b"no pickle", pickle.dumps([1])])
def test_pickle_of_something_else(tmp_path: pathlib.Path, content: bytes) -> None:
    file = tmp_path / "agent.pickle"
    file.write_bytes(content)
    with pytest.raises(
        ConfigError,
        match=r"agent\.pickle' (cannot be loaded: |is a list, not an agent)",
    ):
        AgentModel(pickle=file).create()


def test_no_pickle() -> None:
    with pytest.raises(ConfigError, match="cannot be loaded: FileNotFoundError"):
        AgentModel(pickle="nowhere.pickle").create()


@pytest.mark.parametrize(
    ("constructor", "sentence"),
    [
        ("nomodule_x:C", "No module named 'nomodule_x'"),
        ("tests.launched_agents:Nope", "has no attribute 'Nope'"),
        ("tests.launched_agents:twice", "is not an Agent class"),
        ("builtins.dict", "is not an Agent class"),
    ],
)
def test_no_class(constructor: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=r"\[agent\] constructor=") as e:
        AgentModel(constructor=constructor).create()
    assert sentence in str(e.value)


def test_arguments_that_the_class_does_not_take() -> None:
    model = AgentModel(constructor="tests.launched_agents:Counter", colour="red")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'colour'"):
        model.create()


def test_error_of_the_class_is_no_error_of_the_configuration() -> None:
    model = AgentModel(constructor="tests.launched_agents:BadConstructor")
    with pytest.raises(ValueError, match="no such lattice") as e:
        model.create()
    assert not isinstance(e.value, ConfigError)


def changed(old: str, new: str, text: str = HYBRID) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[exchange", "Expected ']'"),
        ("", "There is no table [exchange]."),
        ("exchange = 3", "There is no table [exchange]."),
        (changed("[agent]", "[actor]"), "actor is none of [exchange], [agent]"),
        (changed("[config]", "[[config]]"), "There is no table [config]."),
        (
            changed('"hybrid"', '"http"'),
            "[exchange] exchange_type='http' is none of 'hybrid', 'redis'.",
        ),
        (
            changed('exchange_type = "hybrid"', ""),
            "[exchange] exchange_type=None is none of 'hybrid', 'redis'.",
        ),
        (
            changed('redis_host = "localhost"', ""),
            "missing required field `redis_host`",
        ),
        (changed("6379", '"6379"'), "Expected `int`, got `str` - at `$.redis_port`"),
        (changed("ports", "port"), "HybridExchangeModel has no field 'port'"),
        (changed('hostname = "localhost"', "", REDIS), "required field `hostname`"),
        (changed("6379", "true", REDIS), "Expected `int`, got `bool` - at `$.port`"),
        (
            changed('constructor = "tests.launched_agents:Counter"', ""),
            "[agent] Give either a constructor or a pickle file.",
        ),
        (
            changed("start = 3", 'pickle = "a.pickle"'),
            "[agent] Give either a constructor or a pickle file.",
        ),
        (
            changed("tests.launched_agents:Counter", "Counter"),
            "[agent] constructor='Counter' is not the path of a class.",
        ),
        (
            changed("terminate_on_success", "terminate"),
            "[config] RuntimeConfig has no field 'terminate'",
        ),
        (changed("false", '"no"'), "[config] Not a valid RuntimeConfig"),
        (
            HYBRID + "\n[agent_registration]\nexchange_type = 'hybrid'",
            "[agent_registration] Not a valid HybridAgentRegistration",
        ),
        (
            HYBRID
            + "\n[agent_registration]\nexchange_type = 'redis'\n"
            + "[agent_registration.agent_id]\nrole = 'agent'\n"
            + "uid = '00000000-0000-4000-8000-000000000000'",
            "[agent_registration] Not a valid HybridAgentRegistration",
        ),
    ],
)
def test_bad_files(path: pathlib.Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as e:
        load(path, text)
    assert str(e.value).startswith(f"{path}: ")
    assert sentence in str(e.value)
    assert "\n" not in str(e.value)


def test_bad_argument_of_the_exchange(path: pathlib.Path) -> None:
    config = load(path, changed("[4000, 4001]", "[70000]"))
    with pytest.raises(ConfigError, match=r"\[exchange\] Not a port: 70000"):
        config.get_exchange()


def test_models_by_hand() -> None:
    config = AgentProcessConfig(
        exchange=RedisExchangeModel(hostname="h", port=1, namespace="n"),
        agent=AgentModel(constructor="tests.launched_agents:Counter"),
    )
    assert repr(config.exchange) == (
        "RedisExchangeModel(hostname='h', port=1, namespace=...)"
    )
    agent: Any = config.get_agent()
    assert isinstance(agent, Agent)
