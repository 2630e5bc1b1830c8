from __future__ import annotations

import copy
import pickle
import secrets
import traceback
from pathlib import Path
from typing import Any

import pytest
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

from academy.embedded import EmbeddedServer
from academy.exchange.connection import RedisConnectionInfo, async_client
from academy.exchange.credential import (
    CredentialError,
    FileSecret,
    ForeignLogin,
    GivenSecret,
    VariableSecret,
    disclosed,
    protected,
    redacted,
)
from academy.exchange.hybrid import HybridExchangeFactory
from academy.exchange.redis import RedisExchangeFactory

VARIABLE = "ACADEMY_REDIS_PASSWORD"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("ACADEMY_HOME", str(tmp_path / "home"))
    for name in (VARIABLE, f"{VARIABLE}_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def password() -> str:
    return f"canary-{secrets.token_hex(8)}"


@pytest.fixture
def file(tmp_path: Path, password: str) -> Path:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(f"{password}\n")
    return path


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def without_its_file(value: Any, home: Path) -> Any:
    """Return a copy as on another host: what was left for it is not there."""
    pickled = pickle.dumps(value)
    for path in (home / "credentials").glob("*"):
        path.unlink()
    return pickle.loads(pickled)


def test_a_given_password_shows_nowhere(password: str) -> None:
    secret = GivenSecret("password", password)
    assert password not in f"{secret} {secret!r} {secret.identity()}"
    assert password.encode() not in pickle.dumps(secret)
    assert secret.reveal() == password


def test_a_given_password_travels_by_a_file(password: str, tmp_path: Path) -> None:
    secret = GivenSecret("password", password)
    again = travelled(secret)
    (left,) = (tmp_path / "home" / "credentials").iterdir()
    assert left.read_text() == password
    assert again.reveal() == password
    assert travelled(again) == secret
    assert list(left.parent.iterdir()) == [left]


def test_it_travels_on_when_its_file_is_gone(password: str, tmp_path: Path) -> None:
    again = travelled(GivenSecret("password", password))
    assert again.reveal() == password
    for path in (tmp_path / "home" / "credentials").iterdir():
        path.unlink()
    assert travelled(again).reveal() == password


def test_equality_is_that_of_the_password(password: str) -> None:
    secret = GivenSecret("password", password)
    assert secret == password
    assert secret == GivenSecret("password", password)
    assert secret != GivenSecret("password", "x")
    assert secret != 1
    assert secret.identity() == GivenSecret("password", password).identity()
    assert secret.identity() != GivenSecret("password", "x").identity()


def test_copies_leave_nothing(password: str, tmp_path: Path) -> None:
    secret = GivenSecret("password", password)
    assert copy.deepcopy({"password": secret}) == {"password": secret}
    assert copy.copy(secret) is secret
    assert not (tmp_path / "home").exists()


def test_elsewhere_the_environment_has_it(
    password: str, tmp_path: Path, file: Path, environment: pytest.MonkeyPatch
) -> None:
    secret = GivenSecret("password", password)
    environment.setenv(VARIABLE, "other")
    assert without_its_file(secret, tmp_path / "home").reveal() == "other"
    environment.setenv(f"{VARIABLE}_FILE", str(file))
    assert without_its_file(secret, tmp_path / "home").reveal() == password


def test_elsewhere_nobody_has_it(password: str, tmp_path: Path) -> None:
    secret = without_its_file(GivenSecret("password", password), tmp_path / "home")
    with pytest.raises(CredentialError, match="embed_credentials=True") as caught:
        secret.reveal()
    assert f"Set {VARIABLE} or {VARIABLE}_FILE" in str(caught.value)
    assert password not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(CredentialError):
        travelled(secret).reveal()
    assert str(travelled(caught.value)) == str(caught.value)


def test_the_password_of_a_key_has_a_variable_of_its_own(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    secret = without_its_file(GivenSecret("ssl_password", "s"), tmp_path / "home")
    environment.setenv(VARIABLE, "other")
    with pytest.raises(CredentialError, match="ACADEMY_REDIS_SSL_PASSWORD"):
        secret.reveal()


def test_where_nothing_can_be_left(
    password: str, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    environment.setenv("ACADEMY_HOME", str(tmp_path / "file"))
    environment.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(pickle.PicklingError, match="ACADEMY_HOME") as caught:
        pickle.dumps(GivenSecret("password", password))
    assert password not in str(caught.value)


def test_embedded(password: str, tmp_path: Path) -> None:
    secret = GivenSecret("password", password).embedded()
    assert password.encode() in pickle.dumps(secret)
    assert password.encode() in pickle.dumps(travelled(secret))
    assert travelled(secret).reveal() == password
    assert password not in repr(secret)
    assert not (tmp_path / "home").exists()


def test_a_variable(environment: pytest.MonkeyPatch, password: str) -> None:
    secret = travelled(VariableSecret("MY_PASSWORD"))
    with pytest.raises(CredentialError, match="MY_PASSWORD"):
        secret.reveal()
    environment.setenv("MY_PASSWORD", password)
    assert secret.reveal() == password
    assert password not in repr(secret) + secret.identity()


def test_a_file(file: Path, password: str) -> None:
    secret = travelled(FileSecret(str(file)))
    assert secret.reveal() == password
    file.write_text("rotated")
    assert secret.reveal() == "rotated"
    file.chmod(0o640)
    with pytest.raises(CredentialError, match=f"chmod 600 {file}"):
        secret.reveal()
    file.unlink()
    with pytest.raises(CredentialError, match="No such file"):
        secret.reveal()


def test_protected(password: str, file: Path) -> None:
    given = protected({"password": password, "db": 1, "ssl_password": b"k"})
    assert given == {"password": password, "db": 1, "ssl_password": "k"}
    assert password not in repr(given)
    assert protected(given) == given
    assert protected({"password_env": "X"}) == {"password": VariableSecret("X")}
    assert protected({"ssl_password_file": file}) == {
        "ssl_password": FileSecret(str(file))
    }
    assert protected({"password": None}) == {"password": None}


@pytest.mark.parametrize(
    "kwargs",
    [
        {"password": "a", "password_file": "b"},
        {"password_env": "a", "password_file": "b"},
        {"password": "a", "password_env": "b"},
    ],
)
def test_a_password_that_is_given_twice(kwargs: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="given twice"):
        protected(kwargs)


def test_redacted(password: str) -> None:
    kwargs = {"password": password, "ssl_password": password, "db": 1}
    hidden = {"password": "***", "ssl_password": "***", "db": 1}
    assert redacted(kwargs) == hidden
    assert redacted(protected(kwargs)) == hidden
    reference = protected({"password_file": "/run/password"})
    assert "/run/password" in repr(redacted(reference))


class Chatty(CredentialProvider):
    """Shows what it should not."""

    def __init__(self, user: str, password: str) -> None:
        self.login = (user, password)

    def __repr__(self) -> str:
        return f"Chatty{self.login}"

    def get_credentials(self) -> tuple[str, str]:
        return self.login

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.login


class Broken(CredentialProvider):
    def get_credentials(self) -> tuple[str]:
        raise LookupError("canary")

    async def get_credentials_async(self) -> tuple[str]:
        raise LookupError("canary")


def test_a_provider_is_shown_by_its_type_only(password: str) -> None:
    info = RedisConnectionInfo("h", 1, {"credential_provider": Chatty("u", password)})
    assert password not in repr(info)
    assert "Chatty" in repr(info)
    assert password not in repr(info.identity())


def test_a_holder_of_a_password_is_taken_apart(password: str) -> None:
    holder = UsernamePasswordCredentialProvider("joe", password)
    info = RedisConnectionInfo("h", 1, {"credential_provider": holder})
    assert info.kwargs == {"username": "joe", "password": password}
    assert password.encode() not in pickle.dumps(info)


async def test_a_provider_that_fails() -> None:
    login = disclosed({"credential_provider": Broken()})["credential_provider"]
    assert isinstance(login, ForeignLogin)
    with pytest.raises(CredentialError, match="Broken gives no login") as caught:
        login.get_credentials()
    assert "canary" not in str(caught.value)
    with pytest.raises(CredentialError, match="LookupError"):
        await login.get_credentials_async()


def login_of(server: EmbeddedServer, kind: str, path: Path) -> dict[str, Any]:
    if kind == "provider":
        return {"credential_provider": Chatty("default", server.password)}
    if kind == "file":
        path.touch(mode=0o600)
        path.write_text(server.password)
        return {"password_file": path}
    return {"password_env": "MY_PASSWORD"} if kind == "variable" else {}


@pytest.mark.parametrize("kind", ["provider", "file", "variable"])
async def test_factories_connect_by_reference(
    server: EmbeddedServer, environment: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    environment.setenv("MY_PASSWORD", server.password)
    login = login_of(server, kind, tmp_path / "password")
    for factory in (
        HybridExchangeFactory(server.host, server.port, redis_kwargs=login),
        RedisExchangeFactory(server.host, server.port, **login),
    ):
        assert server.password not in repr(factory)
        if kind != "provider":
            assert server.password.encode() not in pickle.dumps(factory)
        async with await travelled(factory).create_user_client() as user:
            again = user.factory()
        async with await again.create_user_client():
            pass


async def test_a_url_may_refer(
    server: EmbeddedServer, tmp_path: Path, namespace: str
) -> None:
    path = tmp_path / "password"
    login_of(server, "file", path)
    url = f"redis://{server.host}:{server.port}/0?password_file={path}"
    factory = HybridExchangeFactory.from_url(url, namespace=namespace)
    async with await factory.create_user_client():
        pass


@pytest.mark.parametrize("kind", [HybridExchangeFactory, RedisExchangeFactory])
async def test_pickles_of_factories(
    server: EmbeddedServer, tmp_path: Path, kind: Any
) -> None:
    login: dict[str, Any] = {"password": server.password}
    arguments = login if kind is RedisExchangeFactory else {"redis_kwargs": login}
    factory = kind(server.host, server.port, **arguments)
    assert server.password.encode() not in pickle.dumps(factory)
    async with await travelled(factory).create_user_client() as user:
        assert server.password.encode() not in pickle.dumps(user.factory())
    embedding = kind(server.host, server.port, embed_credentials=True, **arguments)
    assert server.password.encode() in pickle.dumps(embedding)
    assert server.password not in repr(embedding)
    async with await without_its_file(
        embedding, tmp_path / "home"
    ).create_user_client() as user:
        assert server.password.encode() in pickle.dumps(user.factory())


async def test_a_worker_without_the_password_is_told(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    factory = HybridExchangeFactory.from_url(server.url)
    lost = without_its_file(factory, tmp_path / "home")
    with pytest.raises(CredentialError, match="A worker cannot find the password"):
        await lost.create_user_client()


async def test_a_file_that_is_unreadable_for_a_while(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """Connections made meanwhile fail, and later ones do not."""
    path = tmp_path / "password"
    login = login_of(server, "file", path)
    client = async_client(
        RedisConnectionInfo(server.host, server.port, login), timeout=5.0
    )
    path.chmod(0o644)
    with pytest.raises(CredentialError, match="chmod 600"):
        await client.ping()
    path.chmod(0o600)
    assert await client.ping()
    await client.aclose()
