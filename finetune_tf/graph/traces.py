"""What was made of the structure of a model, kept outside of it and forgotten when that changes.

A traced function holds the variables that it was traced with. After a layer has got another one,
it would go on with the old one, so whatever changes the layers or the variables of a model calls
`forget_traces`.
"""

import weakref
from typing import Any

import keras

from finetune_tf.base.keras_internals import all_layers

# By model. Outside of the models, which would save what they hold, and weak, so that traces live no
# longer than their model.
_TRACES: "weakref.WeakKeyDictionary[keras.Model, dict]" = weakref.WeakKeyDictionary()


def traces_of(model: keras.Model) -> dict[Any, Any]:
    """What was traced of a model, by whatever tells it apart; the caller adds its own.

    Args:
        model: Any Keras model. The functions must not keep it alive.
    """
    return _TRACES.setdefault(model, {})


def forget_traces(model: keras.Model) -> None:
    """Forgets what was traced of a model, and of other models on the same layers.

    Call it after a change of layers or variables: a resized vocabulary, an adapter, another head.
    Keras's own functions of another model cannot be found, if nothing here has traced it.

    Args:
        model: That has changed.
    """
    changed = {id(layer) for layer in all_layers(model)}
    for other in [model, *_TRACES]:
        if other is model or any(id(layer) in changed for layer in all_layers(other)):
            _TRACES.pop(other, None)
            other.train_function = other.test_function = other.predict_function = None
