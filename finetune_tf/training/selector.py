"""The class of the selectors that `finetune_tf.training.select` creates."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import stages


class Selector:
    """Selects variables of a model; created by the functions of `finetune_tf.training.select`.

    Selectors combine with `|`, `&` and `~`.

    Args:
        description: The text of the selector in messages.
        pick: A function from a model to the selected variables, possibly none.
        config: The config for `from_config`, without the parts; None if there is none, because the
            selector uses a custom function.
        parts: The selectors that this one combines.

    Example:
        >>> selector = ft.select.head() | ft.select.biases()
        >>> selector
        (head() | biases())
        >>> len((~selector).matches(model)) + len(selector.matches(model)) == len(model.weights)
        True
    """

    def __init__(
        self,
        description: str,
        pick: Callable[[keras.Model], list[keras.Variable]],
        config: Mapping[str, Any] | None = None,
        parts: tuple["Selector", ...] = (),
    ) -> None:
        self.description = description
        self.parts = parts
        self._pick = pick
        self._config = config

    def __call__(self, model: keras.Model) -> list[keras.Variable]:
        """Returns the selected variables of a model, in the order of the model.

        Raises:
            ModelError: If there are none, which is most likely a mistake.
        """
        found = self.matches(model)
        if not found:
            empty = dict.fromkeys(str(s) for s in self._basic_parts() if not s.matches(model))
            which = f" ({', '.join(empty)} by itself)" if empty and self.parts else ""
            raise ModelError(
                f"The selector {self} matches nothing{which} in {model.name!r}, whose stages "
                f"are: {', '.join(f'{s.name} ({s.role})' for s in stages(model))}."
            )
        return found

    def matches(self, model: keras.Model) -> list[keras.Variable]:
        """Returns the selected variables, in the order of the model; possibly none."""
        selected = {id(variable) for variable in self._pick(model)}
        return [v for v in learnable_variables(model) if id(v) in selected]

    def get_config(self) -> dict[str, Any]:
        """Returns the selector as a JSON-serializable dict; `from_config` is the inverse.

        Raises:
            ModelError: If the selector uses a custom function.
        """
        if self._config is None:
            raise ModelError(
                f"The selector {self} uses a custom function, which cannot be stored in a config. "
                "Combine the selectors of ft.select instead, such as ft.select.matching(…)."
            )
        parts = [part.get_config() for part in self.parts]
        return {**self._config, **({"parts": parts} if parts else {})}

    def __or__(self, other: "Selector") -> "Selector":
        def either(model: keras.Model) -> list[keras.Variable]:
            return self.matches(model) + other.matches(model)

        return Selector(f"({self} | {other})", either, {"select": "or"}, (self, other))

    def __and__(self, other: "Selector") -> "Selector":
        def both(model: keras.Model) -> list[keras.Variable]:
            matched = {id(variable) for variable in other.matches(model)}
            return [variable for variable in self.matches(model) if id(variable) in matched]

        return Selector(f"({self} & {other})", both, {"select": "and"}, (self, other))

    def __invert__(self) -> "Selector":
        def rest(model: keras.Model) -> list[keras.Variable]:
            matched = {id(variable) for variable in self.matches(model)}
            return [v for v in learnable_variables(model) if id(v) not in matched]

        return Selector(f"~{self}", rest, {"select": "not"}, (self,))

    def __repr__(self) -> str:
        return self.description

    def _basic_parts(self) -> list["Selector"]:
        """Returns the selectors that this one combines, recursively."""
        return [basic for part in self.parts for basic in part._basic_parts()] or [self]
