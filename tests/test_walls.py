"""Which room may import which, read from the source: imports under `if TYPE_CHECKING` and inside of functions count too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trapline

PACKAGE = Path(trapline.__file__).parent
BASE = {"choices", "cpu_count", "display_text", "errors"}
# Each room, and the rooms that it may import besides itself.
ROOMS = {
    "bytecode": set[str](),
    "choices": set[str](),
    "config": {"choices", "errors"},
    "cpu_count": set[str](),
    "display_text": set[str](),
    "errors": set[str](),
    "quick_imports": set[str](),
    "ray_processes": set[str](),
    "ray_session": {"cpu_count", "errors", "ray_processes"},
    "storage": {"errors"},
    "sources": {"errors", "storage"},
    "decoding": BASE,
    "detections": {*BASE, "storage", "sources", "decoding"},
    "model": {*BASE, "storage", "decoding"},
    "results": {*BASE, "storage", "sources", "decoding", "model"},
    "run": {
        *BASE,
        "config",
        "quick_imports",
        "ray_processes",
        "ray_session",
        "storage",
        "sources",
        "decoding",
        "detections",
        "model",
        "results",
    },
    "monitoring": {*BASE, "config", "storage", "results", "run"},
    "analysis": {*BASE, "ray_session", "storage", "sources", "decoding", "model", "results"},
    "cli": {
        *BASE,
        "bytecode",
        "config",
        "quick_imports",
        "ray_session",
        "storage",
        "sources",
        "model",
        "results",
        "run",
        "monitoring",
        "analysis",
    },
}
WINGS = {"search", "events", "rescoring", "camtrapdp", "report", "flat_tables"}
RAY = {
    "ray_processes",
    "ray_session",
    "run.ray_stream",
    "run.shared_model",
    "run.capacity",
    "monitoring.prometheus",
    "analysis.parallel",
}
LIGHT = ("ledger", "footer", "fingerprint", "layout", "schema")


def modules() -> Iterator[tuple[str, list[str]]]:
    """Each module below `trapline.` and what it imports, absolute."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: imports are absolute here"
                found += [f"{node.module}.{alias.name}" for alias in node.names]
        yield name, found


MODULES = dict(modules())


def ours(imports: list[str]) -> set[str]:
    return {name.removeprefix("trapline.") for name in imports if name.startswith("trapline.")}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_each_room_imports_only_what_it_may() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, imports in MODULES.items()
        if module != "__init__"
        for other in ours(imports)
        if room(other) != "__version__" and room(other) not in {room(module), *ROOMS[room(module)]}
    ]
    assert not wrong


def test_ray_is_imported_in_seven_places() -> None:
    assert {module for module, imports in MODULES.items() if any(room(name) == "ray" for name in imports)} == RAY


def test_the_wings_of_analysis_do_not_import_each_other() -> None:
    wrong = []
    for module, imports in MODULES.items():
        for other in ours(imports):
            wings = [name.split(".")[1] for name in (module, other) if name.count(".") and room(name) == "analysis"]
            if len(wings) == 2 and {*wings} <= WINGS and len({*wings}) == 2:
                wrong.append(f"{module} imports {other}")
            if len(wings) == 2 and wings[0] not in WINGS and wings[1] in WINGS:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_circle_of_modules() -> None:
    graph = {
        module: {
            other
            for other in (name if name in MODULES else name.rpartition(".")[0] for name in ours(imports))
            if other in MODULES
        }
        for module, imports in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in graph[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("name", LIGHT)
def test_the_result_format_is_light(name: str) -> None:
    code = f"import sys, trapline.results.{name}; print(*{{'torch', 'PIL', 'ray'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_no_module_is_long() -> None:
    lengths = {
        module: len((PACKAGE / f"{module.replace('.', '/')}.py").read_text().splitlines())
        for module in MODULES
        if (PACKAGE / f"{module.replace('.', '/')}.py").exists()
    }
    assert not {module: length for module, length in lengths.items() if length > 350}
