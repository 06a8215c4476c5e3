"""ONNX files, which ONNX Runtime and other engines run."""

from pathlib import Path
from typing import Any

from finetune_tf.base.extras import require_package
from finetune_tf.errors import ModelError
from finetune_tf.model.exports.format import Engine, Format, Int8, Record, unsupported
from finetune_tf.model.exports.graph import Graph

FILE = "model.onnx"  # the name that Hugging Face's serving classes (optimum) expect
_OPSET = 17


def write(graph: Graph, folder: Path, int8: Int8 | None = None) -> None:
    """Converts a graph with tf2onnx; int8 weights have a scale for each output of a layer.

    Args:
        graph: The forward pass, of portable kernels.
        folder: The folder.
        int8: Given for int8 weights and activations, whose range is that of each batch.

    Raises:
        ModelError: If the model cannot be converted.
        OSError: If the file cannot be written.
    """
    convert = require_package("tf2onnx.convert", "The format 'onnx' needs")
    try:
        model, _ = convert.from_function(
            graph.traced(), input_signature=[graph.signature], opset=_OPSET
        )
    except Exception as error:  # the converter raises errors of any kind
        raise ModelError(unsupported(graph, "ONNX", error)) from error
    path = folder / FILE
    path.write_bytes(model.SerializeToString())
    if int8 is not None:
        _quantize(path)


def _quantize(path: Path) -> None:
    quantization = require_package("onnxruntime.quantization", "int8 in the format 'onnx' needs")
    whole = path.rename(path.with_name("float32.onnx"))
    try:
        quantization.quantize_dynamic(
            whole, path, per_channel=True, weight_type=quantization.QuantType.QInt8
        )
    finally:
        whole.unlink()


def read(folder: Path, record: Record) -> Engine:
    """Opens an ONNX file in ONNX Runtime, on CPUs."""
    runtime = require_package("onnxruntime", "A model in the format 'onnx' needs")
    session = runtime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


FORMAT = Format(
    name="onnx",
    title="ONNX",
    files=(FILE,),
    write=write,
    read=read,
    packages=("onnx", "tf2onnx", "onnxruntime"),
    int8="int8 weights, with activations quantized as the model runs",
    runs_all=False,
    portable=True,
)
