"""Writes docs/families.md: which families can do which tasks, read off the registries.

python docs/make_tables.py
"""

import inspect
import statistics
import sys
from pathlib import Path

from finetune_tf.families import FAMILIES, Family
from finetune_tf.tasks import TASKS

PAGE = Path(__file__).with_name("families.md")


def lines_of(family: Family) -> int:
    """Lines of the file that the family lives in; some share one."""
    return len(inspect.getsource(inspect.getmodule(family.backbone)).splitlines())


def page() -> str:
    """The whole page."""
    tasks = list(TASKS)
    rows = []
    for name, family in FAMILIES.items():
        heads = family.heads(family.complete({}))
        marks = ["yes" if task in heads else "no" for task in tasks]
        module = inspect.getmodule(family.backbone).__name__.rpartition(".")[2]
        rows.append([f"`{name}`", *marks, f"{module}.py", str(lines_of(family))])
    files = {inspect.getmodule(family.backbone): lines_of(family) for family in FAMILIES.values()}
    median = statistics.median(files.values())
    header = ["model_type", *tasks, "file", "lines"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])
    classes = "\n".join(
        f"- {task}: `…{TASKS[task].class_suffix}` in PyTorch, the columns "
        f"{', '.join(f'`{column}`' for column in TASKS[task].columns)}"
        for task in tasks
    )
    return f"""# Families and tasks

Made by `python docs/make_tables.py` from the registries `FAMILIES` and `TASKS`; do not edit it.

A checkpoint belongs to the family that its config.json names as `model_type`.

{table}

A family is one file in `finetune_tf/families/`; the median of these files is {median:g} lines.

{classes}
"""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PAGE.name}.\n")


if __name__ == "__main__":
    main()
