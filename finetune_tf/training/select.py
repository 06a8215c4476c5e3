"""Selectors: values that pick variables of a model.

They combine with `|`, `&` and `~` and work on any Keras model that has stages:

    ft.freeze(model, ft.select.embeddings() | ft.select.bottom(6))
    ft.train_only(model, ft.select.head() | ft.select.biases())      # BitFit, Ben Zaken 2022
"""

import re
from collections.abc import Callable

import keras

from finetune_tf.arguments import check
from finetune_tf.errors import ModelError
from finetune_tf.spelling import names_checked
from finetune_tf.stages import Stage, is_normalization, learnable_variables, stages, walk


class Selector:
    """Picks variables; made by the functions of this module.

    Args:
        description: How it reads in messages.
        pick: From a model to variables that can learn.
    """

    def __init__(
        self, description: str, pick: Callable[[keras.Model], list[keras.Variable]]
    ) -> None:
        self.description = description
        self._pick = pick

    def __call__(self, model: keras.Model) -> list[keras.Variable]:
        """The variables of the model that this selector means, in model order.

        Raises:
            ModelError: If there are none: a policy that does nothing is a mistake.
        """
        chosen = {id(variable) for variable in self._pick(model)}
        found = [v for v in learnable_variables(model) if id(v) in chosen]
        if not found:
            raise ModelError(
                f"The selector {self.description} matches nothing in {model.name!r}, whose stages "
                f"are: {', '.join(f'{s.name} ({s.role})' for s in stages(model))}."
            )
        return found

    def __or__(self, other: "Selector") -> "Selector":
        return Selector(f"({self} | {other})", lambda model: self(model) + other(model))

    def __and__(self, other: "Selector") -> "Selector":
        def both(model: keras.Model) -> list[keras.Variable]:
            theirs = {id(variable) for variable in other(model)}
            return [variable for variable in self(model) if id(variable) in theirs]

        return Selector(f"({self} & {other})", both)

    def __invert__(self) -> "Selector":
        def rest(model: keras.Model) -> list[keras.Variable]:
            mine = {id(variable) for variable in self(model)}
            return [v for v in learnable_variables(model) if id(v) not in mine]

        return Selector(f"~{self}", rest)

    def __repr__(self) -> str:
        return self.description


def _of_stages(description: str, choose: Callable[[list[Stage]], list[Stage]]) -> Selector:
    return Selector(
        description, lambda model: [v for stage in choose(stages(model)) for v in stage.variables]
    )


def everything() -> Selector:
    """Every variable that can learn."""
    return Selector("everything()", learnable_variables)


def head() -> Selector:
    """The head: the task's layers, and what the checkpoint did not train."""
    return _of_stages("head()", lambda all_: [stage for stage in all_ if stage.role == "head"])


def embeddings() -> Selector:
    """The stage that looks up tokens."""
    return _of_stages(
        "embeddings()", lambda all_: [stage for stage in all_ if stage.role == "embeddings"]
    )


@names_checked
def blocks(start: int, stop: int | None = None) -> Selector:
    """Blocks `start` to `stop`, the last one excluded; negative numbers count from the top.

    Args:
        start: First block, from 0.
        stop: One past the last; by default all up to the top.

    Raises:
        ModelError: When applied, if the model has fewer blocks.
    """
    check(start=start, stop=stop)
    described = f"blocks({start})" if stop is None else f"blocks({start}, {stop})"
    return _blocks(described, start, stop)


@names_checked
def bottom(n: int) -> Selector:
    """The `n` blocks nearest to the input, without the embeddings.

    Raises:
        ArgumentError: If `n` is below 1.
        ModelError: When applied, if the model has fewer blocks.
    """
    check(n=n)
    return _blocks(f"bottom({n})", 0, n)


def _blocks(description: str, start: int, stop: int | None) -> Selector:
    def choose(all_: list[Stage]) -> list[Stage]:
        found = [stage for stage in all_ if stage.role == "block"]
        for number in (start, stop):
            if number is not None and not -len(found) <= number <= len(found):
                raise ModelError(
                    f"The selector {description} goes beyond the {len(found)} blocks of the model."
                )
        return found[start:stop]

    return _of_stages(description, choose)


def biases() -> Selector:
    """Every bias, those of normalisations included."""
    return matching(r"(^|/|_)(bias|beta)$", "biases()")


def norms() -> Selector:
    """Scale and offset of every normalisation."""
    return Selector(
        "norms()",
        lambda model: [
            variable
            for layer in walk(model)
            if is_normalization(layer)
            for variable in learnable_variables(layer)
        ],
    )


@names_checked
def matching(pattern: str, description: str | None = None) -> Selector:
    """Variables whose path the regular expression occurs in.

    Args:
        pattern: For example r"attention/(query|value)". Paths are those of `variable.path`.
        description: How the selector reads in messages; by default the call itself.

    Raises:
        ModelError: If the pattern is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ModelError(f"matching({pattern!r}) is no regular expression: {error}.") from None
    return Selector(
        description or f"matching({pattern!r})",
        lambda model: [v for v in learnable_variables(model) if compiled.search(v.path)],
    )
