"""What may import what, and how large things may be.

Imports go down the layers below, whether they stand at the top of a module, in a
function, or below `if TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator

import pytest


def words(text: str) -> list[str]:
    return text.split()


PACKAGE = pathlib.Path(__file__).parent.parent / "academy"

LAYERS: dict[int, str] = {
    -1: "academy pages loan",
    # Values, links between processes, and what else knows nothing of agents.
    0: "segment toml_file process_table value debug home event stats state "
    "method "
    "trace call_options logging.context embedded.error embedded.port embedded.process "
    "link link.config link.address link.meter link.refusal link.admission "
    "link.acceptor exchange exchange.stream exchange.inbox exchange.ports "
    "bench bench.interpreter bench.machine bench.rows bench.table exchange.silence "
    "threads by_value",
    1: "ownership identifier tag task loop event_loop describe logging.config "
    "link.fork link.frame link.folder link.security link.tally embedded.binary "
    "embedded.directory exchange.client_config exchange.verdict exchange.link_info "
    "exchange.deposit",
    2: "exception simple_socket embedded.server exchange.keys exchange.credential "
    "logging.recommended logging.helpers logging.configs.base logging.configs.console "
    "logging.configs.file logging.configs.jsonpool logging.configs.multi "
    "exchange.outlet link.certificate link.handshake link.window link.codec "
    "link.parts link.channel link.region link.lending exchange.parcel",
    3: "serialize socket logging logging.configs embedded link.incoming link.reader "
    "link.borrowing link.part_queue "
    "header exchange.connection exchange.acl exchange.version link.outgoing "
    "exchange.flight exchange.unconfirmed",
    4: "error_code runtime_config exchange.secret exchange.cipher exchange.server "
    "exchange.backlog exchange.outbox bench.case "
    "link.protocol link.listener link.sharing link.sending link.gate "
    "exchange.reach",
    5: "body exchange.lease exchange.wake exchange.mailbox exchange.keyring "
    "link.connection link.session bench.cases",
    6: "message bench.suite link.peer link.ends",
    # Exchanges: the parts, the engine on Redis, and the three that users choose from.
    7: "exchange.transport exchange.ledger exchange.pending exchange.delivery_failure "
    "exchange.inlet link.handler",
    8: "exchange.local_state exchange.mailbox_status exchange.registry "
    "exchange.bound exchange.directory link.node",
    9: "link.host exchange.base_client exchange.sources exchange.queues exchange.line "
    "exchange.probe exchange.grace",
    10: "exchange.client exchange.appender",
    11: "exchange.courier exchange.factory",
    12: "exchange.router",
    13: "exchange.audit",
    14: "exchange.receiver exchange.detector",
    15: "exchange.links exchange.taker",
    16: "exchange.inspector",
    17: "exchange.engine",
    18: "exchange.engines",
    19: "exchange.relay",
    20: "exchange.local exchange.redis exchange.hybrid",
    # The actor surface.
    21: "answer outcome status_watch call deadline action_run",
    22: "remote_handle authorization",
    23: "proxy_handle responder",
    24: "handle dispatch",
    25: "context action",
    26: "agent",
    27: "runtime",
    # Launching agents in other processes.
    30: "capsule launch",
    31: "worker",
    32: "worker_process",
    33: "executor",
    34: "pool",
    35: "supervisor",
    36: "closing",
    37: "fleet",
    38: "manager",
    39: "process_config bench.programs bench.programs.agents bench.programs.connect "
    "bench.programs.drain bench.programs.fan bench.programs.find bench.programs.floor "
    "bench.programs.least_call bench.programs.one_copy "
    "bench.programs.imports bench.programs.launch bench.programs.load "
    "bench.programs.crowd bench.programs.directory_curve bench.programs.discover "
    "bench.programs.many bench.programs.server_costs "
    "bench.programs.mailboxes bench.programs.target bench.programs.ways "
    "bench.programs.worker",
    # What people run.
    40: "run demo demo.calls demo.data demo.screen cli.url cli.output",
    41: "demo.model demo.report cli.error",
    42: "demo.agents cli.execute cli.arguments cli.connection cli.lookup",
    43: "demo.federation cli.bench cli.ping cli.ps cli.call cli.server cli.secret",
    44: "demo.run cli.describe cli.links",
    45: "cli.demo",
    46: "cli.app",
    47: "cli",
    48: "__main__ demo.__main__",
}
ARROWS: set[tuple[str, str]] = set()
"""Imports within a layer."""

TYPE_ONLY = {
    ("exchange.transport", "exchange.factory"),
    ("exchange.registry", "exchange.factory"),
    ("exchange.inlet", "exchange.bound"),
    ("cli.output", "rich.console"),
    ("exchange.hybrid", "redis.asyncio"),  # names a parameter's type
    ("exchange.cipher", "cryptography.hazmat.primitives.ciphers.aead"),
    # The package offers its names lazily; type checkers need to see them.
    *(
        ("exchange", f"exchange.{name}")
        for name in words("client client_config factory hybrid local redis transport")
    ),
}
"""All imports below `if TYPE_CHECKING`, which may go up."""

ANYWHERE = {"msgspec"}
"""Packages that every module may import, but for `embedded`."""
PACKAGES = {
    "redis": {
        "exchange.connection",
        "exchange.credential",
        "exchange.server",
        "exchange.version",
        "exchange.lease",
        "exchange.wake",
        "bench.programs",
    },
    "cloudpickle": {"by_value", "capsule"},
    "psutil": {"socket", "link.host", "bench.programs"},
    "cryptography": {"exchange.cipher", "link.certificate"},
    "uvloop": {"event_loop"},
    "pydantic_core": {"value"},
    "numpy": {"demo.data", "demo.model", "demo.agents", "bench.programs"},
    "sklearn": {"demo.data"},
    "tomli_w": {"toml_file"},
    "typer": {"cli", "demo"},
    "rich": {"cli", "demo"},
    # Run as scripts, these import each other by their bare names.
    "agents": {"bench.programs"},
    "crowd": {"bench.programs"},
    "load": {"bench.programs"},
    "target": {"bench.programs"},
    "ways": {"bench.programs"},
}
"""Who may import a package: modules, or packages with all that is in them."""
LAZY = {"cryptography", "psutil", "uvloop", "pydantic_core", "sklearn", "tomli_w"}
"""Packages that are imported in functions only: they are optional, or slow."""

PURE = words(
    "value pages loan segment ownership identifier tag exception error_code by_value "
    "serialize header body message stats method describe call_options runtime_config "
    "exchange.client_config exchange.flight exchange.keys exchange.ledger "
    "exchange.outbox exchange.unconfirmed "
    "exchange.parcel exchange.stream exchange.transport exchange.verdict"
)
"""Modules without I/O, clock, or chance, save for new identifiers and tags."""
IMPURE = {*words("asyncio socket ssl redis time random threading logging")}

PURE_LINK = words(
    "link link.config link.address link.frame link.codec link.handshake link.window "
    "link.meter link.channel link.incoming link.parts link.reader link.protocol "
    "link.session link.outgoing link.refusal link.admission link.security "
    "link.lending link.borrowing link.sharing link.part_queue "
    "link.sending"
)
"""The protocol between processes: bytes and the time in, bytes and events out."""
IMPURE_LINK = {*IMPURE, "os", "secrets"}
USED_BY_LINK = {"segment", "loan", "task", "socket", "exception", "process_table"}
"""What the other modules of `link` may use beside each other."""

SIBLINGS = {"exchange.local", "exchange.redis", "exchange.hybrid"}

MODULE_LINES = 400
LONG_MODULES = {"exception": "the whole tree of errors, each a few lines"}
BODY_LINES = 60


@dataclasses.dataclass(frozen=True)
class Import:
    target: str
    line: int
    lazy: bool
    type_only: bool

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]

    @property
    def inner(self) -> str | None:
        """The module's name below `academy`, if it is one of ours."""
        return short(self.target) if self.package == "academy" else None


@dataclasses.dataclass(frozen=True)
class Module:
    name: str
    path: pathlib.Path
    tree: ast.Module
    imports: tuple[Import, ...]

    def where(self, line: int) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{line}"

    def below(self, owners: set[str]) -> bool:
        """Whether it is one of them, or in a package that is."""
        return any(f"{self.name}.".startswith(f"{owner}.") for owner in owners)


def short(name: str) -> str:
    return name.removeprefix("academy.")


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Module]:
    paths = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    found = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        imports = tuple(find_imports(tree, set(paths)))
        found[short(name)] = Module(short(name), path, tree, imports)
    return found


def find_imports(
    node: ast.AST, ours: set[str], lazy: bool = False, type_only: bool = False
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, lazy, type_only)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                target = full if full in ours else child.module
                yield Import(target, child.lineno, lazy, type_only)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for part in child.body:
                yield from find_imports(
                    ast.Module([part], type_ignores=[]), ours, lazy, True
                )
            for part in child.orelse:
                yield from find_imports(
                    ast.Module([part], type_ignores=[]), ours, lazy, type_only
                )
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from find_imports(child, ours, lazy or function, type_only)


@functools.cache
def layers() -> dict[str, int]:
    return {name: layer for layer, names in LAYERS.items() for name in words(names)}


each_module = pytest.mark.parametrize(
    "module", modules().values(), ids=lambda m: m.name
)


def test_no_module_is_in_two_layers() -> None:
    names = [name for names in LAYERS.values() for name in words(names)]
    assert sorted(names) == sorted(set(names))


@each_module
def test_imports_go_down(module: Module) -> None:
    here = layers().get(module.name)
    assert here is not None, (
        f"academy.{module.name} is in no layer: add it to LAYERS in {__file__}, "
        "above all that it imports and below all that imports it."
    )
    wrong = []
    for found in module.imports:
        inner = found.inner
        if inner is None or found.type_only:
            continue
        if inner == module.name or (module.name, inner) in ARROWS:
            continue
        there = layers().get(inner)
        if there is None or there >= here:
            wrong.append(
                f"{module.where(found.line)}: {module.name} (layer {here}) "
                f"imports {inner} (layer {there})"
            )
    assert not wrong, "\n".join(wrong)


@each_module
def test_imports_for_type_checkers_are_listed(module: Module) -> None:
    wrong = [
        f"{module.where(found.line)}: {short(found.target)}"
        for found in module.imports
        if found.type_only and (module.name, short(found.target)) not in TYPE_ONLY
    ]
    assert not wrong, "\n".join(wrong)


@each_module
def test_packages_of_others(module: Module) -> None:
    wrong = []
    for found in module.imports:
        package = found.package
        if package in sys.stdlib_module_names | ANYWHERE | {"academy"}:
            continue
        if found.type_only and (module.name, found.target) in TYPE_ONLY:
            continue
        if not module.below(PACKAGES.get(package, set())):
            wrong.append(f"{module.where(found.line)}: {package} is not for it")
        elif package in LAZY and not found.lazy:
            wrong.append(f"{module.where(found.line)}: {package} only in functions")
    assert not wrong, "\n".join(wrong)


def test_pydantic_is_loaded_by_pydantic_only() -> None:
    """Our values work in its models, but do not load it."""
    for module in modules().values():
        for found in module.imports:
            assert not found.package.startswith("pydantic") or found.lazy


@pytest.mark.parametrize("name", PURE)
def test_pure_modules(name: str) -> None:
    module = modules()[name]
    wrong = [
        f"{module.where(found.line)}: {found.target}"
        for found in module.imports
        if not found.type_only
        and (
            found.package in IMPURE
            or (found.inner is not None and found.inner not in {*PURE, "academy"})
        )
    ]
    assert not wrong, "\n".join(wrong)


def of_link() -> list[Module]:
    return [module for module in modules().values() if module.below({"link"})]


@pytest.mark.parametrize("module", of_link(), ids=lambda m: m.name)
def test_links_know_nothing_of_messages(module: Module) -> None:
    """And the pure ones nothing of the world."""
    pure = module.name in PURE_LINK
    allowed = {*PURE_LINK, "segment"} if pure else {"link", *USED_BY_LINK}
    wrong = []
    for found in module.imports:
        if found.inner is not None:
            package = found.inner.partition(".")[0]
            fine = (found.inner if pure else package) in allowed
        else:
            world = found.package in IMPURE_LINK
            known = found.package in {*sys.stdlib_module_names, *ANYWHERE}
            fine = not pure or (known and not world)
        if not fine:
            wrong.append(f"{module.where(found.line)}: {found.target}")
    assert not wrong, "\n".join(wrong)


def test_embedded_needs_nothing_but_the_standard_library() -> None:
    for module in modules().values():
        if module.below({"embedded"}):
            for found in module.imports:
                own = (found.inner or "").partition(".")[0] == "embedded"
                assert own or found.package in sys.stdlib_module_names, module.name


@pytest.mark.parametrize("name", sorted(SIBLINGS))
def test_exchanges_do_not_know_each_other(name: str) -> None:
    if name in modules():
        targets = {found.inner for found in modules()[name].imports}
        assert not targets & SIBLINGS


@each_module
def test_size_of_module(module: Module) -> None:
    lines = len(module.path.read_text(encoding="utf-8").splitlines())
    if module.name in LONG_MODULES:
        assert MODULE_LINES < lines <= 600, "it needs no exception, or too much"
    else:
        assert lines <= MODULE_LINES


@each_module
def test_size_of_functions(module: Module) -> None:
    wrong = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if lines > BODY_LINES:
                wrong.append(f"{module.where(node.lineno)}: {node.name}: {lines} lines")
    assert not wrong, "\n".join(wrong)
