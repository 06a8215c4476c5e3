"""Optional packages, among them TensorFlow where Keras runs on JAX."""

import importlib
from types import ModuleType

from finetune_tf.errors import MissingExtraError

#: What pip calls a package, and the extra of finetune-tf that installs it.
_EXTRAS = {
    "sacrebleu": ("sacrebleu", "generation"),
    "rouge_score": ("rouge-score", "generation"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "openvino": ("openvino", "openvino"),
    "onnx": ("onnx", "onnx"),
    "tf2onnx": ("tf2onnx", "onnx"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "nncf": ("nncf", "int8"),
    "tensorflow_text": ("tensorflow-text", "text"),
    "orbax": ("orbax-checkpoint", "orbax"),
}


def require_package(module: str, purpose: str = "The metrics of this task need") -> ModuleType:
    """Imports a module of an optional package.

    Args:
        module: The module, such as "rouge_score.rouge_scorer".
        purpose: The beginning of the message: what needs the package.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, extra = _EXTRAS[module.partition(".")[0]]
        raise MissingExtraError(
            f"{purpose} {package}, which is not installed. Install it with: "
            f"pip install 'finetune-tf[{extra}]'"
        ) from error


def require_tensorflow(purpose: str, module: str = "tensorflow") -> ModuleType:
    """Imports TensorFlow or TensorFlow Datasets for what needs them, whatever the backend.

    Args:
        purpose: The beginning of the message: what needs TensorFlow.
        module: "tensorflow" or "tensorflow_datasets".

    Raises:
        MissingExtraError: If it cannot be imported, which the backend JAX does not need either.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} TensorFlow, also with KERAS_BACKEND=jax, but it cannot be imported "
            f"({error}). Install it with: pip install tensorflow tensorflow-datasets"
        ) from error
