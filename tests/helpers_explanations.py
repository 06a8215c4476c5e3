"""Small models whose reasons are known, for tests of explanations."""

import numpy as np
from helpers_models import ENGLISH, SPECIAL
from helpers_tasks import small_task_model

VOCABULARY = [*SPECIAL, *ENGLISH]
SPEAKS = {"good": 3.0, "great": 2.0, "bad": -3.0, "dull": -1.0}


def knowing_model(tokenizer, case="two labels"):
    """A classifier that knows four words: "good" and "great" speak for "pos", two others for "neg".

    Its first feature is large for these words alone, and the head reads the mean of that feature.
    """
    model = small_task_model(case, tokenizer)
    table = np.zeros((len(VOCABULARY), 8), "float32")
    for word, value in SPEAKS.items():
        table[VOCABULARY.index(word), 0] = value
    model.get_layer("embeddings").set_weights([table])
    model.get_layer("block_0").set_weights([np.eye(8) * 0.5, np.zeros(8)])
    kernel = np.zeros((8, 2), "float32")
    kernel[0] = -4.0, 4.0
    model.get_layer("classifier").set_weights([kernel, np.zeros(2)])
    return model


def by_word(explanation):
    """The score of each word."""
    return {word.text: word.score for word in explanation.words}
