"""Selectors: values that pick variables of a model.

They combine with `|`, `&` and `~` and work on any Keras model that has stages:

    ft.freeze(model, ft.select.embeddings() | ft.select.bottom(6))
    ft.train_only(model, ft.select.head() | ft.select.biases())      # BitFit, Ben Zaken 2022

Combining is set algebra, so a part may match nothing: `~head()` is everything in a model without a
head. Only where a selector is applied, it has to match something as a whole.

A selector can be written as plain JSON and read back:

    config = (ft.select.head() | ft.select.blocks(-2)).get_config()
    selector = ft.select.from_config(config)
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import all_layers
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.roles import is_normalization
from finetune_tf.graph.stages import Stage, stages


class Selector:
    """Picks variables; made by the functions of this module.

    Args:
        description: How it reads in messages.
        pick: From a model to variables that can learn; it may find none.
        config: What `from_config` makes it of again, without its parts; None if that is unknown.
        parts: The selectors that it is combined from.
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
        """Applies the selector: the variables of the model that it means, in model order.

        Raises:
            ModelError: If there are none: a policy that does nothing is a mistake.
        """
        found = self.matches(model)
        if not found:
            empty = dict.fromkeys(str(part) for part in self._leaves() if not part.matches(model))
            which = f" ({', '.join(empty)} by itself)" if empty and self.parts else ""
            raise ModelError(
                f"The selector {self} matches nothing{which} in {model.name!r}, whose stages "
                f"are: {', '.join(f'{s.name} ({s.role})' for s in stages(model))}."
            )
        return found

    def matches(self, model: keras.Model) -> list[keras.Variable]:
        """The variables of the model that this selector means, in model order; maybe none."""
        chosen = {id(variable) for variable in self._pick(model)}
        return [v for v in learnable_variables(model) if id(v) in chosen]

    def get_config(self) -> dict[str, Any]:
        """The selector as a dict that JSON can hold; `from_config` is the inverse.

        Raises:
            ModelError: If it was made of a function of one's own.
        """
        if self._config is None:
            raise ModelError(
                f"The selector {self} was made of a function of your own, which no config can "
                "hold. Combine the selectors of ft.select instead, such as ft.select.matching(…)."
            )
        parts = [part.get_config() for part in self.parts]
        return {**self._config, **({"parts": parts} if parts else {})}

    def __or__(self, other: "Selector") -> "Selector":
        def either(model: keras.Model) -> list[keras.Variable]:
            return self.matches(model) + other.matches(model)

        return Selector(f"({self} | {other})", either, {"select": "or"}, (self, other))

    def __and__(self, other: "Selector") -> "Selector":
        def both(model: keras.Model) -> list[keras.Variable]:
            theirs = {id(variable) for variable in other.matches(model)}
            return [variable for variable in self.matches(model) if id(variable) in theirs]

        return Selector(f"({self} & {other})", both, {"select": "and"}, (self, other))

    def __invert__(self) -> "Selector":
        def rest(model: keras.Model) -> list[keras.Variable]:
            mine = {id(variable) for variable in self.matches(model)}
            return [v for v in learnable_variables(model) if id(v) not in mine]

        return Selector(f"~{self}", rest, {"select": "not"}, (self,))

    def __repr__(self) -> str:
        return self.description

    def _leaves(self) -> list["Selector"]:
        """The selectors that this one is combined from in the end."""
        return [leaf for part in self.parts for leaf in part._leaves()] or [self]


def everything() -> Selector:
    """Every variable that can learn."""
    return _simple(learnable_variables, "everything")


def head() -> Selector:
    """The head: the task's layers, and what the checkpoint did not train."""
    return _of_stages(lambda all_: [stage for stage in all_ if stage.role == "head"], "head")


def embeddings() -> Selector:
    """The stages that look up tokens, or make vectors of the patches of a picture."""
    return _of_stages(
        lambda all_: [stage for stage in all_ if stage.role == "embeddings"], "embeddings"
    )


@names_checked
def chain(name: str) -> Selector:
    """All stages of a chain, of a model that has several.

    Args:
        name: Such as "encoder", "decoder", "text", "image"; see `Stage.chain`.
    """
    return _of_stages(lambda all_: [s for s in all_ if _is_in(s, name)], "chain", name=name)


@names_checked
def blocks(start: int, stop: int | None = None, chain: str | None = None) -> Selector:
    """Blocks `start` to `stop`, the last one excluded; negative numbers count from the top.

    Args:
        start: First block, from 0.
        stop: One past the last; by default all up to the top.
        chain: Name of the chain whose blocks are counted; by default those of the whole model.

    Raises:
        ModelError: When applied, if the model or the chain has fewer blocks.
    """
    check(start=start, stop=stop)
    return _blocks(start, stop, "blocks", start=start, stop=stop, chain=chain)


@names_checked
def bottom(n: int, chain: str | None = None) -> Selector:
    """The `n` blocks nearest to the input, without the embeddings.

    Args:
        n: How many.
        chain: As for `blocks`.

    Raises:
        ArgumentError: If `n` is below 1.
        ModelError: When applied, if the model or the chain has fewer blocks.
    """
    check(n=n)
    return _blocks(0, n, "bottom", n=n, chain=chain)


def biases() -> Selector:
    """Every bias, those of normalisations included."""
    return _simple(_matching(r"(^|/|_)(bias|beta)$"), "biases")


def norms() -> Selector:
    """Scale and offset of every normalisation."""
    return _simple(
        lambda model: [
            variable
            for layer in all_layers(model)
            if is_normalization(layer)
            for variable in learnable_variables(layer)
        ],
        "norms",
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
        selector = _simple(_matching(pattern), "matching", pattern=pattern)
    except re.error as error:
        raise ModelError(f"matching({pattern!r}) is no regular expression: {error}.") from None
    if description is None:
        return selector
    config = {**selector.get_config(), "description": description}
    return Selector(description, selector.matches, config)


_SIMPLE = {
    function.__name__: function
    for function in (everything, head, embeddings, chain, blocks, bottom, biases, norms, matching)
}
_COMBINED: dict[str, Callable[..., Selector]] = {
    "or": Selector.__or__,
    "and": Selector.__and__,
    "not": Selector.__invert__,
}


@names_checked
def from_config(config: Mapping[str, Any]) -> Selector:
    """The selector that `Selector.get_config` described.

    Args:
        config: For example {"select": "or", "parts": [{"select": "head"},
            {"select": "blocks", "start": -2}]}.

    Raises:
        ModelError: If it describes none.
        FinetuneError: If an argument in it is none of its function, as when that is called.
    """
    arguments = dict(config) if isinstance(config, Mapping) else {}
    kind, parts = str(arguments.pop("select", None)), arguments.pop("parts", None)
    if kind in _SIMPLE and parts is None:
        with contextlib.suppress(TypeError):  # of arguments that are missing or unknown
            return _SIMPLE[kind](**arguments)
    elif kind in _COMBINED and _count(parts) == (1 if kind == "not" else 2) and not arguments:
        return _COMBINED[kind](*map(from_config, parts))
    raise ModelError(
        'A selector in a config is a dict with "select" ('
        f"{', '.join(_SIMPLE)}) and the arguments of that function of ft.select; or with "
        f'"select" ({", ".join(_COMBINED)}) and "parts", a list of selectors; found '
        f"{repr(config)[:200]}."
    )


def _count(parts: Any) -> int:
    return len(parts) if isinstance(parts, list | tuple) else 0


def _simple(
    pick: Callable[[keras.Model], list[keras.Variable]], name: str, /, **arguments: Any
) -> Selector:
    """The selector that a function of this module gives for some arguments; None is a default."""
    given = {key: value for key, value in arguments.items() if value is not None}
    written = [f"chain={v!r}" if key == "chain" else repr(v) for key, v in given.items()]
    return Selector(f"{name}({', '.join(written)})", pick, {"select": name, **given})


def _of_stages(
    choose: Callable[[list[Stage]], list[Stage]], name: str, /, **arguments: Any
) -> Selector:
    def pick(model: keras.Model) -> list[keras.Variable]:
        return [v for stage in choose(stages(model)) for v in stage.variables]

    return _simple(pick, name, **arguments)


def _blocks(start: int, stop: int | None, name: str, /, **arguments: Any) -> Selector:
    chain = arguments["chain"]

    def choose(all_: list[Stage]) -> list[Stage]:
        found = [s for s in all_ if s.role == "block" and (chain is None or _is_in(s, chain))]
        for number in (start, stop):
            if number is not None and not -len(found) <= number <= len(found):
                where = "the model" if chain is None else f"the chain {chain!r}"
                raise ModelError(
                    f"The selector {selector} goes beyond the {len(found)} blocks of {where}."
                )
        return found[start:stop]

    selector = _of_stages(choose, name, **arguments)
    return selector


def _is_in(stage: Stage, chain: str) -> bool:
    return f"{stage.chain}/".startswith(f"{chain}/")


def _matching(pattern: str) -> Callable[[keras.Model], list[keras.Variable]]:
    compiled = re.compile(pattern)
    return lambda model: [v for v in learnable_variables(model) if compiled.search(v.path)]
