"""OpenVINO files, which are the fastest option on CPUs."""

import errno
import tempfile
from pathlib import Path
from typing import Any

from finetune_tf.base.extras import require_package
from finetune_tf.model.exports import saved_model
from finetune_tf.model.exports.format import Engine, Format, Int8, Record
from finetune_tf.model.exports.graph import Graph

FILE = "openvino_model.xml"  # the name that Hugging Face's serving classes (optimum) expect
_WEIGHTS = "openvino_model.bin"
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def write(graph: Graph, folder: Path, int8: Int8 | None = None) -> None:
    """Converts a SavedModel with OpenVINO.

    Args:
        graph: The forward pass.
        folder: The folder.
        int8: Given for int8: with batches, matrix products are computed with int8 weights and
            activations; without, only the weights are stored as int8.

    Raises:
        OSError: If the files cannot be written.
    """
    openvino = require_package("openvino", "The format 'openvino' needs")
    with tempfile.TemporaryDirectory() as temporary:
        saved_model.write(graph, Path(temporary))
        model = openvino.convert_model(temporary)
    if int8 is not None:
        model = _quantized(model, int8)
    try:
        openvino.save_model(model, folder / FILE, compress_to_fp16=False)
    except RuntimeError as error:  # OpenVINO raises it for a full disk, among others
        raise OSError(errno.EIO, str(error)) from None


def _quantized(model: Any, int8: Int8) -> Any:
    nncf = require_package("nncf", "int8 in the format 'openvino' needs")
    if int8.batches is None:
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    return nncf.quantize(
        model,
        nncf.Dataset(int8.batches),
        subset_size=len(int8.batches),
        model_type=nncf.ModelType.TRANSFORMER,
    )


def read(folder: Path, record: Record, dtype: str = "float32") -> Engine:
    """Opens OpenVINO files on CPUs.

    Args:
        folder: The folder.
        record: What it says of itself.
        dtype: "float32" or "bfloat16", for everything that is not int8.
    """
    openvino = require_package("openvino", "A model in the format 'openvino' needs")
    precision = {"INFERENCE_PRECISION_HINT": _PRECISIONS[dtype]}
    compiled = openvino.Core().compile_model(folder / FILE, "CPU", precision)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = compiled(inputs).to_dict()
        return {name: rows for port, rows in found.items() for name in port.names}

    return run


FORMAT = Format(
    name="openvino",
    title="OpenVINO",
    files=(FILE, _WEIGHTS),
    write=write,
    read=read,
    packages=("openvino",),
    int8_packages=("nncf",),
    int8="int8 weights, and int8 activations too if calibration examples are given",
    calibrates=True,
    dtypes=("float32", "bfloat16"),
)
