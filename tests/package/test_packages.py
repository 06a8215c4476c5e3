"""A package imports only packages that come before it in the list of docs/design.md."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import finetune_tf

ROOT = Path(finetune_tf.__file__).parent
DESIGN = Path(__file__).parents[2] / "docs" / "design.md"
# Not part of the list: the public names, the entry points, and the old module names.
OUTSIDE = {"__init__", "__main__", "_version", "_moved"}


def modules():
    """Maps module names, without the prefix "finetune_tf.", to files."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path):
    """The modules of finetune_tf that a file imports at run time, also inside functions."""
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


def package_of(module):
    return module.partition(".")[0]


def packages_in_order():
    """The packages of the list in docs/design.md, lowest first."""
    (listed,) = re.findall(r"```\nfinetune_tf/\n(.*?)```", DESIGN.read_text(), re.DOTALL)
    found = []
    for line in listed.splitlines():
        if line.startswith("  ") and not line.startswith("   "):
            names = re.match(r"((?:\w+(?:\.py|/)(?:, +)?)+)", line.strip())[1]
            found += re.findall(r"(\w+)(?:\.py|/)", names)
    return found


def test_every_package_is_in_the_list():
    listed = packages_in_order()
    assert len(listed) == len(set(listed)) > 15
    assert set(listed) == {package_of(name) for name in MODULES} - OUTSIDE


def test_a_package_imports_only_packages_before_it():
    place = {name: i for i, name in enumerate(packages_in_order())}
    found = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in sorted(others)
        if package_of(name) not in OUTSIDE and package_of(other) not in OUTSIDE
        if place[package_of(other)] > place[package_of(name)]
    ]
    assert not found, "\n".join(found)


def test_no_circular_imports_between_modules():
    cycle = []
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert not cycle, " imports ".join(cycle)


def test_every_arrow_of_the_diagram_is_an_import():
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", DESIGN.read_text(), re.DOTALL)
    arrows = re.findall(r"^ *(\w+)(?:\[.*?\])? --> (\w+)", diagram, re.MULTILINE)
    imports = {
        (package_of(imported), package_of(name)) for name in IMPORTS for imported in IMPORTS[name]
    }
    assert len(arrows) > 12
    assert {(lower.strip("_"), upper.strip("_")) for lower, upper in arrows} <= imports
