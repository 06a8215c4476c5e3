"""Engines of exported folders as functions of arrays by name, without `ft.load_exported`."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers_tasks import small_task_model

from finetune_tf.families import FAMILIES
from finetune_tf.model.model_info import Config

_PACKAGES = {"onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",), "litert": ()}


def require(format: str, int8: bool = False) -> None:
    """Skips a test where the packages of a format are missing."""
    for name in (*_PACKAGES[format], *(("nncf",) if int8 and format == "openvino" else ())):
        pytest.importorskip(name)


def onnx(folder: Path) -> Callable[[dict], dict[str, np.ndarray]]:
    """ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def litert(folder: Path) -> Callable[[dict], dict[str, np.ndarray]]:
    """The interpreter of TensorFlow Lite."""
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(folder / "model.tflite"))
    runner = interpreter.get_signature_runner()
    return lambda inputs: runner(**inputs)


def openvino(folder: Path) -> Callable[[dict], dict[str, np.ndarray]]:
    """OpenVINO in float32."""
    import openvino

    engine = openvino.Core().compile_model(
        folder / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    def run(inputs: dict) -> dict[str, np.ndarray]:
        found = engine(inputs).to_dict()
        return {name: rows for port, rows in found.items() for name in port.names}

    return run


ENGINES = {"onnx": onnx, "litert": litert, "openvino": openvino}


def small_exportable(case: str, tokenizer: Path):
    """`helpers_tasks.small_task_model` with a complete config, which exports write."""
    model = small_task_model(case, tokenizer)
    model.info.config = Config(FAMILIES["bert"].complete({}) | dict(model.config))
    return model
