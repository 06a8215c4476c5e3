"""Which device computes, in which precision: said in one line, because guessing costs hours."""

import shutil
from typing import Any

import keras

from finetune_tf.errors import ModelError
from finetune_tf.messages import warn


def device_line(dtype: Any = None) -> str:
    """The device and precision that a model loaded now will use.

    Warns when the machine has an NVIDIA GPU that the backend does not see.

    Args:
        dtype: A Keras dtype policy; by default the global one.

    Raises:
        ModelError: If there is no such policy.
    """
    policy = policy_of(dtype)
    backend = keras.backend.backend()
    devices = keras.distribution.list_devices() if backend != "tensorflow" else _tensorflow_gpus()
    accelerators = [device for device in devices if not device.lower().startswith("cpu")]
    if not accelerators and shutil.which("nvidia-smi"):
        warn(
            f"This machine has an NVIDIA driver, but {backend} sees no GPU and uses the CPU. "
            "Install the GPU build: pip install 'finetune-tf[gpu]'."
        )
    device = ", ".join(accelerators) or "CPU"
    return f"Device: {device} ({backend}); precision: {policy.name}."


def policy_of(dtype: Any = None) -> keras.DTypePolicy:
    """The Keras policy of a dtype, by default the global one.

    Raises:
        ModelError: If there is none.
    """
    try:
        return keras.dtype_policies.get(dtype) if dtype else keras.config.dtype_policy()
    except (TypeError, ValueError):
        raise ModelError(
            f"There is no dtype policy {dtype!r}; use 'float32', 'mixed_bfloat16' or "
            "'mixed_float16'."
        ) from None


def _tensorflow_gpus() -> list[str]:
    import tensorflow as tf

    details = (
        tf.config.experimental.get_device_details(device)
        for device in tf.config.list_physical_devices("GPU")
    )
    return [f"GPU {detail.get('device_name', '')}".strip() for detail in details]
