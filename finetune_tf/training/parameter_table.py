"""The parameters of a model by stage, as a table."""

import html
from dataclasses import asdict, dataclass
from typing import Any

import keras

from finetune_tf.base.keras_internals import inner_optimizer
from finetune_tf.base.spelling import names_checked
from finetune_tf.graph.stages import stages

_HEADER = ("stage", "role", "parameters", "trainable", "dtype", "rate factor")


@dataclass(frozen=True)
class StageParameters:
    """The parameters of a stage.

    Attributes:
        stage: The name of the stage; "other" for what belongs to none.
        role: The role of the stage.
        parameters: The number of all parameters, including statistics of batch normalization.
        trainable: The number of trainable parameters.
        dtype: The dtype policy of its layers.
        rate_factor: The factor of its learning rate; None if the optimizer has no such factors, or
            those of the stage differ.
    """

    stage: str
    role: str
    parameters: int
    trainable: int
    dtype: str
    rate_factor: float | None


@dataclass(frozen=True)
class ParameterTable:
    """The parameters of a model by stage; `parameter_table` makes it.

    Attributes:
        name: The name of the model.
        rows: One for each stage, from the inputs to the outputs.

    Example:
        >>> table = ft.parameter_table(model)
        >>> [row.stage for row in table.rows]
        ['embeddings', 'block_0', 'block_1', 'pooler', 'classifier']
    """

    name: str
    rows: tuple[StageParameters, ...]

    @property
    def parameters(self) -> int:
        """The number of all parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """The number of trainable parameters."""
        return sum(row.trainable for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns the table as plain values, for `json.dumps`."""
        totals = {"parameters": self.parameters, "trainable": self.trainable}
        return {"name": self.name, **totals, "stages": [asdict(row) for row in self.rows]}

    def _cells(self) -> list[tuple[str, ...]]:
        """The header, a row for each stage, and the sums."""
        has_factors = any(row.rate_factor is not None for row in self.rows)
        total = StageParameters("total", "", self.parameters, self.trainable, "", None)
        cells = [_HEADER]
        for row in (*self.rows, total):
            factor = "" if row.rate_factor is None else f"{row.rate_factor:g}"
            counts = f"{row.parameters:,}", f"{row.trainable:,}"
            cells.append((row.stage, row.role, *counts, row.dtype, factor))
        return [row if has_factors else row[:-1] for row in cells]

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for row in cells:
            parts = [
                text.rjust(width) if _is_number(i) else text.ljust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(parts).rstrip())
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for notebooks."""
        header, *rows = self._cells()
        lines = ["".join(f"<th>{html.escape(text)}</th>" for text in header)]
        for row in rows:
            cells = (
                f'<td style="text-align: {"right" if _is_number(i) else "left"}">'
                f"{html.escape(text)}</td>"
                for i, text in enumerate(row)
            )
            lines.append("".join(cells))
        return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


@names_checked
def parameter_table(model: keras.Model) -> ParameterTable:
    """Counts the parameters of a model by stage, and how many of them are trained.

    Args:
        model: A built Keras model. For the upper part of one from `cache_features`, the table is
            that of the whole model.

    Returns:
        A table that is printed, and shown by notebooks, in rows; `to_dict` returns its values.

    Raises:
        ModelError: If `model` is not a Keras model or has no weights yet.

    Example:
        >>> ft.train_only(model, ft.select.head())
        >>> print(ft.parameter_table(model))
        stage       role        parameters  trainable  dtype
        embeddings  embeddings       1,392          0  float32
        block_0     block            4,088          0  float32
        block_1     block            4,088          0  float32
        pooler      pooler             600          0  float32
        classifier  head                50         50  float32
        total                       10,218         50
    """
    optimizer = getattr(model, "optimizer", None)
    whole = getattr(model, "whole", model)
    seen: set[int] = set()
    rows = []

    def row(name: str, role: str, variables: list, dtype: str) -> StageParameters:
        new = list({id(v): v for v in variables if id(v) not in seen}.values())
        seen.update(map(id, new))
        factors = {rate_factor(optimizer, v) for v in new if v.trainable}
        return StageParameters(
            stage=name,
            role=role,
            parameters=_count(new),
            trainable=_count([v for v in new if v.trainable]),
            dtype=dtype,
            rate_factor=next(iter(factors)) if len(factors) == 1 else None,
        )

    for stage in stages(whole):
        weights = [v for layer in stage.layers for v in layer.weights]
        dtypes = dict.fromkeys(layer.dtype_policy.name for layer in stage.layers)
        rows.append(row(stage.name, stage.role, weights, ", ".join(dtypes)))
    other = row("other", "", whole.weights, "")
    return ParameterTable(whole.name, (*rows, *([other] if other.parameters else [])))


def rate_factor(optimizer: Any, variable: keras.Variable) -> float | None:
    """Returns the factor of the learning rate of a variable; None without such factors.

    An optimizer with factors has a method `factor_of`, which returns None for a variable without a
    factor of its own, and names its factors as "rates" in its config.
    """
    optimizer = inner_optimizer(optimizer)
    factor_of = getattr(optimizer, "factor_of", None)
    if factor_of is None:
        return None
    factor = factor_of(variable)
    if factor is not None:
        return float(factor)
    return 1.0 if "rates" in optimizer.get_config() else None


def _count(variables: list[keras.Variable]) -> int:
    return sum(int(keras.ops.size(variable)) for variable in variables)


def _is_number(column: int) -> bool:
    return _HEADER[column] in ("parameters", "trainable", "rate factor")
