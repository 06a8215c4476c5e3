"""Graphs for converters have matrix products without reshapes around them."""

import numpy as np
import pytest
import tensorflow as tf

from finetune_tf import kernels
from finetune_tf.architectures.layers import dense

X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
LAYER = dense(5, 0.5, dtype="float32", name="dense")
LAYER.build(X.shape)
FUNCTIONS = {
    "dense": lambda x: LAYER(x),
    "without bias": lambda x: kernels.dense(x, LAYER.kernel, None),
    "activated": lambda x: kernels.activated(LAYER, x, "gelu"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_products_without_reshapes(name):
    def traced(is_portable):
        @tf.function(input_signature=[tf.TensorSpec((None, None, 4))], autograph=False)
        def function(x):
            with kernels.portable_only(is_portable):
                return FUNCTIONS[name](x)

        return function

    def kinds(function):
        return {op.type for op in function.get_concrete_function().graph.get_operations()}

    usual, portable = traced(False), traced(True)
    assert "Reshape" in kinds(usual) and "Reshape" not in kinds(portable)
    np.testing.assert_allclose(portable(X), usual(X), atol=1e-6)
