"""Selectors of model variables, for freezing and training parts of a model.

Selectors combine with `|`, `&` and `~` and work on any Keras model that has stages:

    ft.freeze(model, ft.select.embeddings() | ft.select.bottom(6))
    ft.train_only(model, ft.select.head() | ft.select.biases())      # BitFit, Ben Zaken et al. 2022

Combinations are set operations, so a part may match nothing: `~head()` selects everything in a
model without a head. Only the complete selector has to match something when it is applied.

A selector can be converted to JSON and back:

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
from finetune_tf.training.selector import Selector


def everything() -> Selector:
    """Selects all variables that can be trained.

    Example:
        >>> ft.train_only(model, ft.select.everything())  # unfreezes the model
        >>> all(variable.trainable for variable in model.weights)
        True
    """
    return _named_selector(learnable_variables, "everything")


def head() -> Selector:
    """Selects the head: the layers of the task, and layers that the checkpoint did not train.

    Example:
        >>> [variable.path for variable in ft.select.head()(model)]
        ['classifier/dense/kernel', 'classifier/dense/bias']
    """
    return _stage_selector(lambda all_: [stage for stage in all_ if stage.role == "head"], "head")


def embeddings() -> Selector:
    """Selects the embedding stages: token embeddings, or patch embeddings of a vision model.

    Example:
        >>> ft.freeze(model, ft.select.embeddings())
        >>> any(variable.trainable for variable in ft.stages(model)[0].variables)
        False
    """
    return _stage_selector(
        lambda all_: [stage for stage in all_ if stage.role == "embeddings"], "embeddings"
    )


@names_checked
def chain(name: str) -> Selector:
    """Selects all stages of a chain, in a model with several chains such as an encoder-decoder.

    Args:
        name: The name of the chain, such as "encoder", "decoder", "text" or "image"; see
            `Stage.chain`.

    Example:
        >>> ft.select.chain("encoder") & ft.select.bottom(6, chain="encoder")
        (chain('encoder') & bottom(6, chain='encoder'))
    """
    return _stage_selector(
        lambda all_: [s for s in all_ if _is_in_chain(s, name)], "chain", name=name
    )


@names_checked
def blocks(start: int, stop: int | None = None, chain: str | None = None) -> Selector:
    """Selects the blocks from `start` to `stop` (exclusive), as a slice.

    Args:
        start: The first block, counted from 0; negative numbers count from the top.
        stop: One past the last block; None selects up to the top.
        chain: The name of the chain whose blocks are counted; by default, all blocks of the model.

    Raises:
        ModelError: When applied, if the model or the chain has fewer blocks.

    Example:
        >>> sorted({v.path.split("/")[0] for v in ft.select.blocks(-1)(model)})  # the last block
        ['block_1']
    """
    check(start=start, stop=stop)
    return _block_selector(start, stop, "blocks", start=start, stop=stop, chain=chain)


@names_checked
def bottom(n: int, chain: str | None = None) -> Selector:
    """Selects the `n` blocks closest to the input, without the embeddings.

    Args:
        n: The number of blocks.
        chain: As for `blocks`.

    Raises:
        ArgumentError: If `n` is below 1.
        ModelError: When applied, if the model or the chain has fewer blocks.

    Example:
        >>> ft.freeze(model, ft.select.embeddings() | ft.select.bottom(1))
    """
    check(n=n)
    return _block_selector(0, n, "bottom", n=n, chain=chain)


def biases() -> Selector:
    """Selects all biases, including those of normalization layers.

    Example:
        >>> ft.train_only(model, ft.select.head() | ft.select.biases())  # BitFit
    """
    return _named_selector(_matching(r"(^|/|_)(bias|beta)$"), "biases")


def norms() -> Selector:
    """Selects the scale and offset of all normalization layers.

    Example:
        >>> {variable.path.split("/")[-1] for variable in ft.select.norms()(model)} == {
        ...     "gamma",
        ...     "beta",
        ... }
        True
    """
    return _named_selector(
        lambda model: [
            variable
            for layer in all_layers(model)
            if is_normalization(layer)
            for variable in learnable_variables(layer)
        ],
        "norms",
    )


@names_checked
def adapters(name: str | None = None) -> Selector:
    """Selects the variables of adapters that `ft.adapters.add` added to a model.

    Args:
        name: The name of the adapters; by default those of all names.

    Example:
        >>> ft.adapters.add(model, ft.adapters.LoRA(rank=2))
        >>> ft.train_only(model, ft.select.adapters() | ft.select.head() | ft.select.norms())
    """
    return _named_selector(
        lambda model: [
            variable
            for layer in all_layers(model)
            if (found := getattr(layer, "adapter_name", None)) and name in (None, found)
            for variable in learnable_variables(layer)
        ],
        "adapters",
        name=name,
    )


@names_checked
def matching(pattern: str, description: str | None = None) -> Selector:
    """Selects the variables whose path contains a match of a regular expression.

    Args:
        pattern: A regular expression for `variable.path`, such as r"attention/(query|value)".
        description: The text of the selector in messages; by default the call.

    Raises:
        ModelError: If the pattern is not a valid regular expression.

    Example:
        >>> len(ft.select.matching(r"attention/(query|value)/kernel")(model))
        4
    """
    try:
        selector = _named_selector(_matching(pattern), "matching", pattern=pattern)
    except re.error as error:
        raise ModelError(
            f"The pattern of matching({pattern!r}) is not a valid regular expression: {error}."
        ) from None
    if description is None:
        return selector
    config = {**selector.get_config(), "description": description}
    return Selector(description, selector.matches, config)


_FUNCTIONS = (everything, head, embeddings, chain, blocks, bottom, biases, norms)
_FUNCTIONS += (adapters, matching)
_BASIC = {function.__name__: function for function in _FUNCTIONS}
_COMBINED: dict[str, Callable[..., Selector]] = {
    "or": Selector.__or__,
    "and": Selector.__and__,
    "not": Selector.__invert__,
}


@names_checked
def from_config(config: Mapping[str, Any]) -> Selector:
    """Creates a selector from the result of `Selector.get_config`.

    Args:
        config: For example {"select": "or", "parts": [{"select": "head"},
            {"select": "blocks", "start": -2}]}.

    Returns:
        The selector.

    Raises:
        ModelError: If the config does not describe a selector.
        FinetuneError: If the function of the selector rejects an argument.

    Example:
        >>> ft.select.from_config({"select": "not", "parts": [{"select": "bottom", "n": 2}]})
        ~bottom(2)
    """
    arguments = dict(config) if isinstance(config, Mapping) else {}
    kind, parts = str(arguments.pop("select", None)), arguments.pop("parts", None)
    if kind in _BASIC and parts is None:
        with contextlib.suppress(TypeError):  # arguments are missing or unknown
            return _BASIC[kind](**arguments)
    elif kind in _COMBINED and _length(parts) == (1 if kind == "not" else 2) and not arguments:
        return _COMBINED[kind](*map(from_config, parts))
    raise ModelError(
        'The config of a selector must be a dict with "select" ('
        f"{', '.join(_BASIC)}) and the arguments of that function of ft.select, or with "
        f'"select" ({", ".join(_COMBINED)}) and "parts", a list of selectors; found '
        f"{repr(config)[:200]}."
    )


_NAMES = (*_BASIC, "from_config")


def __getattr__(name: str) -> Any:
    """Names the selectors where there is none of the name.

    Raises:
        AttributeError: Always.
    """
    raise AttributeError(f"There is no selector {name!r}; there are: {', '.join(_NAMES)}.")


def _length(parts: Any) -> int:
    return len(parts) if isinstance(parts, list | tuple) else 0


def _named_selector(
    pick: Callable[[keras.Model], list[keras.Variable]], name: str, /, **arguments: Any
) -> Selector:
    """Creates the selector of a function of this module; arguments that are None are defaults."""
    given = {key: value for key, value in arguments.items() if value is not None}
    formatted = [f"chain={v!r}" if key == "chain" else repr(v) for key, v in given.items()]
    return Selector(f"{name}({', '.join(formatted)})", pick, {"select": name, **given})


def _stage_selector(
    choose: Callable[[list[Stage]], list[Stage]], name: str, /, **arguments: Any
) -> Selector:
    def pick(model: keras.Model) -> list[keras.Variable]:
        return [v for stage in choose(stages(model)) for v in stage.variables]

    return _named_selector(pick, name, **arguments)


def _block_selector(start: int, stop: int | None, name: str, /, **arguments: Any) -> Selector:
    chain = arguments["chain"]

    def choose(all_: list[Stage]) -> list[Stage]:
        found = [s for s in all_ if s.role == "block" and (chain is None or _is_in_chain(s, chain))]
        for bound in (start, stop):
            if bound is not None and not -len(found) <= bound <= len(found):
                owner = "the model" if chain is None else f"the chain {chain!r}"
                raise ModelError(
                    f"The selector {selector} selects blocks beyond the {len(found)} blocks of "
                    f"{owner}."
                )
        return found[start:stop]

    selector = _stage_selector(choose, name, **arguments)
    return selector


def _is_in_chain(stage: Stage, chain: str) -> bool:
    return f"{stage.chain}/".startswith(f"{chain}/")


def _matching(pattern: str) -> Callable[[keras.Model], list[keras.Variable]]:
    compiled = re.compile(pattern)
    return lambda model: [v for v in learnable_variables(model) if compiled.search(v.path)]
