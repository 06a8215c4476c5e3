"""Small networks and rows of many classes, for tests of meta-learning."""

import keras
import numpy as np

import finetune_tf as ft

CLASSES, ROWS, INPUTS = 6, 8, 5


def points(classes=CLASSES, rows=ROWS, seed=0, dtype="float32"):
    """Points (classes * rows, 5) around the means of their classes, and the classes."""
    generator = np.random.default_rng(seed)
    means = generator.normal(size=(classes, INPUTS)) * 2
    numbers = np.repeat(np.arange(classes), rows)
    return (means[numbers] + generator.normal(size=(len(numbers), INPUTS)) * 0.5).astype(
        dtype
    ), numbers


def network(*norms, dtype="float32", features=4, seed=0):
    """A network of points with the given normalization layers and without a head."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((INPUTS,), dtype=dtype, name="points")
    hidden = keras.layers.Dense(6, "tanh", dtype=dtype, name="first")(inputs)
    for norm in norms:
        hidden = norm(hidden)
    hidden = keras.layers.Dense(features, dtype=dtype, name="second")(hidden)
    hidden = keras.layers.Activation("tanh", dtype=dtype, name="features")(hidden)
    model = keras.Model(inputs, hidden, name="network")
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:  # also those that start as zeros or ones
        noise = generator.normal(size=variable.shape) * 0.1
        variable.assign(np.asarray(variable.value) + noise)
    return model


def sentences(classes=CLASSES, rows=ROWS):
    """Examples of which each class has its own words."""
    from helpers_models import ENGLISH

    labels = [f"class {number}" for number in range(classes)]
    texts, values = [], []
    for number, label in enumerate(labels):
        own = ENGLISH[2 * number : 2 * number + 2]
        for row in range(rows):
            texts.append(" ".join([own[row % 2], *own, ENGLISH[(row * 5 + number) % len(ENGLISH)]]))
            values.append(label)
    return ft.data.from_arrays(texts, values)
