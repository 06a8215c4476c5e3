"""A subpackage imports only subpackages that are listed above it in docs/design.md."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import finetune_tf

ROOT = Path(finetune_tf.__file__).parent
DESIGN = Path(__file__).parents[2] / "docs" / "design.md"
# Modules without a place in the list: the public names and the entry points.
OUTSIDE = {"__init__", "__main__", "_version", "_moved"}


def modules():
    """Returns the file of each module, by its name without the package name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path):
    """Returns the modules of the package that a file imports at runtime, including in functions."""
    found = set()
    pending = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finetune_tf"):
            within = node.module.removeprefix("finetune_tf").removeprefix(".")
            for alias in node.names:
                full = f"{within}.{alias.name}" if within else alias.name
                found.add(full if full in MODULES else within)
    return found & MODULES.keys()


IMPORTS = {name: imported(path) - {name} for name, path in MODULES.items()}


def subpackage(module):
    return module.partition(".")[0]


def subpackages_in_order():
    """Returns the subpackages and top-level modules in the order of docs/design.md."""
    (listed,) = re.findall(r"```\nfinetune_tf/\n(.*?)```", DESIGN.read_text(), re.DOTALL)
    found = []
    for line in listed.splitlines():
        if line.startswith("  ") and not line.startswith("   "):
            names = re.match(r"((?:\w+(?:\.py|/)(?:, +)?)+)", line.strip())[1]
            found += re.findall(r"(\w+)(?:\.py|/)", names)
    return found


def test_every_subpackage_is_in_the_list():
    listed = subpackages_in_order()
    assert len(listed) == len(set(listed)) > 15
    assert set(listed) == {subpackage(name) for name in MODULES} - OUTSIDE


def test_a_subpackage_imports_only_those_above_it():
    level = {name: i for i, name in enumerate(subpackages_in_order())}
    found = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if subpackage(name) not in OUTSIDE and subpackage(other) not in OUTSIDE
        if level[subpackage(other)] > level[subpackage(name)]
    ]
    assert not found, "\n".join(found)


def test_no_circular_imports():
    cycle = []
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert not cycle, " imports ".join(cycle)
