"""What an adapter is: LoRA, IA3 or a bottleneck, with the layers that get one."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from finetune_tf.adapters.patterns import (
    ALL,
    Targets,
    checked_targets,
    first_match,
    matches,
    unmatched,
    value_for,
)
from finetune_tf.base.arguments import check, shown
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError
from finetune_tf.kernels import activation as check_activation


class Settings:
    """Base class of the kinds of adapters.

    Attributes:
        kind: The name of the kind.
        targets: Which layers get an adapter.
        default_parts: The ends of the Keras paths of layers that get one by default.
    """

    kind: str
    targets: Targets
    default_parts: tuple[str, ...]

    def arguments_for(self, names: Sequence[str], path: str) -> dict[str, Any]:
        """Returns the arguments of the layer in `adapters.layers` for one adapted layer.

        Args:
            names: The names of the adapted layer in PyTorch; empty if it has none.
            path: Its Keras path.
        """
        raise NotImplementedError

    def without_effect(
        self, layers: Sequence[tuple[Sequence[str], str]]
    ) -> Iterator[tuple[str, str]]:
        """Yields the argument and the text of each name or pattern that means none of the layers.

        Args:
            layers: The names in PyTorch and the Keras path of each adapted layer.
        """
        for name in unmatched(self.targets, layers):
            yield "targets", name

    def __repr__(self) -> str:
        parameters = inspect.signature(type(self).__init__).parameters
        values = {name: getattr(self, name) for name in parameters if name != "self"}
        given = [
            f"{name}={list(value) if isinstance(value, tuple) else value!r}"
            for name, value in values.items()
            if (value or None) != (parameters[name].default or None)
        ]
        return f"{self.kind}({', '.join(given)})"


class LoRA(Settings):
    r"""Low-rank adaptation: the kernel W is frozen, and a product of two narrow matrices is added.

    $$y = x W + \frac{\alpha}{r} \, x A B$$

    (Hu et al. 2021). B starts at 0, so that the model starts unchanged. Merged into W, the adapter
    costs nothing in predictions.

    Args:
        rank: r, the number of columns of A.
        alpha: The product is multiplied by alpha / rank.
        dropout: Dropout rate of the input of A in training.
        use_rslora: Whether the factor is alpha / sqrt(rank), which does not shrink the gradients of
            high ranks (rsLoRA, Kalajdzievski 2023).
        use_dora: Whether the norm of each column of the sum is a variable of its own (DoRA, Liu et
            al. 2024), which helps most at low ranks and costs time.
        targets: Which layers get an adapter. None are the projections of queries and values in the
            attention of each block, or their fused projection where the family has one; "all" are
            all Dense layers of the blocks. A list contains names of layers, as in PEFT
            ("q_proj", "attention.output.dense") or as in Keras ("attention/query"); any other
            string is a regular expression that has to match the complete name.
        rank_pattern: Ranks of some layers: a dict from a regular expression, which has to match the
            end of the name of a layer, to the rank. The first match counts.
        alpha_pattern: The same for `alpha`.
        bias: Which biases of the model are trained with the adapter: "none", "lora_only" for those
            of the adapted layers, or "all".

    Raises:
        ArgumentError: If an argument is out of range.

    Example:
        >>> ft.adapters.LoRA(rank=4, targets="all", rank_pattern={"attention.query": 8})
        LoRA(rank=4, targets='all', rank_pattern={'attention.query': 8})
    """

    kind = "LoRA"
    default_parts = ("query", "value", "query_key_value")

    @names_checked
    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16,
        dropout: float = 0.0,
        use_rslora: bool = False,
        use_dora: bool = False,
        targets: str | Iterable[str] | None = None,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        bias: Literal["none", "all", "lora_only"] = "none",
    ) -> None:
        check(rank=rank, alpha=alpha, dropout=dropout)
        for value in (rank_pattern or {}).values():
            check(rank=value)
        for value in (alpha_pattern or {}).values():
            check(alpha=value)
        if bias not in ("none", "all", "lora_only"):
            raise ArgumentError(f"bias must be 'none', 'all' or 'lora_only', found {shown(bias)}.")
        self.rank, self.alpha, self.dropout = rank, alpha, dropout or 0.0
        self.use_rslora, self.use_dora, self.bias = use_rslora, use_dora, bias
        self.targets = checked_targets(targets)
        self.rank_pattern, self.alpha_pattern = dict(rank_pattern or {}), dict(alpha_pattern or {})

    def arguments_for(self, names: Sequence[str], path: str) -> dict[str, Any]:
        """Returns the arguments of `layers.LowRank` for one layer."""
        return {
            "rank": int(value_for(self.rank_pattern, names, path, self.rank)),
            "alpha": value_for(self.alpha_pattern, names, path, self.alpha),
            "dropout": self.dropout,
            "use_rslora": bool(self.use_rslora),
            "use_dora": bool(self.use_dora),
            "bias": self.bias,
        }

    def without_effect(
        self, layers: Sequence[tuple[Sequence[str], str]]
    ) -> Iterator[tuple[str, str]]:
        """As for all kinds; of patterns, the first one that matches a layer counts."""
        yield from super().without_effect(layers)
        for argument in ("rank_pattern", "alpha_pattern"):
            patterns = getattr(self, argument)
            used = {first_match(patterns, *layer) for layer in layers}
            yield from ((argument, pattern) for pattern in patterns if pattern not in used)


class IA3(Settings):
    """A learned factor for each feature of keys, values and the hidden layer of the feed-forward.

    The factors start at 1 (IA3, Liu et al. 2022). They are the smallest of these adapters: 10 to 20
    times fewer parameters than `LoRA` of rank 8.

    Args:
        targets: Which layers get an adapter, as for `LoRA`; by default the projections of keys and
            values, or the fused one, and the last layer of the feed-forward part of each block.
        feed_forward: Which of them multiply their input instead of their output, with names as in
            `targets`; by default the last layer of the feed-forward part.

    Example:
        >>> _ = ft.adapters.add(model, ft.adapters.IA3())
        >>> len(ft.select.adapters()(model))
        6
    """

    kind = "IA3"
    default_parts = ("key", "value", "query_key_value", "feed_forward/output")

    @names_checked
    def __init__(
        self,
        targets: str | Iterable[str] | None = None,
        feed_forward: str | Iterable[str] | None = None,
    ) -> None:
        self.targets = checked_targets(targets)
        self.feed_forward = checked_targets(feed_forward)
        if self.feed_forward == ALL:
            self.feed_forward = ".*"  # of the adapted layers

    def arguments_for(self, names: Sequence[str], path: str) -> dict[str, Any]:
        """Returns the arguments of `layers.Factors` for one layer."""
        return {"on_input": matches(self.feed_forward or ["feed_forward/output"], names, path)}

    def without_effect(
        self, layers: Sequence[tuple[Sequence[str], str]]
    ) -> Iterator[tuple[str, str]]:
        """As for all kinds; also those of `feed_forward`."""
        yield from super().without_effect(layers)
        for name in unmatched(self.feed_forward, layers):
            yield "feed_forward", name


class Bottleneck(Settings):
    r"""A small network with a residual after the two halves of each block (Houlsby et al. 2019).

    $$y' = y + \mathrm{act}(y W_1 + b_1) W_2 + b_2$$

    W2 starts at 0, so that the model starts unchanged. PEFT has no such adapter, and it cannot be
    merged, so it is saved in `.keras` files only. The authors train the normalizations as well:
    `ft.train_only(model, ft.select.adapters() | ft.select.head() | ft.select.norms())`.

    Args:
        size: The width of the small network.
        activation: Its activation, a Hugging Face name.
        style: "houlsby" for one after the attention and one after the feed-forward part;
            "pfeiffer" for the latter alone, which is about as good (Pfeiffer et al. 2021).
        targets: The layers with an adapter after them, as for `LoRA`, instead of those of `style`.

    Raises:
        ArgumentError: If an argument is out of range.
        CheckpointError: If there is no such activation.

    Example:
        >>> _ = ft.adapters.add(model, ft.adapters.Bottleneck(size=16))
        >>> len({v.path.rpartition("/")[0] for v in ft.select.adapters()(model)})
        4
    """

    kind = "Bottleneck"

    @names_checked
    def __init__(
        self,
        size: int = 64,
        activation: str = "gelu",
        style: Literal["houlsby", "pfeiffer"] = "houlsby",
        targets: str | Iterable[str] | None = None,
    ) -> None:
        check(size=size)
        check_activation(activation)
        if style not in ("houlsby", "pfeiffer"):
            raise ArgumentError(f"style must be 'houlsby' or 'pfeiffer', found {shown(style)}.")
        self.size, self.activation, self.targets = size, activation, checked_targets(targets)
        self.style, self.default_parts = style, ("feed_forward/output",)
        if style == "houlsby":
            self.default_parts += ("attention/output", "cross_attention/output")

    def arguments_for(self, names: Sequence[str], path: str) -> dict[str, Any]:
        """Returns the arguments of `layers.NarrowNetwork`, which are those of all layers."""
        return {"size": int(self.size), "activation": self.activation}
