"""Averages of weights: exponential over steps, and the mean of the last epochs."""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from finetune_tf import kernels
from finetune_tf.base.arguments import check
from finetune_tf.base.keras_internals import compiled_with, inner_optimizer, sync_state
from finetune_tf.base.spelling import names_checked
from finetune_tf.errors import ModelError
from finetune_tf.training.averaging import AveragedWeights, array_of, of_prefix
from finetune_tf.training.freezing import strategy_scope


class EMA(AveragedWeights):
    """Averages the weights exponentially over the steps of a fit (Polyak & Juditsky 1992).

    After each update of the weights w, the average a moves by a + (1 - d) · (w - a). The decay d
    rises with the number t of updates, d = min(decay, (1 + t) / (10 + t)), so that the average of a
    short fit is not still that of the first steps. `warmup=False` keeps d constant.

    The model is validated with the averages after each epoch, early stopping and checkpoints see
    them, and it has them after the fit. The training loss is that of the weights that are trained.
    With gradient accumulation, only complete steps count. The averages are float32, also if the
    weights are of half precision.

    Args:
        decay: The largest share that the average keeps in an update, at least 0 and below 1.
            1 / (1 - decay) is about the number of updates that it averages.
        warmup: Whether the decay is lower in the first updates.

    Raises:
        ModelError: From `fit`, if the optimizer averages weights itself (`use_ema=True`), or there
            are several steps in one execution.

    Example:
        >>> averages = ft.callbacks.EMA(decay=0.99)
        >>> history = model.fit(train.batches(model, 4), epochs=2, callbacks=[averages], verbose=0)
        >>> len(history.history["loss"])
        2
    """

    @names_checked
    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        check(**{"EMA.decay": decay})
        super().__init__()
        self._decay, self._warmup = float(decay), bool(warmup)
        self._reset()

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, which a resumed fit has to share."""
        return {"decay": self._decay, "warmup": self._warmup}

    def _reset(self) -> None:
        self._variables: dict[int, keras.Variable] = {}
        self._counters: tuple[keras.Variable, keras.Variable] | None = None

    def _check_fit(self) -> None:
        super()._check_fit()
        if compiled_with(self.model, "steps_per_execution") not in (None, 1):
            raise ModelError(
                "EMA averages the weights of each step, but with steps_per_execution, it sees only "
                "the last of several. Compile with steps_per_execution=1."
            )

    def _enter(self, places: list[int]) -> None:
        with strategy_scope(self.model):
            if self._counters is None:
                updates = [0, ops.convert_to_numpy(self._done())]
                self._counters = tuple(_counter(int(count)) for count in updates)
            for i in places:
                variable = self._candidates[i]
                wide = variable.dtype if variable.dtype == "float64" else "float32"
                value = ops.convert_to_numpy(ops.cast(variable.value, wide))
                self._variables[i] = keras.Variable(value, dtype=wide, trainable=False)
        values = [self._candidates[i] for i in self._variables]
        move = functools.partial(
            _move, self._decay, self._warmup, self._counters, [*self._variables.values()], values
        )
        self._move = kernels.traced(move)

    def _members(self) -> list[int]:
        return list(self._variables)

    def _done(self) -> Any:
        """Returns the number of weight updates that the optimizer has made."""
        # A copy, because JAX frees the arrays that a step has read.
        return ops.copy(ops.cast(inner_optimizer(self.model.optimizer).iterations, "int32"))

    def _follow_steps(self) -> None:
        if self._counters is None:
            return
        sync_state(self.model)
        with strategy_scope(self.model):
            self._move(self._done())

    def _averages(self) -> dict[int, Any]:
        return {i: variable.value for i, variable in self._variables.items()}

    def _state(self) -> dict[str, Any]:
        counts = [int(ops.convert_to_numpy(counter)) for counter in self._counters or ()]
        averages = {f"average/{i}": array_of(value) for i, value in self._averages().items()}
        return {"counts": counts, **averages}

    def _restore(self, state: Mapping[str, Any]) -> None:
        averages = of_prefix(state, "average")
        self._enter(list(averages))
        for i, value in averages.items():
            self._variables[i].assign(value)
        for counter, count in zip(self._counters, state["counts"], strict=True):
            counter.assign(int(count))


class AverageLast(AveragedWeights):
    """Averages the weights of the ends of the last epochs.

    At the end of each epoch, the model has the mean of the weights at the ends of the last
    `epochs` epochs, or of all epochs so far if they are fewer. It is validated with these weights
    and has them after the fit. With a learning rate that stays high until the end, this is
    stochastic weight averaging (Izmailov et al. 2018); the average at each epoch is that of Kaddour
    2022. The weights of the epochs are kept in main memory.

    Args:
        epochs: The number of epochs whose weights are averaged.

    Raises:
        ModelError: From `fit`, if the optimizer averages weights itself (`use_ema=True`).

    Example:
        >>> averages = ft.callbacks.AverageLast(epochs=2)
        >>> history = model.fit(train.batches(model, 4), epochs=3, callbacks=[averages], verbose=0)
        >>> len(history.history["loss"])
        3
    """

    @names_checked
    def __init__(self, epochs: int = 3) -> None:
        check(epochs=epochs)
        super().__init__()
        self._epochs = epochs
        self._reset()

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, which a resumed fit has to share."""
        return {"epochs": self._epochs}

    def _reset(self) -> None:
        self._places: list[int] = []
        self._ends: list[dict[int, np.ndarray]] = []

    def _enter(self, places: list[int]) -> None:
        # Until now, the variable had its present value at the end of each epoch.
        for i in places:
            value = array_of(self._candidates[i].value) if self._ends else None
            for end in self._ends:
                end[i] = value
        self._places += places

    def _members(self) -> list[int]:
        return self._places

    def _follow_steps(self) -> None:
        """Does nothing: only the weights at the ends of epochs count."""

    def _averages(self) -> dict[int, Any]:
        self._ends.append({i: array_of(self._candidates[i].value) for i in self._places})
        del self._ends[: -self._epochs]
        return {i: _mean([end[i] for end in self._ends]) for i in self._places}

    def _state(self) -> dict[str, Any]:
        ends = {f"end{n}/{i}": v for n, end in enumerate(self._ends) for i, v in end.items()}
        return {"places": list(self._places), "ends": len(self._ends), **ends}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._places = [int(place) for place in state["places"]]
        self._ends = [of_prefix(state, f"end{n}") for n in range(int(state["ends"]))]


def _move(
    decay: float, warmup: bool, counters: tuple, averages: list, values: list, done: Any
) -> None:
    """Moves averages towards values if the optimizer has made an update since the last call."""
    updates, seen = counters

    def move() -> Any:
        count = updates.value + 1
        steps = ops.cast(count, "float32")
        share = ops.convert_to_tensor(1.0 - decay, "float32")
        if warmup:
            share = ops.maximum(9.0 / (10.0 + steps), share)  # 1 - (1 + t) / (10 + t)
        kernels.move_towards(averages, values, share)
        updates.assign(count)
        seen.assign(done)
        return done

    if keras.backend.backend() == "tensorflow":  # inside of a trace
        ops.cond(done > seen.value, move, lambda: done)
    elif done > seen.value:
        move()


def _counter(value: int) -> keras.Variable:
    return keras.Variable(value, dtype="int32", trainable=False, aggregation="only_first_replica")


def _mean(arrays: list[np.ndarray]) -> np.ndarray:
    total = arrays[0].astype("float64")
    for array in arrays[1:]:
        total += array
    return (total / len(arrays)).astype(np.result_type(arrays[0].dtype, "float32"))
