"""The house is as its pages say: what they name is there, every room says what it is for, and a commit's subject is checked."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import actors.errors
import jobs.errors
import models.errors
import pipelines.errors

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("models", "actors", "pipelines", "jobs")
PLACED = re.compile(r"`(\w+)` \(`((?:models|actors|pipelines|jobs)/[\w./-]*\.py)`\)")
NAMED = re.compile(r"`((?:models|actors|pipelines|jobs|tests|k8s|docs)/[\w./-]*)`")


def rooms() -> list[Path]:
    folders = [path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(set(folders))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    assert [name for name in NAMED.findall(page.read_text()) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_finds_in_a_module_is_there(page: Path) -> None:
    """`Name` (`path`) in a page: the module has a class or a function of that name."""
    found = [(name, (ROOT / path).read_text()) for name, path in PLACED.findall(page.read_text())]
    assert [name for name, text in found if not re.search(rf"^(class|(async )?def) {name}\b", text, re.MULTILINE)] == []


def test_every_room_says_what_lives_there() -> None:
    silent = [room for room in rooms() if not (room / "__init__.py").read_text().startswith('"""')]
    assert silent == []


def test_every_room_is_on_the_map() -> None:
    """Those that stand in a package; what is in a room of theirs is its own affair."""
    page = (ROOT / "docs/architecture.md").read_text()
    named = {str(room.relative_to(ROOT)) for room in rooms() if len(room.relative_to(ROOT).parts) == 2}
    assert {room for room in named if f"`{room}/`" not in page} == set()


def test_no_room_is_a_list() -> None:
    """A folder of more files than a reader takes in at once wants rooms of its own."""
    sizes = {str(room.relative_to(ROOT)): len(list(room.glob("*.py"))) - 1 for room in rooms()}
    assert {room: size for room, size in sizes.items() if size > 24} == {}


def test_classes_of_one_name_are_in_the_glossary() -> None:
    """A class may have a name that another has only where the page says which is which."""
    modules: dict[str, set[str]] = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    page = (ROOT / "docs/architecture.md").read_text()
    told = {name: set(NAMED.findall(row)) for name, row in re.findall(r"^\| `(\w+)` \|(.*)$", page, re.MULTILINE)}
    assert {name: found for name, found in modules.items() if len(found) > 1} == told


OWN_ERRORS = {
    name
    for module in (models.errors, actors.errors, pipelines.errors, jobs.errors)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Exception)
}
CUTS = {"find", "index", "partition", "removeprefix", "removesuffix", "rpartition", "split", "startswith"}


def read_sentences(source: str) -> list[int]:
    """The lines on which the text of an error of ours is taken apart, where it is caught."""
    lines = []
    for handler in ast.walk(ast.parse(source)):
        if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
            continue
        if not OWN_ERRORS & {name.id for name in ast.walk(handler.type) if isinstance(name, ast.Name)}:
            continue
        text = f"str({handler.name})"
        for node in ast.walk(handler):
            if isinstance(node, ast.Attribute) and node.attr in CUTS and ast.unparse(node.value) == text:
                lines.append(node.lineno)
            if isinstance(node, ast.Compare) and text in map(ast.unparse, node.comparators):
                lines.append(node.lineno)
    return lines


def test_no_error_of_ours_is_read_as_a_sentence() -> None:
    """What somebody needs to know of one stands in a field of it."""
    assert read_sentences("try: f()\nexcept PlanError as e: g('x' in str(e))") == [2]
    assert read_sentences("try: f()\nexcept (OSError, TaskError) as e: g(str(e).partition(';'))") == [2]
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): read_sentences(path.read_text()) for path in paths}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("message", "is_taken"),
    [
        ("Mend the reader of CSV\n", True),
        ("Mend the reader of CSV\n\nIt lost a row.\n", True),
        (f"M{'e' * 71}\n", True),
        (f"M{'e' * 72}\n", False),
        ("mend the reader of CSV\n", False),
        ("Mend the reader of CSV.\n", False),
        ("Mend the reader of CSV\nIt lost a row.\n", False),
        ("\nMend the reader\n", False),
        ("Mend the reader of CSV\n# Please enter the commit message for your changes.\n", True),
        ("Mend the reader of CSV \n\n", True),
        ("Mend the reader of CSV. \n", False),
    ],
)
def test_the_subject_of_a_commit_is_checked(tmp_path: Path, message: str, is_taken: bool) -> None:
    path = tmp_path / "message"
    path.write_text(message)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    [hook] = [hook for hook in hooks if hook["id"] == "subject"]
    assert (hook["language"], hook["stages"]) == ("pygrep", ["commit-msg"])
    command = [sys.executable, "-m", "pre_commit.languages.pygrep", *hook["args"], hook["entry"], str(path)]
    assert (subprocess.run(command, check=False).returncode == 0) == is_taken
