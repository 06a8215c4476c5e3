"""Export for serving: a graph that runs without finetune_tf and without Keras."""

import errno
import re
import tempfile
from pathlib import Path
from typing import Any

import keras

from finetune_tf.architectures import PIXELS
from finetune_tf.base.files import unfinished_folder
from finetune_tf.base.json_files import write_json
from finetune_tf.base.paths import absolute
from finetune_tf.errors import ModelError
from finetune_tf.images import PREPROCESSOR, ImageProcessor
from finetune_tf.images.in_graph import levels_of_files
from finetune_tf.messages import say
from finetune_tf.model.inference import run
from finetune_tf.model.saving import tokenizers_of, write_config, write_tokenizers
from finetune_tf.training.fit_errors import refuse_ruined
from finetune_tf.training.untrained import say_if_untrained

#: The input of a graph that reads files; TensorFlow Serving decodes base64 for such a name.
FILES = "image_bytes"
FORMATS = ("tf_saved_model", "openvino")
# The file name that Hugging Face's serving classes (optimum) expect.
OPENVINO_FILE = "openvino_model.xml"
_BATCH_SIZE = 64  # of the texts of labels
_STALE = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "openvino_model")


def export(
    model: Any, folder: str | Path, format: str = "tf_saved_model", image_bytes: bool = False
) -> Path:
    """Writes a model's forward pass for serving, with config and tokenizer or image processor.

    The graph requires all inputs of the model: int32 (batch, length) each, or `pixel_values`
    (batch, height, width, 3), levels from 0 to 255 in uint8, which an image processor has resized.
    For zero-shot classification it requires the images alone, since the vectors of the labels are
    constants of the graph. It returns the outputs by the names of `Task.serving`, in float32. It
    computes in float32 regardless of the dtype of the model; inference engines choose a lower
    precision themselves.

    Args:
        model: A FineTuneModel.
        folder: The folder, created or replaced atomically; other files in it, such as a checkpoint,
            are kept.
        format: "tf_saved_model", for TensorFlow and TensorFlow Serving (signature
            "serving_default"); or "openvino", for CPUs (the extra `finetune-tf[openvino]`).
        image_bytes: For models of images: whether the graph reads the bytes of files, the input
            `image_bytes` (batch,), and decodes and prepares the images itself; see
            `images.in_graph`.

    Returns:
        The folder, absolute.

    Raises:
        ModelError: If the format is unknown, its package is missing, the Keras backend is not
            TensorFlow, a weight is NaN or infinite, or `image_bytes` is given for a model of
            texts or for OpenVINO.
        CheckpointError: If the folder cannot be written.
    """
    if format not in FORMATS:
        raise ModelError(
            f"The format must be one of {', '.join(FORMATS)}, found {format!r}. For ONNX, write a "
            "checkpoint with save_pretrained and export it with Hugging Face's optimum."
        )
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"export needs KERAS_BACKEND=tensorflow, found {keras.backend.backend()}. Save the "
            "model with save_pretrained and load it with the TensorFlow backend."
        )
    if image_bytes:
        processor = model.image_processor  # raises an error for a model of texts
        if model.task.reads_clips:
            raise ModelError(
                "image_bytes=True is for models of images; TensorFlow does not decode videos. "
                "Export without it: the graph reads prepared frames."
            )
        if format == "openvino":
            raise ModelError(
                "OpenVINO does not decode images. Export image_bytes=True as 'tf_saved_model', or "
                "a graph for OpenVINO without image_bytes."
            )
    refuse_ruined(model, "Exporting")
    say_if_untrained(model)
    openvino = _openvino() if format == "openvino" else None
    folder = absolute(folder)
    tokenizers = tokenizers_of(model)
    with unfinished_folder(folder, _STALE) as unfinished:
        write_config(model, unfinished)
        write_tokenizers(tokenizers, unfinished)
        if model.info.image_processor:
            write_json(unfinished / PREPROCESSOR, model.info.image_processor)
        if openvino is None:
            _write_saved_model(model, unfinished, processor if image_bytes else None)
        else:
            with tempfile.TemporaryDirectory() as saved_model:
                _write_saved_model(model, Path(saved_model))
                graph = openvino.convert_model(saved_model)
            try:
                openvino.save_model(graph, unfinished / OPENVINO_FILE, compress_to_fp16=False)
            except RuntimeError as error:  # OpenVINO raises it for a full disk, among others
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


def _write_saved_model(model: Any, folder: Path, processor: ImageProcessor | None = None) -> None:
    """Writes the graph; with a processor, one that reads the bytes of files."""
    import tensorflow as tf

    model = _in_float32(model)

    def forward(rows: Any, part: Any = None) -> list:
        return run(model, rows, _BATCH_SIZE, "the labels", part)

    inputs, outputs_of = model.task.serving(model, forward)
    signature = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name) for name, tensor in inputs.items()
    }
    if processor is not None:
        del signature[PIXELS]
        signature[FILES] = tf.TensorSpec((None,), tf.string, FILES)

    def serve(given: dict) -> dict:
        if processor is not None:
            given = dict(given)
            given[PIXELS] = levels_of_files(given.pop(FILES), processor)
        return outputs_of(given)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, input_signature=[signature])
    try:
        archive.write_out(folder, verbose=False)
    except tf.errors.OpError as error:  # TensorFlow raises it for a full disk, among others
        raise OSError(errno.EIO, re.sub(r"{{.*?}} ", "", error.message)) from None


def _in_float32(model: Any) -> Any:
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
