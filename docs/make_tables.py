"""Writes docs/families.md, the table of families and tasks, from the registries.

python docs/make_tables.py
"""

import inspect
import statistics
import sys
from pathlib import Path
from types import ModuleType

from finetune_tf.families import FAMILIES, Family
from finetune_tf.tasks import TASKS

PAGE = Path(__file__).with_name("families.md")


def module_of(family: Family) -> ModuleType:
    """Returns the module that defines the family's backbone."""
    return inspect.getmodule(getattr(family.backbone, "func", family.backbone))


def lines_of(family: Family) -> int:
    """Returns the number of lines of the file that defines the family; some families share one."""
    return len(inspect.getsource(module_of(family)).splitlines())


def page() -> str:
    """Returns the content of the page."""
    tasks = list(TASKS)
    rows = []
    for name, family in FAMILIES.items():
        heads = family.heads(family.complete({}))
        marks = ["yes" if task in heads else "no" for task in tasks]
        module = module_of(family).__name__.rpartition(".")[2]
        rows.append([f"`{name}`", *marks, f"{module}.py", str(lines_of(family))])
    files = {module_of(family): lines_of(family) for family in FAMILIES.values()}
    median = statistics.median(files.values())
    header = ["model_type", *tasks, "file", "lines"]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])
    classes = "\n".join(
        f"- {task}: `…{TASKS[task].class_suffix}` in PyTorch; columns "
        f"{', '.join(f'`{column}`' for column in TASKS[task].columns)}"
        for task in tasks
    )
    return f"""# Families and tasks

This page is generated from the registries `FAMILIES` and `TASKS` by `python docs/make_tables.py`;
do not edit it.

The `model_type` in config.json determines the family of a checkpoint. The table shows which tasks
each family supports.

{table}

Each family is defined in one file in `finetune_tf/families/`; the median length of these files is
{median:g} lines.

The PyTorch class and the data columns of each task:

{classes}
"""


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"Wrote {PAGE.name}.\n")


if __name__ == "__main__":
    main()
