"""The public names, and how they are called.

The table is a promise: names stay, parameters keep their names, kinds and defaults.
New names, and new parameters that may be left out, are no change of it.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

TRANSPORT = {
    "agent_stats": "async (self, uid)",
    "close": "async (self)",
    "discover": "async (self, agent, *, allow_subclasses=True)",
    "factory": "(self)",
    "heartbeat_status": "async (self, uid)",
    "listen": "(self, timeout=None)",
    "mailbox_id": "property",
    "register_agent": "async (self, agent, *, name=None)",
    "send": "async (self, message)",
    "status": "async (self, uid)",
    "terminate": "async (self, uid)",
    "update_heartbeat": "async (self)",
    "__aenter__": "async (self)",
}
CLIENT = {
    "agent_stats": "async (self, uid)",
    "client_id": "property",
    "close": "async (self)",
    "discover": "async (self, agent, *, allow_subclasses=True)",
    "factory": "(self)",
    "heartbeat_status": "async (self, uid)",
    "register_agent": "async (self, agent, *, name=None)",
    "register_agents": "async (self, agents)",
    "register_handle": "(self, handle)",
    "send": "async (self, message)",
    "status": "async (self, uid)",
    "terminate": "async (self, uid)",
    "update_heartbeat": "async (self)",
    "__aenter__": "async (self)",
}
FACTORY = {
    "_create_transport": "async (self, mailbox_id=None, *, name=None, "
    "registration=None)",
    # They return what is to be awaited: a coroutine cannot raise StopIteration.
    "create_agent_client": "(self, registration, request_handler)",
    "create_user_client": "(self, *, name=None, start_listener=True)",
}
VALUE = {
    "model_dump": "(self, *, mode='python')",
    "model_dump_json": "(self, *, indent=None)",
    "model_validate": "(obj)",
    "model_validate_json": "(data)",
}
HANDLE = {
    "action": "async (self, action, /, *args, **kwargs)",
    "agent_id": "property",
    "agent_stats": "async (self)",
    "agent_status": "async (self)",
    "exchange": "property",
    "options": "(self, *, timeout=..., retry=..., offline=...)",
    "ping": "async (self, *, timeout=None)",
    "reject_on_inactive": "property",
    "shutdown": "async (self, *, terminate=None)",
}
LOG_CONFIG = {"init_logging": "(self)"}
LAUNCH = (
    "(self, agent, *, args=None, kwargs=None, config=None, executor=None, "
    "submit_kwargs=None, name=None, {}log_config=None)"
)
MANAGER = (
    "({}, executors=None, *, default_executor='event_loop', max_retries=0, "
    "log_config=None)"
)


def members(owner: str, *tables: dict[str, str], **more: str) -> dict[str, str]:
    """Return members of a class as a table of a module has them."""
    merged: dict[str, str] = {}
    for table in (*tables, more):
        merged |= table
    return {f"{owner}.{name}": promise for name, promise in merged.items()}


SURFACE: dict[str, dict[str, str]] = {
    "academy": {"__version__": ""},
    "academy.agent": {
        "Action": "",
        "ActionDescription": "(*, name, type_signature, doc)",
        "Agent": "(*args, **kwargs)",
        **members(
            "Agent",
            agent_context="property",
            agent_describe="async (self)",
            agent_exchange_client="property",
            agent_id="property",
            agent_launch_alongside="async (self, agent, *, args=None, kwargs=None)",
            agent_on_shutdown="async (self)",
            agent_on_startup="async (self)",
            agent_run_sync="async (self, function, /, *args, **kwargs)",
            agent_shutdown="(self)",
        ),
        "AgentDescription": "(*, description, actions)",
        "ControlLoop": "",
        "action": "(method=None, *, allow_protected_name=False, context=False)",
        "event": "(name)",
        "loop": "(method)",
        "timer": "(interval)",
        **members("ActionDescription", VALUE),
        **members("AgentDescription", VALUE),
    },
    "academy.context": {
        "ActionContext": "(source_id, exchange_client)",
        **members(
            "ActionContext",
            is_agent_source="(self)",
            is_user_source="(self)",
            source_handle="property",
            source_id="property",
        ),
        "AgentContext": "(agent_id, exchange_client, executor, shutdown_event)",
    },
    "academy.debug": {
        "get_academy_debug": "()",
        "set_academy_debug": "(debug_mode=True)",
    },
    "academy.event": {"wait_event_async": "async (*events, timeout=None)"},
    "academy.exception": {
        "AcademyRemoteError": "",
        "ActionCancelledError": "()",
        "ActionInvalidStateError": "()",
        "AgentInactiveError": "(uid)",
        "AgentNotInitializedError": "()",
        "AgentTerminatedError": "(uid)",
        "AuthenticationError": "",
        "BackpressureTimeout": "",
        "BadEntityIdError": "(uid)",
        "DeliveryError": "",
        "DeserializationError": "",
        "DeserializationMethodProhibitedError": "",
        "ExceptionSerializationError": "(exception_name, serializer)",
        "ExchangeClientNotFoundError": "(aid)",
        "ExchangeError": "",
        "FencedError": "(uid)",
        "ForbiddenError": "",
        "IncompatibleNetworkProtocolError": "(version=None, cur_version=None)",
        "MailboxFullError": "",
        "MailboxTerminatedError": "(uid)",
        "MessageTooLargeError": "(size, limit)",
        "PeerLostError": "",
        "PeerUnreachableError": "",
        "PingCancelledError": "()",
        "RequestLostError": "",
        "SerializationError": "",
        "ShutdownTimeoutError": "",
        "UnauthorizedError": "",
        "UserTerminatedError": "(uid)",
        "raise_exceptions": "(exceptions, *, message=None)",
    },
    "academy.exchange": {
        "AgentExchangeClient": "",
        "AgentRegistration": "",
        "ExchangeClient": "",
        "ExchangeClientConfig": "",
        "ExchangeFactory": "",
        "ExchangeTransport": "",
        "HybridExchangeFactory": "",
        "HybridExchangeTransport": "",
        "LocalExchangeFactory": "",
        "LocalExchangeTransport": "",
        "MailboxStatus": "",
        "RedisExchangeFactory": "",
        "RedisExchangeTransport": "",
        "UserExchangeClient": "",
    },
    "academy.exchange.client": {
        "AgentExchangeClient": "(agent_id, transport, request_handler, *, config=None)",
        "ExchangeClient": "(transport, config)",
        "RequestHandler": "",
        "UserExchangeClient": "(user_id, transport, *, start_listener=True, "
        "config=None)",
        "exchange_context": "",
        **members("ExchangeClient", CLIENT),
        **members("AgentExchangeClient", CLIENT),
        **members("UserExchangeClient", CLIENT),
    },
    "academy.exchange.client_config": {
        "ExchangeClientConfig": "(*, heartbeat_interval=30, "
        "stale_heartbeat_threshold=3)",
        **members("ExchangeClientConfig", VALUE),
    },
    "academy.exchange.factory": {
        "ExchangeFactory": "(config)",
        **members("ExchangeFactory", FACTORY),
    },
    "academy.exchange.hybrid": {
        "HybridAgentRegistration": "(agent_id, exchange_type='hybrid')",
        **members("HybridAgentRegistration", VALUE),
        "HybridExchangeFactory": "(redis_host, redis_port, *, redis_kwargs=None, "
        "interface=None, namespace='default', ports=None, config=None)",
        **members("HybridExchangeFactory", FACTORY, from_url="(url=None, **options)"),
        "HybridExchangeTransport": "(mailbox_id, redis_client, *, redis_info, "
        "namespace, host, port, interface=None)",
        **members(
            "HybridExchangeTransport",
            TRANSPORT,
            new="async (*, namespace, redis_info, interface=None, mailbox_id=None, "
            "name=None, port=None)",
        ),
        "_RedisConnectionInfo": "(hostname, port, kwargs)",
        "base32_to_uuid": "(uid)",
        "uuid_to_base32": "(uid)",
    },
    "academy.exchange.local": {
        "LocalAgentRegistration": "(agent_id, exchange_type='local')",
        **members("LocalAgentRegistration", VALUE),
        "LocalExchangeFactory": "(*, _state=None, config=None)",
        **members("LocalExchangeFactory", FACTORY),
        "LocalExchangeTransport": "(mailbox_id, state)",
        **members(
            "LocalExchangeTransport",
            TRANSPORT,
            new="(mailbox_id=None, *, name=None, state)",
        ),
    },
    "academy.exchange.mailbox_status": {"MailboxStatus": ""},
    "academy.exchange.redis": {
        "RedisAgentRegistration": "(agent_id, exchange_type='redis')",
        **members("RedisAgentRegistration", VALUE),
        "RedisExchangeFactory": "(hostname, port, *, config=None, **redis_kwargs)",
        **members("RedisExchangeFactory", FACTORY),
        "RedisExchangeTransport": "",
        **members(
            "RedisExchangeTransport",
            TRANSPORT,
            new="async (*, mailbox_id=None, name=None, redis_info)",
        ),
        "_RedisConnectionInfo": "(hostname, port, kwargs)",
    },
    "academy.exchange.transport": {
        "AgentRegistration": "",
        "AgentRegistrationT": "",
        "ExchangeTransport": "",
        **members("ExchangeTransport", TRANSPORT),
        "ExchangeTransportMixin": "()",
        "ExchangeTransportT": "",
        "MailboxStatus": "",
    },
    "academy.executor": {
        "EventLoopExecutor": "(factory)",
        **members(
            "EventLoopExecutor",
            shutdown="(self, wait=True, cancel_futures=True)",
            submit="(self, fn, /, *args, **kwargs)",
        ),
    },
    "academy.handle": {
        "Handle": "(agent_id=None, *, exchange=None, ignore_context=False, "
        "request_serializer=None, result_serializer=None, "
        "exception_serializer=None, polling_interval=60, reject_on_inactive=False)",
        **members("Handle", HANDLE),
        "ProxyHandle": "(agent)",
        **members("ProxyHandle", HANDLE),
        "exchange_context": "",
    },
    "academy.home": {"get_academy_home": "()"},
    "academy.identifier": {
        "AgentId": "(*, uid, name=None)",
        **members("AgentId", VALUE, new="(name=None)"),
        "AgentT": "",
        "EntityId": "",
        "UserId": "(*, uid, name=None)",
        **members("UserId", VALUE, new="(name=None)"),
    },
    "academy.logging": {
        "init_logging": "(level=20, *, logfile=None, logfile_level=None, color=True, "
        "extra=False)",
    },
    "academy.logging.configs.base": {
        "LogConfig": "",
        **members("LogConfig", LOG_CONFIG),
    },
    "academy.logging.configs.console": {
        "ConsoleLogging": "(*, level=20, color=True, extra=False)",
        **members("ConsoleLogging", LOG_CONFIG),
    },
    "academy.logging.configs.file": {
        "FileLogging": "(*, logfile, level=20, extra=False)",
        **members("FileLogging", LOG_CONFIG),
    },
    "academy.logging.configs.jsonpool": {
        "JSONPoolLogging": "()",
        **members("JSONPoolLogging", LOG_CONFIG),
    },
    "academy.logging.configs.multi": {
        "MultiLogging": "(configs)",
        **members("MultiLogging", LOG_CONFIG),
    },
    "academy.logging.helpers": {
        "JSONHandler": "(filename)",
        "execute_and_log_traceback": "async (fut)",
        "log_context": "(c)",
    },
    "academy.logging.recommended": {
        "recommended_logging": "(level=20, *, logfile=None, logfile_level=None, "
        "color=True, extra=False)",
    },
    "academy.manager": {
        "Manager": MANAGER.format("exchange_client"),
        **members(
            "Manager",
            add_executor="(self, name, executor)",
            close="async (self, close_exchange=True)",
            exchange_client="property",
            exchange_factory="property",
            from_exchange_factory="async " + MANAGER.format("factory"),
            get_handle="(self, agent)",
            launch="async " + LAUNCH.format("registration=None, "),
            launch_batch="(self)",
            register_agent="async (self, agent, *, name=None)",
            register_agents="async (self, agents)",
            running="(self)",
            set_default_executor="(self, name)",
            shutdown="async (self, agent, *, blocking=True, raise_error=True, "
            "terminate=None, timeout=None)",
            user_id="property",
            wait="async (self, agents, *, raise_error=False, "
            "return_when='ALL_COMPLETED', timeout=None)",
        ),
    },
    "academy.launch": members(
        "BatchLauncher",
        queue="async " + LAUNCH.format(""),
        submit="async (self)",
        __aenter__="async (self)",
    ),
    "academy.message": {
        "AcademyErrorResponse": "(*, error_code, mailbox_id=None)",
        **members("AcademyErrorResponse", VALUE, get_exception="(self)"),
        "ActionRequest": "(*, action, serialization, result_serialization=None, "
        "exception_serialization=None, pargs=..., kargs=...)",
        **members("ActionRequest", VALUE, get_args="(self)", get_kwargs="(self)"),
        "ActionResponse": "(*, result, serialization)",
        **members("ActionResponse", VALUE, get_result="(self)"),
        "CancelRequest": "(*, target_tag)",
        "ErrorCode": "",
        "ErrorResponse": "",
        "Header": "(*, src, dest, tag, label=None, kind, protocol_version=..., "
        "academy_version=...)",
        **members("Header", VALUE, create_response_header="(self)"),
        "Message": "(*, header, body)",
        **members(
            "Message",
            VALUE,
            academy_version="property",
            create="(src, dest, body, *, label=None, tag=None)",
            create_response="(self, body)",
            dest="property",
            get_body="(self)",
            is_request="(self)",
            is_response="(self)",
            label="property",
            log_extra="(self)",
            model_deserialize="(data)",
            model_serialize="(self)",
            protocol_version="property",
            src="property",
            tag="property",
        ),
        "PROTOCOL_VERSION": "",
        "PingRequest": "()",
        "Request": "",
        "Response": "",
        "ShutdownRequest": "(*, terminate=None)",
        "SuccessResponse": "()",
        "UserErrorResponse": "(*, serialization, exception)",
        **members("UserErrorResponse", VALUE, get_exception="(self)"),
        "check_version": "(version)",
    },
    "academy.run": {
        "AgentProcessConfig": "",
        **members(
            "AgentProcessConfig",
            get_agent="(self)",
            get_exchange="(self)",
            load="(filepath)",
            to_toml="(self, filepath)",
        ),
    },
    "academy.runtime": {
        "Runtime": "(agent, *, exchange_factory, registration, config=None)",
        **members(
            "Runtime",
            __aenter__="async (self)",
            action="async (self, action, source_id, *, args, kwargs)",
            run_until_complete="async (self)",
            signal_shutdown="(self, *, expected=True, terminate=None)",
            wait_shutdown="async (self, timeout=None)",
        ),
        "RuntimeConfig": "(*, cancel_actions_on_shutdown=True, "
        "max_sync_concurrency=None, raise_loop_errors_on_shutdown=True, "
        "shutdown_on_loop_error=True, terminate_on_error=True, "
        "terminate_on_success=True, default_serializer=None, "
        "allowed_deserializers=None)",
        **members("RuntimeConfig", VALUE),
    },
    "academy.serialize": {
        "ALL_SERIALIZERS": "",
        "JsonSerializer": "",
        **members("JsonSerializer", deserialize="(data)", serialize="(obj)"),
        "NoPickleMixin": "",
        "PickleSerializer": "",
        **members("PickleSerializer", deserialize="(data)", serialize="(obj)"),
        "SerializationStrategy": "",
        "Serializer": "",
        "allowed_deserializers": "",
        "default_serializer": "",
        "deserialize": "(obj, strategy)",
        "json_exception_deserializer": "(dct)",
        "json_exception_serializer": "(obj)",
        "serialize": "(obj, strategy)",
    },
    "academy.socket": {
        "address_by_hostname": "()",
        "address_by_interface": "(ifname)",
        "open_port": "()",
        "wait_connection": "(host, port, *, sleep=0.01, timeout=None)",
    },
    "academy.state": {
        "FileState": "(filename, *, flag='c', protocol=5, writeback=False)",
    },
    "academy.stats": {
        "AgentStats": "(incoming=0, outgoing=0, completed=0, in_progress=0, queued=0)",
    },
    "academy.task": {
        "SafeTaskExitError": "",
        "spawn_guarded_background_task": "(coro, *, name, log_exception=True)",
    },
    "academy.embedded": {
        "EmbeddedServer": "",
        "ServerNotFoundError": "",
        "ServerStartError": "",
    },
}
SURFACE["academy.exchange.transport"].pop("ExchangeTransport.status")
SURFACE["academy.exchange.transport"].pop("ExchangeTransport.__aenter__")

PROMISES = [
    pytest.param(module, path, promise, id=f"{module}.{path}")
    for module, table in SURFACE.items()
    for path, promise in table.items()
]


def lookup(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def check_parameters(promise: str, real: inspect.Signature) -> None:
    """Every call that the promise allows must be possible, and mean the same."""
    promised = inspect.signature(eval(f"lambda {promise[1:-1]}: None"))
    empty = inspect.Parameter.empty
    wanted = list(promised.parameters.values())
    for parameter in wanted:
        found = real.parameters.get(parameter.name)
        assert found is not None, f"no parameter {parameter.name}"
        assert found.kind is parameter.kind, f"{parameter.name}: {found.kind}"
        if parameter.default not in (empty, ...):
            assert found.default == parameter.default, parameter.name
        assert parameter.default is empty or found.default is not empty
    by_place = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    order = [p.name for p in wanted if p.kind in by_place]
    real_order = [p.name for p in real.parameters.values() if p.kind in by_place]
    assert real_order[: len(order)] == order
    for found in real.parameters.values():
        if found.name not in promised.parameters:
            variable = found.kind in (found.VAR_POSITIONAL, found.VAR_KEYWORD)
            assert variable or found.default is not empty, f"{found.name} is required"


@pytest.mark.parametrize(("module", "path", "promise"), PROMISES)
def test_promise(module: str, path: str, promise: str) -> None:
    found = lookup(module, path)
    if promise == "property":
        owner, _, name = path.rpartition(".")
        static = inspect.getattr_static(lookup(module, owner), name)
        assert isinstance(static, property)
    elif promise:
        check_parameters(promise.removeprefix("async "), inspect.signature(found))
        if inspect.isroutine(found):
            expected = promise.startswith("async ")
            assert inspect.iscoroutinefunction(found) == expected


GENERICS = {
    "academy.agent.Action": 2,
    "academy.context.AgentContext": 1,
    "academy.exchange.client.AgentExchangeClient": 2,
    "academy.exchange.client.ExchangeClient": 1,
    "academy.exchange.client.UserExchangeClient": 1,
    "academy.exchange.factory.ExchangeFactory": 1,
    "academy.exchange.hybrid.HybridAgentRegistration": 1,
    "academy.exchange.local.LocalAgentRegistration": 1,
    "academy.exchange.redis.RedisAgentRegistration": 1,
    "academy.exchange.transport.AgentRegistration": 1,
    "academy.exchange.transport.ExchangeTransport": 1,
    "academy.handle.Handle": 1,
    "academy.handle.ProxyHandle": 1,
    "academy.identifier.AgentId": 1,
    "academy.manager.Manager": 1,
    "academy.message.Message": 1,
    "academy.runtime.Runtime": 1,
}
"""How many types each takes between brackets."""


@pytest.mark.parametrize(("path", "count"), GENERICS.items())
def test_generic_at_run_time(path: str, count: int) -> None:
    """Annotations that are evaluated subscript them."""
    module, _, name = path.rpartition(".")
    found = lookup(module, name)
    assert found[(int,) * count]
    with pytest.raises(TypeError):
        _ = found[(int,) * (count + 1)]


@pytest.mark.parametrize("module", SURFACE)
def test_all_is_true(module: str) -> None:
    found = importlib.import_module(module)
    for name in getattr(found, "__all__", ()):
        assert hasattr(found, name)


def test_exchange_names() -> None:
    package = importlib.import_module("academy.exchange")
    assert set(package.__all__) == set(SURFACE["academy.exchange"])
    assert set(dir(package)) >= set(package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchName'"):
        _ = package.NoSuchName
