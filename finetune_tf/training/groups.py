"""Ordered groups of variables that an optimizer treats differently."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from finetune_tf.base.arguments import shown
from finetune_tf.errors import ModelError
from finetune_tf.training import select
from finetune_tf.training.selector import Selector

#: What defines a group: a selector, or a regular expression for the path of a variable.
Key = Selector | str


class VariableGroups:
    """Groups of variables, each defined by a selector or a regular expression.

    A variable belongs to the first group that selects it, so narrow groups come before wide ones.
    Selectors depend on a model, and `resolve` tells which one it is. Regular expressions, and
    `ft.select.matching`, also work without it.

    Args:
        keys: Selectors and regular expressions, in order.
        title: What a group has, for messages: "rate".
        is_exclusive: Whether a key that selects nothing of its own is an error.

    Attributes:
        names: The name of each group: its regular expression, or the text of its selector.

    Raises:
        ModelError: If a key is neither, is invalid, is given twice, or cannot be stored in a
            config.

    Example:
        >>> from finetune_tf.training.groups import VariableGroups
        >>> groups = VariableGroups([ft.select.head(), "kernel$"], "rate")
        >>> groups.resolve(model)
        >>> [groups.index_of(v) for v in model.get_layer("classifier").weights]
        [0, 0]
    """

    def __init__(self, keys: Iterable[Key], title: str, is_exclusive: bool = True) -> None:
        self._title, self._is_exclusive = title, is_exclusive
        self._keys = tuple(keys)
        self._selectors = tuple(self._selector_of(key) for key in self._keys)
        self.names = tuple(key if isinstance(key, str) else str(key) for key in self._keys)
        twice = [name for i, name in enumerate(self.names) if name in self.names[:i]]
        if twice and is_exclusive:
            raise ModelError(f"A {title} is given twice for {twice[0]}. Leave one of them out.")
        self._index: dict[int, int] | None = None  # by id of the variable, if the model is known

    def __len__(self) -> int:
        return len(self._keys)

    def _selector_of(self, key: Any) -> Selector:
        if isinstance(key, str):
            return select.matching(key)
        if not isinstance(key, Selector):
            name = getattr(key, "__name__", None)
            found = f"{name} without its ()" if name else shown(key)
            raise ModelError(
                f"A {self._title} is given for a selector such as ft.select.head(), or for a "
                f"regular expression of paths such as r'kernel$'; found {found}."
            )
        key.get_config()  # raises if the optimizer could not be saved
        return key

    def resolve(self, model: keras.Model) -> None:
        """Finds the variables of each group in a model, frozen ones included.

        Args:
            model: The model; for one on cached features, selectors refer to the whole model.

        Raises:
            ModelError: If a group selects nothing, or only variables of earlier groups.
        """
        model = getattr(model, "whole", model)
        index: dict[int, int] = {}
        for i, selector in enumerate(self._selectors):
            is_optional = not self._is_exclusive and isinstance(self._keys[i], str)
            selected = selector.matches(model) if is_optional else selector(model)
            found = [id(variable) for variable in selected]
            if self._is_exclusive and not set(found) - index.keys():
                earlier = dict.fromkeys(self.names[index[key]] for key in found)
                raise ModelError(
                    f"The {self._title} for {self.names[i]} has no effect: each of its variables "
                    f"already belongs to {', '.join(earlier)}, and the first {self._title} that "
                    f"fits a variable is used. Put {self.names[i]} in front."
                )
            for key in found:
                index.setdefault(key, i)
        self._index = index

    def index_of(self, variable: keras.Variable) -> int | None:
        """Returns the number of the group of a variable, or None.

        Raises:
            ModelError: If that depends on the model, which is unknown.
        """
        if self._index is not None:
            return self._index.get(id(variable))
        for i, selector in enumerate(self._selectors):
            config = selector.get_config()
            if config["select"] != "matching":  # a regular expression needs no model
                raise ModelError(
                    f"The selector {selector}, which has a {self._title} of its own, depends on "
                    "the model, which this optimizer does not know. Write "
                    "rates=ft.training.by_pattern(model, {…}), or compile a model from ft.load."
                )
            if re.search(config["pattern"], variable.path):
                return i
        return None

    def get_config(self) -> list[Any]:
        """Returns the groups as JSON can hold them; `from_config` is the inverse."""
        return [key if isinstance(key, str) else key.get_config() for key in self._keys]

    @staticmethod
    def keys_from_config(config: Iterable[Any]) -> list[Key]:
        """Returns the keys of which `get_config` was made."""
        return [select.from_config(key) if isinstance(key, Mapping) else key for key in config]
