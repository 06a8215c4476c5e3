"""Learning rates by group of variables: factors on the learning rate of an optimizer.

model.compile(**ft.presets.cross_entropy(rates={ft.select.head(): 10.0}))
model.compile(**ft.presets.cross_entropy(rates=ft.training.layerwise(model)))
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from finetune_tf.base.arguments import RULES, check, shown
from finetune_tf.base.keras_internals import inner_optimizer
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.graph.pieces import learnable_variables
from finetune_tf.graph.stages import require_model
from finetune_tf.training import select
from finetune_tf.training.depths import selector_of, stages_by_depth
from finetune_tf.training.gradients import leaves
from finetune_tf.training.groups import Key, VariableGroups

Rates = Mapping[Key, float] | Iterable[tuple[Any, float]]


class RateGroups:
    """What an optimizer needs to multiply its learning rate by a factor for some variables.

    Each group has one scalar variable, so a factor that is changed takes effect at the next step
    without a new trace, and is saved with the state of the optimizer.

    Attributes:
        rate_factors: The variables that hold the factors, by the names of the groups.
    """

    def _set_rates(self, rates: Rates | None) -> None:
        given = list(rates.items() if isinstance(rates, Mapping) else rates or ())
        keys = VariableGroups.keys_from_config(key for key, _ in given)
        self._rate_groups = VariableGroups(keys, "rate")
        for name, (_, factor) in zip(self._rate_groups.names, given, strict=True):
            if not RULES["rate_factor"].accepts(factor):
                raise ArgumentError(
                    f"The rate for {name} must be a factor, {RULES['rate_factor']}, found "
                    f"{shown(factor)}. It multiplies the learning rate of the optimizer; freeze "
                    "variables that are not to be trained: ft.freeze(model, selector)."
                )
        self._first_factors = [float(factor) for _, factor in given]
        self.rate_factors: dict[str, keras.Variable] = {}

    def _build_rates(self, variables: list[keras.Variable]) -> None:
        """Creates the factors; called after the slots are created."""
        self._group_of = [self._rate_groups.index_of(variable) for variable in variables]
        # The slots of an optimizer are carried over by path, so each name is unique.
        self.rate_factors = {
            name: self.add_variable(
                (),
                keras.initializers.Constant(factor),
                dtype="float32",
                aggregation="only_first_replica",
                name=f"rate_factor_{i}",
            )
            for i, (name, factor) in enumerate(
                zip(self._rate_groups.names, self._first_factors, strict=True)
            )
        }

    def _rates_of_groups(self, learning_rate: Any) -> list[Any]:
        """Returns the learning rate of each group in float32, and in the end that of the rest."""
        rate = ops.cast(learning_rate, "float32")
        return [*(rate * ops.cast(f, "float32") for f in self.rate_factors.values()), rate]

    def _rates_of_variables(self, learning_rate: Any) -> Any:
        """Returns the learning rates in float32: one for each variable, or one for all of them."""
        rates = self._rates_of_groups(learning_rate)
        if len(rates) == 1:
            return rates[0]
        groups = [len(rates) - 1 if group is None else group for group in self._group_of]
        return ops.take(ops.stack(rates), groups)

    def _rates_config(self) -> dict[str, Any]:
        if not self._first_factors:
            return {}
        keys = self._rate_groups.get_config()
        return {"rates": [list(pair) for pair in zip(keys, self._first_factors, strict=True)]}

    def resolve_groups(self, model: keras.Model) -> None:
        """Finds the variables of each group in a model; see `VariableGroups.resolve`."""
        self._rate_groups.resolve(model)

    def factor_of(self, variable: keras.Variable) -> float | None:
        """Returns the current factor of a variable, or None if it belongs to no group."""
        i = self._rate_groups.index_of(variable)
        if i is None:
            return None
        if not self.rate_factors:
            return self._first_factors[i]
        # A variable of several devices is no number before it is read.
        factor = list(self.rate_factors.values())[i]
        return float(ops.convert_to_numpy(ops.multiply(factor, 1.0)))


class _OfKeras(RateGroups):
    """The class in front of an optimizer of Keras; see `with_rates`."""

    def __init__(self, *args: Any, rates: Rates | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _require_no_decay(self)
        self._set_rates(rates)

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self._build_rates(variables)

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Reads the factors once a step, and updates all variables in place."""
        if not self.built and trainable_variables is not None:
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))
        self._factors = self._rates_of_groups(1.0)
        super().apply(grads, trainable_variables)
        self._factors = None  # tensors of a graph must not be used after its trace

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        group = self._group_of[self._get_variable_index(variable)]
        if group is not None:
            learning_rate = ops.cast(learning_rate, "float32") * self._factors[group]
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict:
        return super().get_config() | self._rates_config()


#: Optimizers of Keras that use the learning rate only in the update of a single variable.
EXACT = (
    *("Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "Ftrl"),
    *("Lamb", "Lion", "Nadam", "RMSprop", "SGD"),
)
_CLASSES: dict[type, type] = {}
for _name in EXACT:
    _keras_class = getattr(keras.optimizers, _name)
    _made = type(f"{_name}WithRates", (_OfKeras, _keras_class), {"__module__": __name__})
    _CLASSES[_keras_class] = keras.saving.register_keras_serializable("finetune_tf")(_made)


@names_checked
def with_rates(optimizer: keras.optimizers.Optimizer, rates: Rates) -> keras.optimizers.Optimizer:
    """Returns a Keras optimizer with another learning rate for some variables.

    The result is of a subclass and does what several optimizers would do, each with the learning
    rate of its group, but with one clipping norm and one step counter. Presets call this function;
    `finetune_tf.training.AdamW` has an argument `rates` itself.

    Args:
        optimizer: An optimizer that was not used yet, without weight decay: Adadelta, Adafactor,
            Adagrad, Adam, Adamax, Ftrl, Lamb, Lion, Nadam, RMSprop or SGD.
        rates: As for `AdamW`.

    Returns:
        A new optimizer with the same settings.

    Raises:
        ModelError: If the optimizer uses its learning rate for anything but the update of a
            variable, so that the result would not be exact (keras.optimizers.AdamW, Muon, and any
            optimizer with a weight decay), or if it has been used.
        ArgumentError: If a factor is not positive.

    Example:
        >>> adam = ft.training.with_rates(keras.optimizers.Adam(1e-5), {ft.select.head(): 10.0})
        >>> model.compile(adam)
        >>> history = model.fit(train.batches(model), verbose=0)
        >>> {name: float(factor) for name, factor in adam.rate_factors.items()}
        {'head()': 10.0}
    """
    made = _CLASSES.get(type(optimizer))
    if made is None:
        raise ModelError(
            f"The optimizer {type(optimizer).__name__} cannot have rates by group. The result is "
            "exact for optimizers that use the learning rate only in the update of a single "
            f"variable: {', '.join(EXACT)}. For Adam with weight decay, use "
            "finetune_tf.training.AdamW(rates=…), or a preset with optimizer='adamw'."
        )
    _require_no_decay(optimizer)
    if optimizer.built:
        raise ModelError(
            f"The optimizer {type(optimizer).__name__} has been used already. Create a new one."
        )
    pairs = list(rates.items() if isinstance(rates, Mapping) else rates)
    return made.from_config({**optimizer.get_config(), "rates": pairs})


def _require_no_decay(optimizer: Any) -> None:
    if optimizer.weight_decay:
        raise ModelError(
            f"Rates by group do not work with the weight decay of {type(optimizer).__name__}: "
            "Keras applies it apart from the update, with the learning rate of the optimizer. "
            "Leave weight_decay out, or use finetune_tf.training.AdamW."
        )


def resolve_groups(optimizer: Any, model: keras.Model) -> None:
    """Tells an optimizer, or those inside of it, the model that its groups refer to.

    Raises:
        ModelError: If a group selects nothing in the model, or only variables of other groups.
    """
    for leaf in leaves(optimizer):
        if hasattr(leaf, "resolve_groups"):
            leaf.resolve_groups(model)


def highest_factor(optimizer: Any, variables: Iterable[keras.Variable]) -> float:
    """Returns the highest factor among variables; 1 for those that belong to no group."""
    optimizer = inner_optimizer(optimizer)
    if not has_rates(optimizer):
        return 1.0
    factors = [optimizer.factor_of(variable) for variable in variables]
    return max((1.0 if factor is None else factor for factor in factors), default=1.0)


def all_have_factors(optimizer: Any, variables: Iterable[keras.Variable]) -> bool:
    """Returns whether each of some variables belongs to a group with a factor of its own."""
    optimizer = inner_optimizer(optimizer)
    return has_rates(optimizer) and all(
        optimizer.factor_of(variable) is not None for variable in variables
    )


def has_rates(optimizer: Any) -> bool:
    """Returns whether an optimizer has rates by group."""
    optimizer = inner_optimizer(optimizer)
    return isinstance(optimizer, RateGroups) and bool(optimizer._first_factors)


@names_checked
def layerwise(model: keras.Model, decay: float = 0.9, head: float = 10.0) -> dict[Key, float]:
    """Makes factors that decrease from the highest block to the embeddings.

    Lower layers are more general, and change less if their rate is lower (Howard & Ruder 2018; Sun
    et al. 2019 for BERT; Clark et al. 2020 for ELECTRA). The learning rate of the optimizer is that
    of the highest block; each block below has `decay` times the rate of the one above it, and the
    embeddings that of the lowest block times `decay`.

    Args:
        model: A built Keras model.
        decay: The factor from one block to the one below; 1 for the same rate in all of them.
        head: The factor of the head.

    Returns:
        The `rates` of a preset or an optimizer, for any Keras model.

    Raises:
        ArgumentError: If a number is out of range.
        ModelError: If `model` is not a built Keras model.

    Example:
        >>> rates = ft.training.layerwise(model, decay=0.5, head=10.0)
        >>> {str(stages): factor for stages, factor in rates.items()}
        {'classifier': 10.0, 'pooler | block_1': 1.0, 'block_0': 0.5, 'embeddings': 0.25}
        >>> model.compile(**ft.presets.cross_entropy(rates=rates))
    """
    check(**{"layerwise.decay": decay, "layerwise.head": head})
    require_model(model)
    groups = stages_by_depth(model)
    factors = [head, *(decay**i for i in range(len(groups) - 1))]
    return {
        selector_of(model, group): float(factor)
        for group, factor in zip(groups, factors, strict=True)
        if group
    }


@names_checked
def by_pattern(model: keras.Model, rates: Mapping[Key, float]) -> dict[Key, float]:
    """Replaces the selectors of rates by regular expressions, which need no model.

    A model from `ft.load` finds the variables of selectors itself. The optimizer of any other Keras
    model does not know its model, so it needs regular expressions.

    Args:
        model: The model that will be compiled.
        rates: Factors by selector or regular expression.

    Returns:
        Factors by selectors that select by regular expressions.

    Raises:
        ModelError: If a selector matches nothing.

    Example:
        >>> layers = [keras.layers.Dense(4, "relu"), keras.layers.Dense(2)]
        >>> network = keras.Sequential([keras.Input((3,)), *layers])
        >>> rates = ft.training.by_pattern(network, {ft.select.head(): 10.0})
        >>> network.compile(**ft.presets.cross_entropy(learning_rate=1e-3, rates=rates))
        >>> {str(group): factor for group, factor in rates.items()}
        {'head()': 10.0}
    """
    require_model(model)
    groups = VariableGroups(rates, "rate")
    groups.resolve(model)
    found: dict[Key, float] = {}
    for i, (name, factor) in enumerate(zip(groups.names, rates.values(), strict=True)):
        paths = [v.path for v in learnable_variables(model) if groups.index_of(v) == i]
        pattern = f"^({'|'.join(map(re.escape, paths))})$"
        found[select.matching(pattern, name)] = factor
    return found
