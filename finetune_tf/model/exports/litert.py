"""LiteRT (TensorFlow Lite) files, for phones and small devices."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from finetune_tf.errors import ModelError
from finetune_tf.model.exports import saved_model
from finetune_tf.model.exports.format import Engine, Format, Int8, Record, unsupported
from finetune_tf.model.exports.graph import Graph

FILE = "model.tflite"


def write(graph: Graph, folder: Path, int8: Int8 | None = None) -> None:
    """Converts a graph with the converter of TensorFlow, to operations of LiteRT alone.

    Args:
        graph: The forward pass, of portable kernels.
        folder: The folder.
        int8: Given for int8 weights, with activations that are quantized as the model runs.

    Raises:
        ModelError: If the model cannot be converted.
        OSError: If the file cannot be written.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as temporary:
        saved_model.write(graph, Path(temporary))
        converter = tf.lite.TFLiteConverter.from_saved_model(temporary, ["serving_default"])
        if int8 is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            content = converter.convert()
        except Exception as error:  # the converter raises errors of any kind
            raise ModelError(unsupported(graph, "LiteRT", error)) from error
    (folder / FILE).write_bytes(content)


def read(folder: Path, record: Record) -> Engine:
    """Opens a LiteRT file in the interpreter of TensorFlow."""
    import tensorflow as tf

    with warnings.catch_warnings():
        # TensorFlow recommends the package ai-edge-litert for this class, which is the same one.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(folder / FILE), num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner("serving_default")

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: rows.copy() for name, rows in runner(**inputs).items()}

    return run


FORMAT = Format(
    name="litert",
    title="LiteRT",
    files=(FILE,),
    write=write,
    read=read,
    int8="int8 weights, with activations quantized as the model runs",
    runs_all=False,
    portable=True,
)
