"""Access to a running `fit` of Keras, its data and its random numbers, in one place.

Keras gives a callback neither the other callbacks nor the data of a fit. They are local variables
of the running `fit`, and their private attributes are used here only; see also `keras_internals`.
`tests/package/test_keras_fits.py` tests every function with the installed version.
"""

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

_SEED, _SEEDS = "global_random_seed", "global_seed_generator"


@dataclass(frozen=True, eq=False)
class RunningFit:
    """The local variables of a running `fit`.

    Attributes:
        model: The fitted model.
        callbacks: All callbacks, those that Keras adds included.
        data: The iterator over the batches of each epoch.
        validation_data: The validation data, or None.
        epochs: The number of epochs.
        initial_epoch: The epoch that was passed to `fit`.
        class_weight: As it was passed to `fit`.
    """

    model: keras.Model
    callbacks: keras.callbacks.CallbackList
    data: Any
    validation_data: Any
    epochs: int
    initial_epoch: int
    class_weight: Any


def running_fit() -> RunningFit | None:
    """Returns the fit that is running in this thread, for a callback that it calls; or None."""
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals if frame.f_code.co_name == "fit" else {}
        if "epoch_iterator" in found and "callbacks" in found:
            return RunningFit(
                found["self"],
                found["callbacks"],
                found["epoch_iterator"],
                found["validation_data"],
                found["epochs"],
                found["initial_epoch"],
                found["class_weight"],
            )
        frame = frame.f_back
    return None


def enclose_callbacks(fit: RunningFit, first: Any, last: Any) -> None:
    """Adds a callback before and one after all others of a fit, while `on_train_begin` runs.

    `first` is not called before the first epoch; `on_train_begin` of `last` is called.
    """
    for callback in (first, last):
        callback.set_model(fit.model)
        callback.set_params(fit.callbacks.params)
    called_now = fit.callbacks.callbacks
    fit.callbacks.callbacks = [first, *called_now, last]
    called_now.append(last)


def finish_callbacks(fit: RunningFit) -> None:
    """Waits for the callbacks that Keras runs in other threads."""
    fit.callbacks._flush_futures()


def history_of(fit: RunningFit) -> Any:
    """Returns the History callback of a fit."""
    return fit.callbacks._history


def begin_at_epoch(model: keras.Model, epoch: int | None) -> None:
    """Makes a fit, whose `on_train_begin` runs, begin at this epoch; None for its first one."""
    model._initial_epoch = epoch


def begin_at_step(
    data: Any, step: int, prepare: Callable[[Any], None], batches: int | None
) -> None:
    """Makes the next epoch of a fit begin at this step.

    Args:
        data: `RunningFit.data`.
        step: The number of steps to leave out. The iterator of the epoch is not moved.
        prepare: Called with the iterator of the epoch before its first step.
        batches: The number of batches that Keras counted in an earlier epoch, or None.
    """
    all_steps = data._enumerate_iterator
    if batches is not None:
        data._num_batches = batches

    def rest() -> Iterator[tuple[int, int, Any]]:
        del data._enumerate_iterator  # of this object alone, for this epoch alone
        is_prepared = False
        for begin, end, iterator in all_steps():
            if begin >= step:
                if not is_prepared:
                    prepare(iterator)
                    is_prepared = True
                yield begin, end, iterator

    data._enumerate_iterator = rest


def batches_of_epoch(data: Any) -> int | None:
    """Returns how many batches an epoch has, as far as Keras knows."""
    return data._num_batches


def steps_per_epoch(data: Any) -> int | None:
    """Returns the argument `steps_per_epoch` of a fit."""
    return data.steps_per_epoch


class Opened:
    """Counts how many iterators Keras opens over the batches of a fit or of its validation.

    Args:
        data: `RunningFit.data`, or `validation_of(model)`.

    Attributes:
        count: The number of iterators so far.
        is_lazy: Whether an iterator is opened when it is read, as on JAX.
        numpy_state: The state of NumPy's global generator before the newest iterator was opened.
    """

    def __init__(self, data: Any) -> None:
        self.count, self.numpy_state = 0, np.random.get_state()
        self.is_lazy = keras.backend.backend() == "jax"
        get_iterator = data._get_iterator

        def opened() -> Any:
            self._note()
            return get_iterator()

        def opened_when_read() -> Iterator[Any]:
            self._note()
            yield from get_iterator()

        data._get_iterator = opened_when_read if self.is_lazy else opened

    def open(self, data: Any, count: int) -> None:
        """Opens iterators until there were as many; each takes a seed of a shuffled dataset."""
        while self.count < count:
            iterator = iter(data._get_iterator())
            if self.is_lazy:
                next(iterator, None)

    def _note(self) -> None:
        self.count, self.numpy_state = self.count + 1, np.random.get_state()


def validation_of(model: keras.Model) -> Any:
    """Returns the iterator over the validation batches of a fit while it evaluates, or None."""
    return getattr(model, "_eval_epoch_iterator", None)


@dataclass(frozen=True, eq=False)
class FitData:
    """What a fit or its validation reads.

    Attributes:
        kind: "dataset", "arrays", or the name of Keras's class for everything else.
        dataset: The tf.data.Dataset, or the keras.utils.PyDataset, if there is one. Only JAX reads
            a PyDataset in step with the fit, so on TensorFlow it is None.
        arrays: The arrays, nested as they were given.
        shuffle: As in `fit`, for arrays and for a keras.utils.PyDataset.
        shuffle_seeds: For shuffled arrays of TensorFlow, as for `shuffle_seeds`. Each epoch has
            the same order.
        is_drawn: Whether NumPy's global generator draws the order of shuffled arrays in each epoch,
            as on JAX.
    """

    kind: str
    dataset: Any = None
    arrays: Any = None
    shuffle: Any = False
    shuffle_seeds: tuple[int, int] = (0, 0)
    is_drawn: bool = False


def data_of(data: Any) -> FitData:
    """Returns what the iterator over the batches of a fit or of its validation reads."""
    adapter = data.data_adapter
    kind = type(adapter).__name__
    if kind == "TFDatasetAdapter":
        return FitData("dataset", adapter._dataset)
    if kind == "ArrayDataAdapter":
        shuffle, seeds = adapter._shuffle, (0, 0)
        is_drawn = bool(shuffle) and keras.backend.backend() == "jax"
        if shuffle and not is_drawn:
            seeds = _seeds_of_permutation(adapter.get_tf_dataset())
        return FitData("arrays", None, adapter._inputs, shuffle, seeds, is_drawn)
    kind = kind.removesuffix("Adapter")
    if kind == "PyDataset" and keras.backend.backend() == "jax":
        return FitData(kind, adapter.py_dataset, shuffle=adapter.shuffle)
    return FitData(kind)


def dataset_of(data: Any) -> Any:
    """Returns the dataset that the batches of a fit or an evaluation come from; None for arrays."""
    adapter = data.data_adapter
    return getattr(adapter, "py_dataset", getattr(adapter, "_dataset", None))


def _seeds_of_permutation(dataset: Any) -> tuple[int, int]:
    for function in dataset._functions():
        for node in function.function.graph.as_graph_def().node:
            if node.op == "RandomShuffle":
                return node.attr["seed"].i, node.attr["seed2"].i
    for parent in parents_of(dataset):
        if (found := _seeds_of_permutation(parent)) != (0, 0):
            return found
    return (0, 0)


def parents_of(dataset: Any) -> list[Any]:
    """Returns the datasets that a tf.data.Dataset is made of."""
    return list(dataset._inputs())


def operations_in(dataset: Any) -> set[str]:
    """Returns the kinds of TensorFlow operations in the functions of a dataset, without parents."""
    found: set[str] = set()
    for function in dataset._functions():
        graph = function.function.graph.as_graph_def()
        found.update(node.op for node in graph.node)
        found.update(node.op for inner in graph.library.function for node in inner.node_def)
    return found


def shuffle_seeds(dataset: Any) -> tuple[int, int] | None:
    """Returns the two seeds of a dataset that shuffles or draws, (0, 0) without; None for others.

    With the seeds (0, 0), TensorFlow uses other ones in each process.
    """
    if not hasattr(dataset, "_seed2"):
        return None
    return int(dataset._seed), int(dataset._seed2)


# The state of a model while it is fitted


def metrics_of(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables of the metrics, which exist once `build_metrics` was called."""
    return model.metrics_variables


def build_metrics(model: keras.Model, data: Any) -> None:
    """Creates the variables of the metrics, which Keras does in the first step of a fit.

    On JAX, Keras has done it before.
    """
    if all(part is None or part.built for part in (model._compile_metrics, model._compile_loss)):
        return
    with model.distribute_strategy.scope():
        model._symbolic_build(data_batch=spec_of_batches(data, None))


def spec_of_batches(data: Any, batch: Any) -> Any:
    """Returns the shapes and dtypes of the parts that a device gets of batches.

    Args:
        data: The iterator over the batches of an epoch, or None.
        batch: A single batch, if there is no iterator.
    """
    import tensorflow as tf

    def first(part: Any) -> Any:
        return tf.nest.flatten(part, expand_composites=True)[0]  # parts of all devices

    structure = batch if data is None else data._distributed_dataset.element_spec
    return tf.nest.map_structure(lambda v: None if v is None else first(v), structure)


def give_results_of_metrics(fit: RunningFit) -> None:
    """Makes an epoch without a step end with the results of the metrics as they are."""
    model = fit.model

    def results(logs: Any) -> Any:
        object.__delattr__(model, "_get_metrics_result_or_logs")  # of this object alone
        return model.get_metrics_result()

    object.__setattr__(model, "_get_metrics_result_or_logs", results)
    if keras.backend.backend() == "jax":
        _take_empty_step(fit)


def _take_empty_step(fit: RunningFit) -> None:
    """Lets an epoch without a step have one that does nothing, and that no callback sees.

    On JAX, Keras needs the logs of a last step.
    """
    model, callbacks = fit.model, fit.callbacks
    steps, train = fit.data._enumerate_iterator, model.train_function

    def with_one_more() -> Iterator[tuple[int, int, Any]]:
        yield from steps()
        yield 0, 0, None

    def end(*_: Any) -> None:
        del callbacks.on_train_batch_begin, callbacks.on_train_batch_end  # of this object alone
        model.train_function = train

    fit.data._enumerate_iterator = with_one_more  # which `steps` removes
    callbacks.on_train_batch_begin, callbacks.on_train_batch_end = lambda *_: None, end
    model.train_function = lambda state, iterator: ({}, state)


def parts_of(variable: keras.Variable) -> list[Any]:
    """Returns what holds the values of a Keras variable, and has `assign`.

    These are the variables of TensorFlow, one for each device; on JAX, the Keras variable itself.
    """
    if keras.backend.backend() != "tensorflow":
        return [variable]
    value = variable._value
    return list(getattr(value, "values", None) or [value])


def kept_value(part: Any) -> Any:
    """Returns the values of a part from `parts_of` as a tensor that no later step changes.

    TensorFlow copies a tensor that is still used before it writes to it. JAX frees the tensors that
    a step has read, so the tensor is a copy.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.ops.copy(part.value)
    return part.value()


# Random numbers


def random_state() -> dict[str, Any]:
    """Returns the state of all global generators: of Python, NumPy, Keras and TensorFlow."""
    seeds = global_state.get_global_attribute(_SEEDS)
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "keras_seed": global_state.get_global_attribute(_SEED),
        "keras": None if seeds is None else np.array(keras.ops.convert_to_numpy(seeds.state)),
        "tensorflow": None if (own := _tensorflow_random()) is None else own.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Sets all global generators to a state from `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    global_state.set_global_attribute(_SEED, state["keras_seed"])
    if state["keras"] is None:
        global_state.set_global_attribute(_SEEDS, None)  # Keras makes one when it is needed
    else:
        seed_generator.global_seed_generator().state.assign(state["keras"])
    if state["tensorflow"] is not None and (own := _tensorflow_random()) is not None:
        own.setstate(state["tensorflow"])
        _clear_kernels()


def _clear_kernels() -> None:
    """Forgets operations that are kept for their seeds, and with them their place."""
    from tensorflow.python.eager import context

    context.context().clear_kernel_cache()


def _tensorflow_random() -> random.Random | None:
    """Returns the generator of the seeds of TensorFlow's operations; None without a global seed."""
    if keras.backend.backend() != "tensorflow" and "tensorflow" not in sys.modules:
        return None
    from tensorflow.python.eager import context

    return getattr(context.context(), "_rng", None)
