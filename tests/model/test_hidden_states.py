"""Models that also return what passes between their blocks."""

import keras
import numpy as np

from finetune_tf.graph.hidden_states import with_states

IDS = {"input_ids": np.array([[2, 6, 7, 3]], "int32")}


def test_each_pooler_and_each_name_has_a_model_of_its_own(tiny_bert):
    import finetune_tf as ft

    model = ft.load(tiny_bert, labels=["bad", "good"])
    inputs = model._complete_inputs(IDS)
    poolers = [keras.layers.Activation(name) for name in ("tanh", "relu")]
    built = [with_states(model, pooler=pooler) for pooler in poolers]
    first = np.asarray(built[0](inputs)["last_hidden_state"])[:, 0]
    for states, activation in zip(built, (np.tanh, lambda x: np.maximum(x, 0)), strict=True):
        np.testing.assert_allclose(states(inputs)["pooler_output"], activation(first), rtol=1e-6)
    assert with_states(model, pooler=poolers[0]) is built[0]
    assert with_states(model, name="other").name == "other"
