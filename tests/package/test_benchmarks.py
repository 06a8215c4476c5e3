"""The scripts in benchmarks/ import only what the library has."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(FOLDER.rglob("*.py"))


def names_of(script: Path) -> list[tuple[str, str | None]]:
    """The modules of the library that a script imports, anywhere in it, and names from them."""
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finetune_tf"):
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [(name, None) for name in names if name.startswith("finetune_tf")]
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_imports_exist(script):
    for module, name in names_of(script):
        loaded = importlib.import_module(module)
        is_module = name and importlib.util.find_spec(module).submodule_search_locations
        if is_module and not hasattr(loaded, name):
            loaded, name = importlib.import_module(f"{module}.{name}"), None
        assert name is None or hasattr(loaded, name), f"{module} has no {name}"


def test_imports_are_found():
    assert ("finetune_tf.demo", "minilm") in names_of(FOLDER / "rate_finder.py")
