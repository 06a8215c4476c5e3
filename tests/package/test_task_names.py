"""Only the tasks themselves know tasks by name: everything else asks the task."""

import ast
from pathlib import Path

import finetune_tf
from finetune_tf.tasks import TASKS

ROOT = Path(finetune_tf.__file__).parent
# Tables with one row for each task, which is what adding a task means.
TABLES = {
    "evaluation/evaluators/registry.py",
    *(f"families/{f.name}" for f in ROOT.glob("families/*")),
}
CLASSES = {task.__name__ for task in TASKS.values()}
ASKED = {"name", "task_name", "evaluator"}


def files():
    """Every file outside of the tasks, by its path within the package."""
    found = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
    return {name: path for name, path in found.items() if not name.startswith("tasks/")}


def docstrings(tree):
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def is_of_task(node):
    """Whether an expression is `task.name`, `model.task.evaluator` or `TASKS[…].name`."""
    if not isinstance(node, ast.Attribute) or node.attr not in ASKED:
        return False
    return node.attr != "name" or "task" in ast.unparse(node.value).lower()


def test_no_text_is_the_name_of_a_task():
    found = []
    for name, path in files().items():
        tree = ast.parse(path.read_text())
        ignored = docstrings(tree)
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in ignored and node.value in TASKS:
                found.append(f"{name}:{node.lineno}: {node.value}")
    assert not [line for line in found if line.partition(":")[0] not in TABLES], found
    assert {line.partition(":")[0] for line in found} & TABLES


def test_nothing_compares_the_name_of_a_task():
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, path in files().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and any(map(is_of_task, [node.left, *node.comparators]))
    ]
    assert not found


def test_no_class_of_a_task_is_named():
    found = [
        f"{name}:{node.lineno}: {node.id}"
        for name, path in files().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id in CLASSES
    ]
    assert not found
