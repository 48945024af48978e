"""The rules of the house that no linter knows, read off the code itself."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "pyswarm"
GENERATED = ("api/swarmkit", "api/private", "api/csi")

DECISIONS = (
    "agent/messages.py",
    "agent/plan.py",
    "agent/taskstate.py",
    "api/stable.py",
    "api/tasks.py",
    "ca/issuance.py",
    "ca/update.py",
    "ca/validate.py",
    "csi/access.py",
    "manager/allocator/*.py",
    "manager/changes.py",
    "manager/constraints.py",
    "manager/control/blacklist.py",
    "manager/control/references.py",
    "manager/control/service_defaults.py",
    "manager/control/validate*.py",
    "manager/csi/release.py",
    "manager/csi/requests.py",
    "manager/csi/states.py",
    "manager/dispatcher/assignments.py",
    "manager/dispatcher/nodestate.py",
    "manager/dispatcher/orphans.py",
    "manager/dispatcher/registry.py",
    "manager/dispatcher/statuses.py",
    "manager/dispatcher/tasklist.py",
    "manager/genesis.py",
    "manager/logbroker/selection.py",
    "manager/logbroker/subscription.py",
    "manager/orchestrator/*.py",
    "manager/rolemanager.py",
    "manager/scheduler/*.py",
    "manager/why/nodes.py",
    "manager/why/reasons.py",
    "manager/why/updates.py",
    "manager/why/walk.py",
    "raft/filter.py",
    "raft/membership.py",
)
"""Modules that decide: functions of what the store says and what time it is."""

OUTSIDE_WORLD = frozenset({"asyncio", "docker", "grpc", "os", "random", "socket", "ssl", "subprocess", "threading", "time"})
ASYNC = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)

CLOCKS = frozenset(
    f"{module}.{name}"
    for module, names in {
        "time": ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"),
        "asyncio": ("sleep",),
        "datetime": ("now", "utcnow", "today"),
        "date": ("today",),
    }.items()
    for name in names
)
MAY_READ_CLOCKS = {
    "clock.py": "it is the clock",
    "agent/executor/process/shim.py": "a process of its own, which outlives the daemon and has no event loop",
    "telemetry.py": "it measures what calls cost; nothing is decided by it",
}

BROAD_CATCHES = 30
"""`except Exception` and its like: only where a supervisor retries, at the edge of a program, or where the error is handed on."""

SHORTEST_PACKAGE_DOCSTRING = 3


def modules(*patterns: str) -> Iterator[tuple[str, ast.Module]]:
    """(path below src/pyswarm, tree) of our own modules, of all or of those that a pattern names."""
    paths = {path for pattern in patterns or ("**/*.py",) for path in SOURCE.glob(pattern)}
    for path in sorted(paths):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(GENERATED):
            yield name, ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    """The top-level names of everything a module imports, wherever in it."""
    found: set[str] = set()
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in item.names}
        elif isinstance(item, ast.ImportFrom) and item.module and not item.level:
            found.add(item.module.partition(".")[0])
    return found


def caught(handler: ast.ExceptHandler) -> set[str]:
    """The names of what a handler catches; `BaseException` for a bare one."""
    if handler.type is None:
        return {"BaseException"}
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {t.id for t in types if isinstance(t, ast.Name)}


def test_every_test_says_its_rule() -> None:
    """A test function has a docstring that is a sentence."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for item in ast.walk(ast.parse(path.read_text())):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test_"):
                docstring = ast.get_docstring(item) or ""
                if "." not in docstring or len(docstring.split()) < 3:
                    silent.append(f"{path.relative_to(ROOT)}:{item.lineno} {item.name}")
    assert silent == []


@pytest.mark.parametrize("pattern", DECISIONS)
def test_decisions_touch_nothing(pattern: str) -> None:
    """What decides does not wait, and knows no clock, chance, disk, network or engine."""
    found = list(modules(pattern))
    assert found, f"{pattern} names nothing any more"
    for name, tree in found:
        assert imported(tree) & OUTSIDE_WORLD == set(), name
        assert [item.lineno for item in ast.walk(tree) if isinstance(item, ASYNC)] == [], name


def reads_of_clocks(tree: ast.Module) -> list[str]:
    """`time.time` and the like, called or passed on, or imported by name; yielding by `asyncio.sleep(0)` is none."""
    yielding = {
        id(item.func)
        for item in ast.walk(tree)
        if isinstance(item, ast.Call) and len(item.args) == 1 and isinstance(item.args[0], ast.Constant) and item.args[0].value == 0
    }
    found = [
        f"line {item.lineno}: {item.value.id}.{item.attr}"
        for item in ast.walk(tree)
        if isinstance(item, ast.Attribute)
        and isinstance(item.value, ast.Name)
        and f"{item.value.id}.{item.attr}" in CLOCKS
        and not (item.value.id == "asyncio" and id(item) in yielding)
    ]
    for item in ast.walk(tree):
        if isinstance(item, ast.ImportFrom) and item.module in {"time", "asyncio"}:
            found += [f"line {item.lineno}: {item.module}.{a.name}" for a in item.names if f"{item.module}.{a.name}" in CLOCKS]
    return found


def test_time_comes_from_the_clock() -> None:
    """Nobody but the clock reads the time or sleeps, so that tests and the simulation can."""
    assert {name: reads for name, tree in modules() if (reads := reads_of_clocks(tree)) and name not in MAY_READ_CLOCKS} == {}
    assert MAY_READ_CLOCKS.keys() <= {name for name, tree in modules() if reads_of_clocks(tree)}


def test_nothing_is_unpickled() -> None:
    """No module of ours knows pickle or what is built on it; the one library that does is kept from it by raft/guarded."""
    assert {name for name, tree in modules() if imported(tree) & {"pickle", "shelve", "marshal", "dill", "cloudpickle"}} == set()


def test_packages_introduce_themselves() -> None:
    """A package says what it owns, what it must never do, and who starts it: in three lines at least."""
    short = {
        name: len((ast.get_docstring(tree) or "").splitlines())
        for name, tree in modules()
        if name.endswith("__init__.py") and len((ast.get_docstring(tree) or "").splitlines()) < SHORTEST_PACKAGE_DOCSTRING
    }
    assert short == {}


def test_broad_catches_are_few() -> None:
    """A handler for everything hides bugs; there are no more of them than were thought about."""
    found = [
        f"{name}:{item.lineno}"
        for name, tree in modules()
        for item in ast.walk(tree)
        if isinstance(item, ast.ExceptHandler) and caught(item) & {"Exception", "BaseException"}
    ]
    assert len(found) <= BROAD_CATCHES, "\n".join(found)
    silenced = sum((SOURCE / name).read_text().count("BLE001") for name, _ in modules())
    assert silenced <= len(found)


def test_the_rules_can_be_broken() -> None:
    """What the checks look for is found where it is."""
    bad = ast.parse(
        "import time, random\nfrom asyncio import sleep\nimport asyncio.subprocess\n"
        "async def f():\n    await asyncio.sleep(1)\n    await asyncio.sleep(0)\n    return time.monotonic\n"
        "try:\n    pass\nexcept (ValueError, Exception):\n    pass\n"
    )
    assert imported(bad) & OUTSIDE_WORLD == {"time", "random", "asyncio"}
    assert set(reads_of_clocks(bad)) == {"line 5: asyncio.sleep", "line 7: time.monotonic", "line 2: asyncio.sleep"}
    assert [caught(item) for item in ast.walk(bad) if isinstance(item, ast.ExceptHandler)] == [{"ValueError", "Exception"}]
    assert any(isinstance(item, ASYNC) for item in ast.walk(bad))
