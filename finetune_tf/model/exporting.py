"""Export for serving: a graph that runs without finetune_tf and without Keras."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from finetune_tf.base.arguments import shown
from finetune_tf.base.extras import require_package
from finetune_tf.base.files import unfinished_folder
from finetune_tf.base.json_files import write_json
from finetune_tf.base.paths import absolute
from finetune_tf.data import Examples
from finetune_tf.errors import DataTypeError, ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.images import PREPROCESSOR
from finetune_tf.messages import say
from finetune_tf.model.exports.checking import check_decisions, check_export
from finetune_tf.model.exports.format import Format, Int8, Record, digest_of
from finetune_tf.model.exports.formats import (
    FILES,
    FORMATS,
    formats_with_int8,
    tasks_of_all_engines,
)
from finetune_tf.model.exports.graph import Graph, reading_files
from finetune_tf.model.exports.strings import endpoints_of_texts, require_strings
from finetune_tf.model.saving import (
    check_same_checkpoint,
    tokenizers_of,
    write_config,
    write_tokenizers,
)
from finetune_tf.training.fit_errors import refuse_ruined
from finetune_tf.training.untrained import say_if_untrained


def export(
    model: Any,
    folder: str | Path,
    format: str = "tf_saved_model",
    image_bytes: bool = False,
    quantize: str | None = None,
    calibration: Examples | None = None,
    strings: bool = False,
) -> Path:
    """Writes a model's forward pass for serving, with config and tokenizer or image processor.

    The graph requires all inputs of the model: int32 (batch, length) each, or `pixel_values`
    (batch, height, width, 3), levels from 0 to 255 in uint8, which an image processor has resized.
    For zero-shot classification it requires the images alone, since the vectors of the labels are
    constants of the graph. It returns the outputs by the names of `Task.serving`, in float32. It
    computes in float32 regardless of the dtype of the model; inference engines choose a lower
    precision themselves.

    An encoder of texts in another format than "tf_saved_model" is run in its engine and compared
    with the model before the folder is written.

    Args:
        model: A FineTuneModel.
        folder: The folder, created or replaced atomically; other files in it, such as a checkpoint,
            are kept.
        format: "tf_saved_model", for TensorFlow and TensorFlow Serving (signature
            "serving_default"); "openvino", for CPUs (the extra `finetune-tf[openvino]`); "onnx",
            for ONNX Runtime (the extra `finetune-tf[onnx]`); or "litert", for small devices. The
            last two are for encoders of texts; see `Task.runs_in_all_engines`.
        image_bytes: For models of images: whether the graph reads the bytes of files, the input
            `image_bytes` (batch,), and decodes and prepares the images itself; see
            `images.in_graph`.
        quantize: "int8" for weights of a quarter of the size, for models of texts in the formats
            "onnx", "litert" and "openvino" (the extra `finetune-tf[int8]`); None for float32.
        calibration: For int8 in the format "openvino": a few hundred examples, by which the ranges
            of activations are chosen, so that these are int8 too. Their labels are not used.
        strings: For models of texts in the format "tf_saved_model": whether the graph reads
            texts, the input `text` (batch,), and tokenizes them itself; see `exports.strings`.

    Returns:
        The folder, absolute.

    Raises:
        ModelError: If the format or the quantization is unknown or does not fit the model, the
            folder has the checkpoint of another model, the Keras backend is not TensorFlow, a
            weight is NaN or infinite, the converter or the engine of the format cannot handle the
            model, `image_bytes` is given for a model of texts or for OpenVINO, or the graph cannot
            reproduce the tokenizer.
        MissingExtraError: If a package of the format is not installed.
        CheckpointError: If the folder cannot be written.
    """
    chosen = _checked_format(model, format)
    _check_quantization(model, chosen, quantize, calibration)
    if image_bytes:
        _check_image_bytes(model, format)
    if strings:
        require_strings(model, format)
    for module in chosen.packages:
        require_package(module, f"The format {format!r} needs")
    for module in chosen.int8_packages if quantize else ():
        require_package(module, f"int8 in the format {format!r} needs")
    refuse_ruined(model, "Exporting")
    say_if_untrained(model)
    folder = absolute(folder)
    check_same_checkpoint(model, folder)
    tokenizers = tokenizers_of(model)
    int8 = None
    if quantize is not None:
        int8 = Int8(None if calibration is None else _batches(model, calibration))
    graph = Graph(model, portable=chosen.portable)
    if image_bytes:
        graph.endpoints = {"serve": reading_files(graph, model.image_processor)}
    if strings:
        graph.endpoints = endpoints_of_texts(graph, model)
    record = Record(
        format=format,
        quantize=quantize,
        task=model.task.name,
        labels=model.labels,
        inputs=tuple(graph.signature),
        max_length=_max_length(model, bool(tokenizers)),
        strings=strings,
        weights=digest_of(model),
        row_length=model.row_length if model.reads_texts and tokenizers else None,
    )
    with unfinished_folder(folder, FILES) as unfinished:
        write_config(model, unfinished)
        write_tokenizers(tokenizers, unfinished)
        if model.info.image_processor:
            write_json(unfinished / PREPROCESSOR, model.info.image_processor)
        record.write(unfinished)
        chosen.write(graph, unfinished, int8)
        if format != "tf_saved_model" and model.task.runs_in_all_engines:
            check_export(graph.model, unfinished, chosen, record)
            if int8 is not None and int8.batches is not None:
                check_decisions(graph.model, unfinished, chosen, record, int8.batches)
    say(f"Exported {folder} as {' '.join(filter(None, (format, quantize)))}.")
    return folder


def _checked_format(model: Any, format: str) -> Format:
    if not isinstance(format, str) or format not in FORMATS:
        raise ModelError(f"The format must be one of {', '.join(FORMATS)}, found {shown(format)}.")
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"export needs KERAS_BACKEND=tensorflow, found {keras.backend.backend()}. Save the "
            "model with save_pretrained and load it with the TensorFlow backend."
        )
    chosen = FORMATS[format]
    if not chosen.runs_all and not model.task.runs_in_all_engines:
        others = [each.name for each in FORMATS.values() if each.runs_all]
        raise ModelError(
            f"The format {format!r} is for {tasks_of_all_engines()}; the model is for "
            f"{model.task.name}. Export it as {' or '.join(map(repr, others))}."
        )
    return chosen


def _check_quantization(model: Any, format: Format, quantize: Any, calibration: Any) -> None:
    if quantize is None:
        if calibration is not None:
            raise ModelError('calibration= is for int8: write quantize="int8" as well.')
        return
    if quantize != "int8":
        raise ModelError(f'quantize must be None or "int8", found {shown(quantize)}.')
    if not format.int8:
        raise ModelError(
            f"The format {format.name!r} has no int8 weights. Formats with int8: "
            f"{formats_with_int8()}."
        )
    if not model.task.runs_in_all_engines:
        raise ModelError(
            f"int8 is for {tasks_of_all_engines()}; the model is for {model.task.name}. Export it "
            "without quantize."
        )
    if calibration is None:
        return
    if not format.calibrates:
        calibrated = [repr(each.name) for each in FORMATS.values() if each.calibrates]
        raise ModelError(
            f"calibration= is for {', '.join(calibrated)}. The format {format.name!r} has "
            f"{format.int8}: leave calibration out."
        )
    if not isinstance(calibration, Examples):
        raise DataTypeError(
            "calibration expects a few hundred Examples, such as train.shuffle().take(300), found "
            f"{type(calibration).__name__}."
        )


def _check_image_bytes(model: Any, format: str) -> None:
    _ = model.image_processor  # raises an error for a model of texts
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


def _max_length(model: Any, has_tokenizer: bool) -> int | None:
    if not model.reads_texts:
        return None
    if has_tokenizer:
        return model.max_length
    return FAMILIES[model.config["model_type"]].max_length(model.config)


def _batches(model: Any, examples: Examples) -> list[dict]:
    """The inputs of examples by name, one row in a batch: the ranges of padding do not count."""
    encoded = examples.encoded(model, targets=False)
    rows = []
    for row in range(len(encoded)):
        inputs = {name: feature[row][None] for name, feature in encoded.inputs.items()}
        inputs["attention_mask"] = np.ones_like(inputs["input_ids"])
        rows.append({tensor.name: inputs[tensor.name] for tensor in model.inputs})
    return rows
