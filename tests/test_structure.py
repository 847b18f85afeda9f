"""The structure of the package, read from its sources: rooms, imports, sizes, public names.

The floors below are the architecture: a module imports only modules of its own room and of lower
floors. Imports inside functions and under TYPE_CHECKING count, and so do those of the stubs through
which rooms export their names. ``KNOWN_...`` lists what does not follow the rules yet. These lists
only shrink: a test also fails when a listed name follows the rule.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import landscope

SOURCE = Path(str(landscope.__file__)).parent
ROOT = Path(__file__).parents[1]

GROUND = (  # modules that every room may use
    "errors", "extras", "_version", "files", "params", "fingerprint", "tensorfile", "landscape",
    "progress",
)  # fmt: skip
ROOMS = (  # the way of the data; training reads old checkpoints through formats, so that is low
    "formats", "objective", "slices", "sampling", "engines", "scanning", "curvature", "training",
    "analysis", "draw", "integrations", "zoo", "cli",
)  # fmt: skip
NAMESPACES = ("losses", "directions", "paths")  # names for users; no module imports them
FLOORS = (*GROUND, *ROOMS, *NAMESPACES, "")  # lowest first; "" is the package itself

MOST_FILES = 15  # directly in src/landscope
MOST_LINES = 350  # of a module
MOST_BODY_LINES = 30  # of a function, without its docstring

# Loaded by its name when a picture is asked for: a landscape draws itself, with what depends on it.
LOADED_BY_NAME = {("landscape", "draw.overview")}

KNOWN_UPWARD: set[tuple[str, str]] = set()
KNOWN_CIRCULAR: set[str] = set()
KNOWN_LONG_MODULES: set[str] = set()
KNOWN_LONG_BODIES: set[str] = set()

PARTICIPLES_AT_MOST = 7
FOUND_AT_MOST = 0
# Participles that do not end in "ed". Those that are also infinitives (cut, read, run) may stay.
IRREGULAR = (
    "been", "begun", "bent", "bitten", "blown", "born", "borne", "bought", "bound", "bred",
    "broken", "brought", "built", "burnt", "caught", "chosen", "dealt", "done", "drawn", "driven",
    "eaten", "fallen", "fed", "felt", "flown", "forgotten", "fought", "found", "frozen", "given",
    "gone", "got", "gotten", "grown", "heard", "held", "hidden", "hung", "kept", "known", "laid",
    "lain", "led", "left", "lent", "lit", "lost", "made", "meant", "met", "paid", "proven", "risen",
    "said", "seen", "sent", "shaken", "shot", "shown", "shrunk", "sold", "sought", "spent",
    "spoken", "spun", "stolen", "stood", "struck", "stuck", "sunk", "swept", "taken", "taught",
    "thought", "thrown", "told", "torn", "understood", "withdrawn", "won", "worn", "woven", "wound",
    "written",
)  # fmt: skip
VERBS_IN_ED = ("embed", "exceed", "feed", "need", "proceed", "seed", "speed", "succeed")
# Public names of the field that are adjectives: a filled contour plot, seeded directions; and
# parameters with their names, as torch calls them; explained variance, as in scikit-learn.
ADJECTIVES = (
    "filled", "seeded", "named_tensors", "explained_variance", "explained_variance_ratio",
)  # fmt: skip


def find_files(source: Path = SOURCE) -> dict[str, Path]:
    """Return the file of each module, by its name without "landscope."."""
    files = {path.relative_to(source).with_suffix(""): path for path in source.rglob("*.py")}
    return {
        ".".join(part for part in place.parts if part != "__init__"): path
        for place, path in sorted(files.items())
    }


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


FILES = find_files()


def list_imports(module: str) -> Iterator[str]:
    """Yield the modules of landscope that a module imports, at any place in it or in its stub."""
    stub = FILES[module].with_suffix(".pyi")
    for path in (FILES[module], *([stub] if stub.is_file() else [])):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{_origin(node, module)}.{alias.name}" for alias in node.names]
            else:
                continue
            for package, _, name in (full.partition(".") for full in names):
                if package == "landscope":
                    yield name if name in FILES else name.rpartition(".")[0]


def _origin(node: ast.ImportFrom, module: str) -> str:
    """Return the full name of the module behind ``from ... import``; only stubs are relative."""
    if not node.level:
        return str(node.module)
    assert FILES[module].name == "__init__.py", f"{module}: imports are absolute"
    return ".".join(part for part in ("landscope", module, node.module) if part)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def find_functions(source: Path = SOURCE) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield "module.name" and definition of every function and method."""
    for module, path in find_files(source).items():
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef):
                yield f"{module}.{node.name}", node


def count_lines_of_body(function: ast.FunctionDef) -> int:
    has_docstring = ast.get_docstring(function) is not None
    statements = function.body[has_docstring:]
    return int(statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


def list_participles(source: Path = SOURCE) -> list[str]:
    """Return the functions whose names begin with a past participle: verbs are expected.

    A property that is true or false may be one (``converged``).
    """
    return [
        name
        for name, function in find_functions(source)
        if _begins_with_participle(function.name.strip("_")) and not _is_predicate(function)
    ]


def _begins_with_participle(name: str) -> bool:
    word = name.partition("_")[0]
    stem = word.removeprefix("un").removeprefix("re")
    regular = word.endswith("ed") and word not in VERBS_IN_ED
    return name not in ADJECTIVES and (regular or word in IRREGULAR or stem in IRREGULAR)


def _is_predicate(function: ast.FunctionDef) -> bool:
    decorators = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
    returns = function.returns and ast.unparse(function.returns)
    return "property" in decorators and returns == "bool"


def count_found(source: Path = SOURCE) -> int:
    """Return how often a variable with the name ``found``, which says nothing, gets a value."""
    return sum(
        isinstance(node, ast.Name) and node.id == "found" and isinstance(node.ctx, ast.Store)
        for path in find_files(source).values()
        for node in ast.walk(parse(path))
    )


def test_few_files_are_directly_in_the_package() -> None:
    files = [path.name for path in SOURCE.iterdir() if path.is_file()]
    assert len(files) <= MOST_FILES, sorted(files)


def test_every_module_has_a_floor_and_every_floor_a_module() -> None:
    assert {room_of(module) for module in FILES} == set(FLOORS)
    assert {path.parent.name for path in SOURCE.glob("*/__init__.py")} == set(ROOMS)


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_only_from_its_room_and_from_lower_floors(module: str) -> None:
    floor = FLOORS.index(room_of(module))
    upward = {other for other in list_imports(module) if FLOORS.index(room_of(other)) > floor}
    assert upward == {other for known, other in KNOWN_UPWARD if known == module}


def test_one_module_alone_loads_another_by_its_name() -> None:
    """A string with the full name of a module could hide an import of a higher floor."""
    named = {
        (module, node.value.removeprefix("landscope."))
        for module, path in FILES.items()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.startswith("landscope.") and node.value[10:] in FILES.keys() - {""}
    }
    upward = {
        (module, other)
        for module, other in named
        if FLOORS.index(room_of(other)) > FLOORS.index(room_of(module))
    }
    assert upward == LOADED_BY_NAME


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: set(list_imports(module)) - {module} for module in FILES}
    reachable = {module: _reachable(graph, module) for module in graph}
    assert {module for module in graph if module in reachable[module]} == KNOWN_CIRCULAR


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - reached
        reached |= new
        waiting.extend(new)
    return reached


def test_the_package_itself_imports_only_its_version() -> None:
    statements = [n for n in parse(FILES[""]).body if isinstance(n, ast.ImportFrom)]
    assert [statement.module for statement in statements] == ["landscope._version"]


def test_no_module_is_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert {m for m, length in lengths.items() if length > MOST_LINES} == KNOWN_LONG_MODULES


def test_no_body_of_a_function_is_long() -> None:
    long = {name for name, node in find_functions() if count_lines_of_body(node) > MOST_BODY_LINES}
    assert long == KNOWN_LONG_BODIES


def test_what_is_known_to_import_upward_is_there() -> None:
    assert {module for pair in KNOWN_UPWARD for module in pair} <= FILES.keys()


def test_functions_have_verbs_and_values_have_names_of_their_own() -> None:
    participles, found = list_participles(), count_found()
    print(f"\n{len(participles)} functions begin with a participle, {found} times found = ...")  # noqa: T201
    assert len(participles) <= PARTICIPLES_AT_MOST, participles
    assert found <= FOUND_AT_MOST


def _defined(module: str) -> set[str]:
    """Return the names that a module defines at its top level or lists as its own."""
    names: set[str] = set()
    for statement in parse(FILES[module]).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.If | ast.Try | ast.With):
            stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name))
            names |= {n.id for n in stored if isinstance(n.ctx, ast.Store)}
    return names | set(getattr(importlib.import_module(f"landscope.{module}"), "__all__", ()))


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "examples"])
def test_a_name_is_imported_from_where_it_is_defined_or_listed(folder: str) -> None:
    strays = {
        f"{path.relative_to(ROOT)}: {node.module}.{alias.name}"
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("landscope.")
        for module in [str(node.module).partition(".")[2]]
        for alias in node.names
        if f"{module}.{alias.name}" not in FILES and alias.name not in _defined(module)
    }
    assert strays == set()


@pytest.mark.parametrize("name", [*ROOMS, *NAMESPACES])
def test_a_room_lists_its_public_names_once_and_shows_no_others(name: str) -> None:
    package = importlib.import_module(f"landscope.{name}")
    assert {"__all__", "__dir__"} <= vars(package).keys()
    assert dir(package) == sorted(package.__all__)
    assert not [public for public in package.__all__ if public.startswith("_")]
    assert all(hasattr(package, public) for public in package.__all__)


def _public_modules(module: ModuleType = landscope) -> Iterator[ModuleType]:
    """Yield the modules that a user meets who follows ``dir`` from the package on."""
    yield module
    for name in dir(module):
        inner = getattr(module, name)
        if isinstance(inner, ModuleType) and inner.__name__ == f"{module.__name__}.{name}":
            yield from _public_modules(inner)


def test_dir_of_a_public_module_shows_nothing_private_and_nothing_imported() -> None:
    modules = list(_public_modules())
    assert {"landscope.params", "landscope.formats.vtk"} <= {m.__name__ for m in modules}
    leaking = {
        module.__name__
        for module in modules
        if dir(module) != sorted(getattr(module, "__all__", ()))
        or not all(_is_of_landscope(getattr(module, name)) for name in dir(module))
    }
    assert leaking == set()


def _is_of_landscope(thing: object) -> bool:
    attribute = "__name__" if isinstance(thing, ModuleType) else "__module__"
    home = str(getattr(thing, attribute, "landscope")).partition(".")[0]
    return home in {"landscope", "typing", "builtins"}  # aliases of types are not its own
