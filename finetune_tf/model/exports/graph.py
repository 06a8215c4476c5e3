"""The forward pass of a model as functions of named tensors, which every format is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_tf import kernels
from finetune_tf.architectures import PIXELS
from finetune_tf.images import ImageProcessor
from finetune_tf.images.in_graph import levels_of_files
from finetune_tf.model.inference import run

if TYPE_CHECKING:
    import tensorflow as tf

#: The input of a graph that reads files; TensorFlow Serving decodes base64 for such a name.
FILES = "image_bytes"
_BATCH_SIZE = 64  # of the texts of labels


@dataclass(frozen=True)
class Endpoint:
    """A function that an exported folder has.

    Attributes:
        signature: The specs of its inputs by name.
        function: From tensors by name to outputs by name.
    """

    signature: "dict[str, tf.TensorSpec]"
    function: Callable[[dict[str, Any]], dict[str, Any]]


class Graph:
    """The forward pass of a model in float32, whatever its dtype.

    Args:
        model: A FineTuneModel.
        portable: Whether the graph consists of the portable kernels.

    Attributes:
        model: The model, or a float32 copy of it.
        signature: The specs of its inputs by name.
        endpoints: The functions that a SavedModel has, by name, the default one first. By default
            there is one, "serve", with the inputs of the model.
    """

    def __init__(self, model: Any, portable: bool = False) -> None:
        import tensorflow as tf

        self.model = in_float32(model)
        self._portable = portable

        def forward(rows: Any, part: Any = None) -> list:
            return run(self.model, rows, _BATCH_SIZE, "the labels", part)

        inputs, self._outputs_of = self.model.task.serving(self.model, forward)
        self.signature = {
            name: tf.TensorSpec(tensor.shape, tensor.dtype, name) for name, tensor in inputs.items()
        }
        self.endpoints = {"serve": Endpoint(self.signature, self)}

    def __call__(self, given: dict[str, Any]) -> dict[str, Any]:
        """Computes the outputs by name of tensors by name."""
        with kernels.portable_only(self._portable):
            return self._outputs_of(given)

    def traced(self) -> Any:
        """Returns the forward pass as a `tf.function` of one dict."""
        import tensorflow as tf

        return tf.function(self.__call__, input_signature=[self.signature], autograph=False)


def reading_files(graph: Graph, processor: ImageProcessor) -> Endpoint:
    """Returns the function that decodes and prepares the bytes of image files first.

    Args:
        graph: The forward pass.
        processor: The image processor of the model.
    """
    import tensorflow as tf

    signature = {name: spec for name, spec in graph.signature.items() if name != PIXELS}

    def serve(given: dict[str, Any]) -> dict[str, Any]:
        given = dict(given)
        given[PIXELS] = levels_of_files(given.pop(FILES), processor)
        return graph(given)

    return Endpoint(signature | {FILES: tf.TensorSpec((None,), tf.string, FILES)}, serve)


def in_float32(model: Any) -> Any:
    """Returns the model, or a float32 copy if it computes in another dtype."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    copy = type(model).from_config(_without_policies(model.get_config()))
    copy.set_weights(model.get_weights())
    if getattr(model, "_tokenizer", None) is not None:
        copy.tokenizer = model.tokenizer
    return copy


def _without_policies(config: Any) -> Any:
    """Returns a Keras config with all dtype policies replaced by float32."""
    if isinstance(config, dict):
        if "Policy" in str(config.get("class_name")):
            return "float32"
        return {name: _without_policies(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_without_policies(value) for value in config)
    return config
