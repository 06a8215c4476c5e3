"""A cache of traced functions and derived models, cleared when the structure of a model changes.

A traced function refers to the variables that it was traced with, and would go on using a variable
that a layer has replaced. All code that changes the layers or variables of a model therefore calls
`forget_traces`.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras

from finetune_tf.base.keras_internals import all_layers, sync_state

# Traces by model. They are not attributes of the models, because a model would save them. The
# references are weak, so that traces are freed with their model.
_TRACES: "weakref.WeakKeyDictionary[keras.Model, dict]" = weakref.WeakKeyDictionary()


def traces_of(model: keras.Model) -> dict[Any, Any]:
    """Returns the cache of a model, a dict to which the caller adds entries under its own keys.

    Args:
        model: Any Keras model. The cached values must not refer to it, or it would never be freed.
    """
    return _TRACES.setdefault(model, {})


def compiled_by_jax(
    reference: Callable[[], keras.Model], function: Callable, static: Sequence[int] = ()
) -> Callable:
    """Returns a function of a model as JAX compiles it, once for all shapes of its arguments.

    The values of the variables are arguments of what is compiled. JAX would make constants of them
    otherwise, which are large, and which later training does not change.

    Args:
        reference: Returns the model, which the result must not keep alive.
        function: Called with the model and the arguments. It assigns to no variable.
        static: The places of arguments that are Python values, each of which is compiled for.
    """
    import jax

    def pure(values: list, *arguments: Any) -> Any:
        model = reference()
        with keras.StatelessScope(list(zip(model.variables, values, strict=True))):
            return function(model, *arguments)

    compiled = jax.jit(pure, static_argnums=[place + 1 for place in static])

    def call(*arguments: Any) -> Any:
        model = reference()
        sync_state(model)  # a callback may call it in the middle of a fit
        return compiled([variable.value for variable in model.variables], *arguments)

    return call


def forget_traces(model: keras.Model) -> list[keras.Model]:
    """Clears the cache of a model and of other models on the same layers.

    Call it after a change of layers or variables: a resized vocabulary, an adapter, another head.
    The train, test and predict functions of Keras are reset as well. Those of another model on the
    same layers are reset only if `traces_of` was called for that model.

    Args:
        model: The model that has changed.

    Returns:
        The models whose training step had been traced. One of them may be in a fit, which needs
        another step at once: `make_train_function`.
    """
    changed = {id(layer) for layer in all_layers(model)}
    traced = []
    for other in {id(each): each for each in [model, *_TRACES]}.values():
        if other is model or any(id(layer) in changed for layer in all_layers(other)):
            _TRACES.get(other, {}).clear()
            if getattr(other, "train_function", None) is not None:
                traced.append(other)
            other.train_function = other.test_function = other.predict_function = None
    return traced
