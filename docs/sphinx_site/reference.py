"""The API reference: which public name is documented on which page.

A name has its place by the package that defines it. Only `PAGES` is written by hand; everything
else follows from `finetune_tf.__all__` and from the `__all__` of the public packages. This module
does not import Sphinx, so that a test can ask it for names without a place.
"""

import inspect
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import finetune_tf as ft


@dataclass(frozen=True)
class Page:
    """A page of the reference.

    Attributes:
        title: Its heading.
        packages: Parts of finetune_tf. The page has the public names of those that are public, and
            the names of finetune_tf itself that they define.
    """

    title: str
    packages: tuple[str, ...]


#: The pages by the name of their file, in the order of the contents. A public module that is not in
#: this table has a page of its own.
PAGES = {
    "loading": Page("Loading, models and saving", ("model", "base", "graph")),
    "data": Page("Data", ("data",)),
    "freezing": Page("Freezing and selecting", ("training.freezing", "select")),
    "presets": Page("Presets", ("presets",)),
    "training": Page("Learning rates and training", ("training",)),
    "objectives": Page("Objectives", ("objectives",)),
    "callbacks": Page("Callbacks", ("callbacks",)),
    "adapters": Page("Adapters", ("adapters",)),
    "finetune": Page("The complete workflow in one call", ("recipe",)),
    "evaluation": Page("Evaluation", ("evaluation",)),
    "generation": Page("Text generation", ("generation",)),
    "search": Page("Searching for settings and checkpoints", ("search",)),
    "fewshot": Page("Few-shot learning", ("fewshot",)),
    "meta": Page("Meta-learning", ("meta",)),
    "explanations": Page("Explanations", ("explanations",)),
    "calibration": Page("Calibration", ("calibration",)),
    "diagnosis": Page("Diagnosis", ("diagnosis",)),
    "serving": Page("Serving", ("serving",)),
    "messages": Page("Messages and errors", ("messages", "errors")),
}
#: Packages that are public although finetune_tf does not list them in `__all__`.
ALSO_PUBLIC = ("evaluation", "search", "training")


def public_modules() -> dict[str, ModuleType]:
    """Returns the public modules by their name in `ft`."""
    listed = {name: getattr(ft, name) for name in ft.__all__}
    modules = {name: each for name, each in listed.items() if inspect.ismodule(each)}
    return modules | {name: getattr(ft, name) for name in ALSO_PUBLIC}


def names_of(module: ModuleType) -> list[str]:
    """Returns the public names of a module: `__all__`, or else what it defines itself."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )


def public_names() -> dict[str, Any]:
    """Returns what is public by its name in `ft`, each thing once, under its shortest name."""
    found = {name: getattr(ft, name) for name in ft.__all__ if name != "__version__"}
    found = {name: value for name, value in found.items() if not inspect.ismodule(value)}
    known = {id(value) for value in found.values()}
    for module_name, module in public_modules().items():
        for name in names_of(module):
            value = getattr(module, name)
            if not inspect.ismodule(value) and id(value) not in known:
                known.add(id(value))
                found[f"{module_name}.{name}"] = value
    return found


def contents() -> dict[str, tuple[str, list[str], list[str]]]:
    """Returns for each page its title, its public modules, and the public names that stand on it.

    Raises:
        LookupError: If a public name has no page.
    """
    modules = public_modules()
    placed = {package for page in PAGES.values() for package in page.packages}
    pages = dict(PAGES)
    pages |= {name: Page(f"ft.{name}", (name,)) for name in modules if name not in placed}
    found = {
        key: (page.title, [each for each in page.packages if each in modules], [])
        for key, page in pages.items()
    }
    for name, value in public_names().items():
        found[_page_of(name, value, pages)][2].append(name)
    return {key: (title, own, sorted(names)) for key, (title, own, names) in found.items() if names}


def _page_of(name: str, value: Any, pages: dict[str, Page]) -> str:
    """Returns the page with the longest package that contains the name."""
    package = getattr(value, "__module__", "").removeprefix("finetune_tf.")
    where = name if "." in name else f"{package}."
    fitting = [
        (len(prefix), key)
        for key, page in pages.items()
        for prefix in page.packages
        if where.startswith(f"{prefix}.")
    ]
    if not fitting:
        raise LookupError(
            f"ft.{name} is public, but no page of the reference has a place for what "
            f"finetune_tf.{package} defines. Add the package to PAGES in {__file__}."
        )
    return max(fitting)[1]


def write_pages(folder: Path) -> None:
    """Writes the pages of the reference and their index as MyST Markdown."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = contents()
    for key, (title, modules, names) in found.items():
        lines = [f"# {title}", ""]
        for module in modules:
            lines += ["```{eval-rst}", f".. automodule:: finetune_tf.{_path(module)}"]
            lines += ["   :no-index:", "", "```", ""]
        lines += ["```{eval-rst}"]
        for name in names:
            lines += directive(name)
        (folder / f"{key}.md").write_text("\n".join([*lines, "```", ""]), encoding="utf-8")
    entries = "\n".join(found)
    (folder / "index.md").write_text(
        "# API reference\n\nAll public names. `ft` is `finetune_tf`, as in `import finetune_tf as "
        f"ft`.\n\n```{{toctree}}\n:maxdepth: 2\n\n{entries}\n```\n",
        encoding="utf-8",
    )


def _path(module: str) -> str:
    return public_modules()[module].__name__.removeprefix("finetune_tf.")


def directive(name: str) -> list[str]:
    """Returns the lines that document a public name."""
    value = public_names()[name]
    if inspect.isclass(value):
        # What Keras and Python define is documented there.
        foreign = [
            each.__name__ for each in value.__mro__ if not each.__module__.startswith("finetune_tf")
        ]
        return [
            f".. autoclass:: finetune_tf.{name}",
            "   :members:",
            f"   :inherited-members: {', '.join(foreign)}",
            "",
        ]
    if callable(value):
        return [f".. autofunction:: finetune_tf.{name}", ""]
    return [f".. py:data:: finetune_tf.{name}", f"   :type: {type(value).__name__}", ""]
