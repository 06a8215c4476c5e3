"""How names of layers are matched, as in PEFT: exactly, by their end, or by regular expressions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetune_tf.base.arguments import shown
from finetune_tf.errors import ArgumentError

ALL = "all"
#: Names of layers, a regular expression, "all", or None for the default of the kind of adapter.
Targets = str | tuple[str, ...] | None


def checked_targets(targets: str | Iterable[str] | None) -> Targets:
    """Returns the argument `targets` of an adapter as a string, a tuple of names, or None.

    Raises:
        ArgumentError: If it contains something else than names, or is not a valid expression.
    """
    if targets is None or targets == ALL:
        return targets
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            raise ArgumentError(
                f"targets={targets!r} is not a valid regular expression: {error}. To name one "
                f"layer, use a list: targets=[{targets!r}]."
            ) from None
        return targets
    names = tuple(targets) if isinstance(targets, Iterable) else (targets,)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ArgumentError(
            "targets must be 'all', a list with names of layers such as ['query', 'value'], a "
            f"regular expression, or None, found {shown(targets)}."
        )
    return names


def matches(targets: str | Sequence[str], names: Sequence[str], path: str) -> bool:
    """Returns whether a layer is meant by names or by a regular expression.

    Args:
        targets: Names, of which each is the name of the layer or its end; or a regular expression,
            which has to match the complete name.
        names: Names of the layer in PyTorch, such as "bert.encoder.layer.0.attention.self.query".
        path: Its Keras path, such as "block_0/attention/query".

    Example:
        >>> from finetune_tf.adapters.patterns import matches
        >>> name, path = "h.0.attn.c_attn", "block_0/attention/query_key_value"
        >>> matches(["c_attn"], [name], path), matches(["attn"], [name], path)
        (True, False)
        >>> matches("block_[01]/.*", [name], path)
        True
    """
    if isinstance(targets, str):
        return any(re.fullmatch(targets, name) for name in (*names, path))
    return any(
        f"{separator}{name}".endswith(f"{separator}{target}")
        for target in targets
        for separator, known in ((".", names), ("/", (path,)))
        for name in known
    )


def value_for(patterns: Mapping[str, Any], names: Sequence[str], path: str, default: Any) -> Any:
    """Returns the value of the first pattern that matches the end of a layer's name.

    Args:
        patterns: Values by regular expressions for the last parts of a name.
        names: As for `matches`.
        path: As for `matches`; "." may be written in place of "/".
        default: The value if none matches.
    """
    pattern = first_match(patterns, names, path)
    return default if pattern is None else patterns[pattern]


def first_match(patterns: Iterable[str], names: Sequence[str], path: str) -> str | None:
    """Returns the first pattern that matches the end of a layer's name; see `value_for`."""
    known = (*names, path.replace("/", "."))
    for pattern in patterns:
        if any(re.match(rf"(.*\.)?({pattern})$", name) for name in known):
            return pattern
    return None


def unmatched(targets: Targets, layers: Sequence[tuple[Sequence[str], str]]) -> list[str]:
    """Returns the names and regular expressions among targets that mean none of the layers.

    Args:
        targets: As for `matches`; None and "all" name nothing.
        layers: The names and the path of each layer, as for `matches`.

    Example:
        >>> from finetune_tf.adapters.patterns import unmatched
        >>> unmatched(("query", "vaule"), [((), "block_0/attention/query")])
        ['vaule']
    """
    if targets in (None, ALL):
        return []
    each: list[str | tuple[str]] = (
        [targets] if isinstance(targets, str) else [(t,) for t in targets]
    )
    return [
        one if isinstance(one, str) else one[0]
        for one in each
        if not any(matches(one, names, path) for names, path in layers)
    ]
