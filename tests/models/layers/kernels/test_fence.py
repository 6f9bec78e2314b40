"""Products and kernels of libraries that depend on the machine are called in one folder, where they are compared first."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import models
from models.layers import kernels

ROOT = Path(models.__file__).parent
FENCE = Path(kernels.__file__).parent
LIBRARIES = ("bitsandbytes", "flash_attn", "xformers", "torch.nn.attention", "torch.ops")
KERNELS = (
    "scaled_dot_product_attention",
    "varlen_attn",
    "flash_attn_varlen_func",
    "_scaled_mm",
    "_int_mm",
    "_weight_int8pack_mm",
)


def foreign_names(code: str) -> set[str]:
    """The names of libraries and kernels above that a module imports, reads as an attribute or asks for by a string."""
    return {
        name
        for found in names_in(ast.parse(code))
        for name in (*LIBRARIES, *KERNELS)
        if found == name or found.startswith(f"{name}.") or found.endswith(f".{name}")
    }


def names_in(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported, every dotted name, and what is named by a string to import_module or getattr."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str() as module, names=names):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Attribute() | ast.Name():
                yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="getattr" | "__import__") | ast.Attribute(attr="import_module"), args=args):
                yield from (str(given.value) for given in args if isinstance(given, ast.Constant))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_outside_calls_a_librarys_kernel(path: Path) -> None:
    if path.is_relative_to(FENCE):
        return
    assert foreign_names(path.read_text()) == set()


def test_what_is_within_is_seen() -> None:
    found = set().union(*(foreign_names(path.read_text()) for path in FENCE.glob("*.py")))
    assert {"bitsandbytes", "torch.ops", "torch.nn.attention", "flash_attn", "scaled_dot_product_attention"} <= found


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import bitsandbytes.functional as f", "bitsandbytes"),
        ("from bitsandbytes import nn", "bitsandbytes"),
        (
            "def f():\n    from torch.nn.functional import scaled_dot_product_attention as s",
            "scaled_dot_product_attention",
        ),
        ("F.scaled_dot_product_attention(q, k, v)", "scaled_dot_product_attention"),
        ("torch.nn.functional.scaled_dot_product_attention", "scaled_dot_product_attention"),
        ("torch.ops.mkldnn._linear_pointwise(x)", "torch.ops"),
        ("from torch import ops", "torch.ops"),
        ("importlib.import_module('flash_attn')", "flash_attn"),
        ("getattr(F, 'scaled_dot_product_attention')", "scaled_dot_product_attention"),
    ],
)
def test_every_way_to_name_one_is_seen(code: str, name: str) -> None:
    assert name in foreign_names(code)


def test_words_about_one_are_no_call() -> None:
    assert foreign_names('"""As bitsandbytes does."""\nerror = "pip install bitsandbytes"  # bitsandbytes') == set()
