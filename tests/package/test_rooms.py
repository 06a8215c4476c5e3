"""Imports point one way: a room imports those above it in the list of docs/design.md."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import finetune_tf

ROOT = Path(finetune_tf.__file__).parent
DESIGN = Path(__file__).parents[2] / "docs" / "design.md"
# What stands above or below everything: the public names, and the ways to start the program.
OUTSIDE = {"__init__", "__main__", "_version", "_moved"}


def modules():
    """Module name, without the package's, to its file."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path):
    """The modules of the package that a file imports when it runs, inside of functions as well."""
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


def room(module):
    return module.partition(".")[0]


def rooms_in_order():
    """The rooms of the list in docs/design.md, the lowest first."""
    (listed,) = re.findall(r"```\nfinetune_tf/\n(.*?)```", DESIGN.read_text(), re.DOTALL)
    found = []
    for line in listed.splitlines():
        if line.startswith("  ") and not line.startswith("   "):
            names = re.match(r"((?:\w+(?:\.py|/)(?:, +)?)+)", line.strip())[1]
            found += re.findall(r"(\w+)(?:\.py|/)", names)
    return found


def test_every_room_is_in_the_list():
    listed = rooms_in_order()
    assert len(listed) == len(set(listed)) > 15
    assert set(listed) == {room(name) for name in MODULES} - OUTSIDE


def test_a_room_imports_the_rooms_above_it_alone():
    place = {name: i for i, name in enumerate(rooms_in_order())}
    found = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if room(name) not in OUTSIDE and room(other) not in OUTSIDE
        if place[room(other)] > place[room(name)]
    ]
    assert not found, "\n".join(found)


def test_no_circle_of_imports_inside_of_a_room():
    circle = []
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert not circle, " imports ".join(circle)
