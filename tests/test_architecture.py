"""The layout keeps its promises: the library is free of Ray, and imports run one way."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room is a folder or a module directly below ganad or pipelines. A room may import the rooms in
# the lines above it, never its neighbours in the same line or the lines below.
GANAD = [
    {"errors"},
    {"storage", "batch", "networks", "losses"},
    {"archive", "features"},
    {"images"},
    {"detectors"},
    {"calibration"},
    {"saved", "engines"},
    {"model", "heat"},
    {"scores", "export"},
    {"evaluation"},
    {"report"},
    {"training", "browse"},
]
PIPELINES = [
    {"console"},
    {"cluster"},
    {"passes"},
    {"score"},
    {"train"},
    {"benchmark"},
    {"cli"},
    {"__main__"},
]
RANK = {
    f"{package}.{room}": rank
    for package, order in (("ganad", GANAD), ("pipelines", PIPELINES))
    for rank, rooms in enumerate(order)
    for room in rooms
}

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "LICENSE",
    "README.md",
    "cluster.yaml",
    "ganad",
    "pipelines",
    "pyproject.toml",
    "tests",
}
FORBIDDEN_IN_GANAD = {"ray", "pipelines"}
MAX_LINES = 400
MAX_FILES = 18
"""Modules in a folder, __init__.py not counted."""
# Imported under another name than that of the distribution that brings it.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "markupsafe": "jinja2",
    "pydantic_core": "pydantic",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def room_of(module: str) -> str:
    """ganad.detectors.gan.alad -> ganad.detectors"""
    return ".".join(module.split(".")[:2])


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """ganad/detectors/base.py -> ganad.detectors.base"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in python_files("ganad", "pipelines")}
LIBRARY = [module for module in MODULES if module.split(".")[0] == "ganad"]


def imports(source: str, package: str) -> Iterator[str]:
    """Dotted names that a module of the package imports, inside functions as well.

    `from a import b` gives a.b where that is a module of ours, else a.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=base, names=names, level=level):
                parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                module = ".".join([*parts, *([base] if base else [])])
                for alias in names:
                    child = f"{module}.{alias.name}"
                    # The version is a fact, not a part of the public names that come last.
                    if child != "ganad.__version__":
                        yield child if child in MODULES else module
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def forbidden(source: str) -> set[str]:
    return {name.split(".")[0] for name in imports(source, "ganad")} & FORBIDDEN_IN_GANAD


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return set(imports(path.read_text(), package))


@pytest.mark.parametrize("module", LIBRARY)
def test_the_library_never_imports_ray(module):
    assert not forbidden(MODULES[module].read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import ray",
        "import numpy, ray.data as data",
        "from ray.train import report",
        "def lazily():\n    import ray",
        "from importlib import import_module\nimport_module('ray.data')",
        "__import__('pipelines')",
        "from pipelines import score",
    ],
)
def test_an_import_of_ray_would_be_seen(source):
    assert forbidden(source)


@pytest.mark.parametrize("source", ["import array", "from ganad import rays", "from . import ray"])
def test_other_names_are_not_taken_for_ray(source):
    assert not forbidden(source)


@pytest.mark.parametrize("module", [name for name in MODULES if "." in name])
def test_imports_run_one_way(module):
    room = room_of(module)
    assert room in RANK, f"{room} has no place in the order of rooms"
    for name in imports_of(module) & set(MODULES):
        if "." not in name:
            # The public names come last; pipelines may use them, and names its own package.
            assert room.startswith("pipelines"), f"{module} imports {name}; import the name's home"
            continue
        other = room_of(name)
        assert other in RANK, f"{other} has no place in the order of rooms"
        down = other.startswith("ganad.") and room.startswith("pipelines.")
        assert down or other == room or RANK[other] < RANK[room], f"{module} must not import {name}"


def test_no_module_imports_itself_in_a_circle():
    graph = {module: imports_of(module) & set(MODULES) for module in MODULES if "." in module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def loaded(program: str) -> set[str]:
    """Top-level names in sys.modules after the program has run in a fresh interpreter."""
    program += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", program]
    return set(subprocess.check_output(command, text=True, cwd=ROOT).split())


def test_importing_ganad_loads_nothing_heavy():
    assert not loaded("import ganad") & {"ray", "torch", "timm", "duckdb", "pyarrow", "pandas"}


def test_importing_every_module_of_the_library_does_not_load_ray():
    names = loaded("import " + ", ".join(LIBRARY))
    assert "torch" in names
    assert not names & FORBIDDEN_IN_GANAD


def test_public_names_are_no_modules():
    # A function with the name of its own module is shadowed by it after the first import.
    program = (
        "import ganad, types\n"
        "for _ in range(2):\n"
        "    for name in ganad.__all__:\n"
        "        assert not isinstance(getattr(ganad, name), types.ModuleType), name\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_everything_imported_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [words for words in project["optional-dependencies"].items() if words[0] != "test"]
    needed = [*project["dependencies"], *(one for _, extra in extras for one in extra)]
    declared = {re.match(r"[\w-]+", words)[0] for words in needed}
    roots = {
        name.split(".")[0]
        for path in python_files("ganad", "pipelines")
        for name in imports(path.read_text(), "ganad")
    }
    foreign = roots - sys.stdlib_module_names - {"ganad", "pipelines"}
    assert "torch" in foreign
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} <= declared


@pytest.mark.parametrize("path", python_files("ganad", "pipelines"), ids=module_name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", python_files("ganad", "pipelines", "tests"), ids=module_name)
def test_no_file_is_long(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for path in python_files("ganad", "pipelines")}),
    ids=lambda folder: str(folder.relative_to(ROOT)),
)
def test_no_room_is_crowded(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= MAX_FILES


def test_the_top_level_holds_the_fixed_names_only():
    # Git is asked, not the disk: a build or a virtual environment lying about is no fault.
    try:
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    tracked = {Path(name).parts[0] for name in listed.stdout.split("\0") if name}
    if not tracked:
        pytest.skip("nothing is committed yet")
    assert tracked <= TOP_LEVEL
