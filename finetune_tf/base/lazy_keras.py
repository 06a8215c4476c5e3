"""Imports Keras without packages that it seldom needs, until somebody uses them.

`import keras` also imports scikit-learn for the wrappers in `keras.wrappers`, matplotlib for the
plots in `keras.visualization`, and IPython for the display of files, if these packages are
installed, which takes a second. Here the two parts of Keras, and IPython, are modules that are
executed when one of their attributes is read for the first time. They work as before. What has been
imported before finetune_tf does not change.
"""

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

_PARTS = ("wrappers", "visualization")  # names of modules in several packages of Keras


class _LazyParts(importlib.abc.MetaPathFinder):
    """Finds the modules, with a loader that executes them later."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of one of them; None leaves any other module to Python."""
        package, _, name = fullname.rpartition(".")
        is_part = package.partition(".")[0] == "keras" and name in _PARTS
        if not is_part and fullname != "IPython":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


@contextlib.contextmanager
def lazy_parts() -> Iterator[None]:
    """Defers the modules of the list that are imported inside the block."""
    finder = _LazyParts()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with lazy_parts():
    import keras  # noqa: F401
