"""A model with randomized stages, for the sanity check of Adebayo et al. (2018)."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def randomized_stages(model: Any, random: np.random.Generator) -> Iterator[str]:
    """Permutes the values of the variables of one stage after another, from the top down.

    Each variable keeps its values in another order, so that their scale remains. All values are as
    before when the iteration ends, also by an error.

    Args:
        model: The model.
        random: The generator of the permutations.

    Yields:
        The name of the stage that was randomized last; those above it are randomized as well.

    Example:
        >>> from finetune_tf.explanations.randomizing import randomized_stages
        >>> before = model.get_weights()
        >>> [name for name in randomized_stages(model, np.random.default_rng(0))]
        ['classifier', 'pooler', 'block_1', 'block_0', 'embeddings']
        >>> all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
        True
    """
    stored: list[tuple[Any, np.ndarray]] = []
    try:
        for stage in reversed(model.stages):
            for variable in stage.variables:
                value = np.array(keras.ops.convert_to_numpy(variable.value))
                stored.append((variable, value))
                variable.assign(random.permutation(value.ravel()).reshape(value.shape))
            yield stage.name
    finally:
        for variable, value in stored:
            variable.assign(value)
