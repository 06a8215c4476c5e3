"""`export`: a model as a graph that runs without finetune_tf and without Keras, for serving."""

import errno
import re
import tempfile
from pathlib import Path
from typing import Any

import keras

from finetune_tf.base.files import unfinished_folder
from finetune_tf.base.paths import absolute
from finetune_tf.errors import ModelError
from finetune_tf.messages import say
from finetune_tf.model.saving import tokenizer_or_none, write_config
from finetune_tf.training.fit_errors import refuse_ruined
from finetune_tf.training.untrained import say_if_untrained

FORMATS = ("tf_saved_model", "openvino")
# The name under which Hugging Face's serving classes (optimum) look for it.
OPENVINO_FILE = "openvino_model.xml"
_STALE = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "openvino_model")


def export(model: Any, folder: str | Path, format: str = "tf_saved_model") -> Path:
    """Writes a model's forward pass for serving, with config and tokenizer beside it.

    The graph takes the model's inputs, int32 (batch, length) each, all of them needed, and gives
    what `Task.named` calls its outputs, float32. It computes in float32 whatever the model was
    trained in; engines choose a lower precision themselves.

    Args:
        model: A FineTuneModel.
        folder: Made or replaced as a whole; other files that stand in it, such as a checkpoint,
            are kept.
        format: "tf_saved_model", for TensorFlow and TensorFlow Serving (signature
            "serving_default"); or "openvino", for CPUs (the extra `finetune-tf[openvino]`).

    Returns:
        The folder, absolute.

    Raises:
        ModelError: If there is no such format, its package is missing, Keras runs on another
            backend than TensorFlow, or a weight is NaN or infinite.
        CheckpointError: If the folder cannot be written.
    """
    if format not in FORMATS:
        raise ModelError(
            f"A model is exported as one of {', '.join(FORMATS)}, found {format!r}. For ONNX, "
            "save_pretrained and export the checkpoint with Hugging Face's optimum."
        )
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"export needs KERAS_BACKEND=tensorflow, found {keras.backend.backend()}. Save the "
            "model with save_pretrained and load it on TensorFlow."
        )
    refuse_ruined(model, "Exporting")
    say_if_untrained(model)
    openvino = _openvino() if format == "openvino" else None
    folder = absolute(folder)
    tokenizer = tokenizer_or_none(model)
    with unfinished_folder(folder, _STALE) as beside:
        write_config(model, beside)
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        if openvino is None:
            _write_saved_model(model, beside)
        else:
            with tempfile.TemporaryDirectory() as between:
                _write_saved_model(model, Path(between))
                graph = openvino.convert_model(between)
            try:
                openvino.save_model(graph, beside / OPENVINO_FILE, compress_to_fp16=False)
            except RuntimeError as error:  # its name for a full disk, among others
                raise OSError(errno.EIO, str(error)) from None
    say(f"Exported {folder} as {format}.")
    return folder


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise ModelError(
            "The format 'openvino' needs the package openvino: pip install 'finetune-tf[openvino]'."
        ) from None
    return openvino


def _write_saved_model(model: Any, folder: Path) -> None:
    import tensorflow as tf

    model, task = _in_float32(model), model.task
    signature = {
        tensor.name: tf.TensorSpec((None, None), tf.int32, tensor.name) for tensor in model.inputs
    }

    def serve(inputs: dict) -> dict:
        return task.named(model.call(inputs, training=False))

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, input_signature=[signature])
    try:
        archive.write_out(folder, verbose=False)
    except tf.errors.OpError as error:  # TensorFlow's names for a full disk, among others
        raise OSError(errno.EIO, re.sub(r"{{.*?}} ", "", error.message)) from None


def _in_float32(model: Any) -> Any:
    """The model, or if it computes in another type a copy that does not."""
    if all(layer.compute_dtype == "float32" for layer in model.layers):
        return model
    copy = type(model).from_config(_without_policies(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _without_policies(config: Any) -> Any:
    """A Keras config in which every dtype policy is float32."""
    if isinstance(config, dict):
        if "Policy" in str(config.get("class_name")):
            return "float32"
        return {name: _without_policies(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_without_policies(value) for value in config)
    return config
