"""`pyproject.toml` is true: what the packages import is declared, what is declared is used, and no oracle of the tests computes."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "actors", "pipelines", "jobs")
ORACLES = ("transformers", "sentence_transformers", "vllm")

COMES_WITH = {
    "grpcio": "ray",  # `pipelines/cluster/token.py` asks as Ray does, with what Ray asks with
    "pydantic-core": "pydantic",  # pinned exactly by it
    "markupsafe": "jinja2",  # whose autoescaping it is
    "botocore": "moto",
    "aiohttp": "s3fs",
}
"""What is imported and stands in no list of ours, and the declared package that always brings it."""
CHOSEN_BY_USERS = {
    "s3fs": "the package of one of fsspec's object stores, as Dockerfile's STORAGE has them",
    "flash-attn": "built against the torch that is installed",
}
TOOLS = {
    "import-linter": ("Makefile", "lint-imports"),
    "mypy": ("Makefile", "mypy"),
    "pre-commit": ("CONTRIBUTING.md", "pre-commit"),
    "pytest-timeout": ("pyproject.toml", "\ntimeout = "),
    "pytest-xdist": ("Makefile", "-n 2"),
    "ruff": ("Makefile", "ruff check"),
}
"""What is run and not imported, and the file and the words that run it."""


@dataclass(frozen=True, slots=True)
class Import:
    """A distribution (normalized), where it is imported, and whether that waits until it is needed."""

    name: str
    place: str
    is_lazy: bool


class Imports(ast.NodeVisitor):
    """The top-level names that a module imports, by statements and by `import_module` with a literal."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, bool]] = []
        self._depth = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module is not None:
            self._add(node.module, node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0] if node.args else None
        if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
            self._add(str(first.value), node.lineno)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._later(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._later(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            self._later(node)
        else:
            self.generic_visit(node)

    def _later(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def _add(self, module: str, line: int) -> None:
        self.found.append((module.partition(".")[0], line, self._depth > 0))


def imports(folders: Iterable[str]) -> Iterator[Import]:
    """All imports of others' packages below these folders."""
    brought_by = importlib.metadata.packages_distributions()
    ours = {*PACKAGES, "tests", *sys.stdlib_module_names}
    for file in (file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))):
        visitor = Imports()
        visitor.visit(ast.parse(file.read_text()))
        for module, line, is_lazy in visitor.found:
            if module not in ours:
                name = normalized(brought_by.get(module, [module])[0])
                yield Import(name=name, place=f"{file.relative_to(ROOT)}:{line}", is_lazy=is_lazy)


def normalized(requirement: str) -> str:
    """The name of a requirement, as PEP 503 compares it."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found.group()).lower()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = {normalized(each) for each in PROJECT["dependencies"]}
EXTRAS = {
    extra: {normalized(each) for each in requirements}
    for extra, requirements in PROJECT["optional-dependencies"].items()
}


@pytest.fixture(scope="module")
def here() -> list[Import]:
    """What the packages import."""
    return list(imports(PACKAGES))


@pytest.fixture(scope="module")
def in_tests() -> list[Import]:
    """What the tests import."""
    return list(imports(("tests",)))


def test_what_is_imported_at_once_is_a_runtime_dependency(here: list[Import]) -> None:
    undeclared = [each for each in here if not each.is_lazy and each.name not in RUNTIME | COMES_WITH.keys()]
    assert undeclared == []


def test_what_is_imported_when_it_is_needed_is_declared_too(here: list[Import]) -> None:
    known = RUNTIME | EXTRAS["hub"] | COMES_WITH.keys() | CHOSEN_BY_USERS.keys()
    assert [each for each in here if each.name not in known] == []


def test_every_runtime_dependency_is_imported(here: list[Import]) -> None:
    assert (RUNTIME | EXTRAS["hub"]) - {each.name for each in here} == set()


def test_what_the_tests_import_is_declared(in_tests: list[Import]) -> None:
    known = RUNTIME.union(*EXTRAS.values()) | COMES_WITH.keys() | CHOSEN_BY_USERS.keys()
    assert [each for each in in_tests if each.name not in known] == []


def test_every_development_dependency_is_imported_or_run(here: list[Import], in_tests: list[Import]) -> None:
    imported = {each.name for each in (*here, *in_tests)}
    stubs = {stub for name in imported for stub in (f"types-{name}", f"{name}-stubs")}
    assert EXTRAS["dev"] - imported - stubs - TOOLS.keys() == set()


@pytest.mark.parametrize(("name", "parent"), COMES_WITH.items())
def test_what_comes_with_a_package_is_required_by_it(name: str, parent: str) -> None:
    assert name not in RUNTIME
    assert parent in RUNTIME.union(*EXTRAS.values())
    assert name in {normalized(each) for each in importlib.metadata.requires(parent) or []}


@pytest.mark.parametrize(("name", "file", "words"), [(name, *run) for name, run in TOOLS.items()])
def test_a_tool_is_run_where_it_is_said_to_be(name: str, file: str, words: str) -> None:
    assert name in EXTRAS["dev"]
    assert words in (ROOT / file).read_text()


@pytest.mark.slow
def test_no_oracle_is_loaded_by_any_module() -> None:
    """All modules of the four packages imported into one process: none brings another implementation of a network."""
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
        if file.stem not in ("__main__", "__init__")
    ]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"torch", "ray"} <= loaded
    assert loaded.isdisjoint(ORACLES)
