"""Which device computes, in which precision: said in one line, because guessing costs hours."""

import shutil
from pathlib import Path
from typing import Any

import keras

from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn

_BFLOAT16_UNITS = {"amx_bf16", "avx512_bf16"}  # as Linux calls what a processor can do
_AMPERE = (8, 0)  # the first NVIDIA generation with bfloat16


def device_line(dtype: Any = None) -> str:
    """The device and precision that a model loaded now will use.

    Warns when the machine has an NVIDIA GPU that the backend does not see.

    Args:
        dtype: As for `policy_of`.

    Raises:
        ModelError: If there is no such policy.
    """
    policy = policy_of(dtype)
    backend = keras.backend.backend()
    accelerators = _accelerators()
    if not accelerators and shutil.which("nvidia-smi"):
        warn(
            f"This machine has an NVIDIA driver, but {backend} sees no GPU and uses the CPU. "
            "Install the GPU build: pip install 'finetune-tf[gpu]'."
        )
    device = ", ".join(accelerators) or "CPU"
    return f"Device: {device} ({backend}); precision: {policy.name}."


def policy_of(dtype: Any = None) -> keras.DTypePolicy:
    """The Keras policy of a dtype.

    Args:
        dtype: Name of a policy; None for the global one; "auto" for the global one if the user has
            set one, else "mixed_bfloat16" where the device multiplies bfloat16 in units made for
            it (AMX or AVX512-BF16; NVIDIA's from Ampere on; TPUs), and "float32" elsewhere.

    Raises:
        ModelError: If there is none.
    """
    if dtype == "auto":
        dtype = None
        if keras.config.dtype_policy().name == "float32" and _multiplies_bfloat16():
            dtype = "mixed_bfloat16"
    try:
        return keras.config.dtype_policy() if dtype is None else keras.dtype_policies.get(dtype)
    except (TypeError, ValueError):
        raise ModelError(
            f"There is no dtype policy {dtype!r}; use 'auto', 'float32', 'mixed_bfloat16' or "
            "'mixed_float16'."
        ) from None


def compute_float32_in_full() -> None:
    """Has GPUs multiply float32 numbers as PyTorch does: as they are.

    From Ampere on, TensorFlow and JAX by default round them to TensorFloat-32 first, with 10 bits
    of mantissa instead of 23, and logits are off by a thousandth. It is a setting of the process,
    and who wants the speed and not the numbers may undo it after a model is loaded.
    """
    if not _accelerators():
        return
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.config.experimental.tensor_float_32_execution_enabled():
            return
        tf.config.experimental.enable_tensor_float_32_execution(False)
    elif keras.backend.backend() == "jax":
        import jax

        if jax.config.jax_default_matmul_precision is not None:
            return
        jax.config.update("jax_default_matmul_precision", "highest")
    say("Products in float32 are computed in full, as in PyTorch, and not in TensorFloat-32.")


def _accelerators() -> list[str]:
    if keras.backend.backend() == "tensorflow":
        return [f"GPU {details.get('device_name', '')}".strip() for details in _gpu_details()]
    devices = keras.distribution.list_devices()
    return [device for device in devices if not device.lower().startswith("cpu")]


def _gpu_details() -> list[dict]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu) for gpu in gpus]


def _multiplies_bfloat16() -> bool:
    accelerators = _accelerators()
    if not accelerators:
        return bool(_BFLOAT16_UNITS & _processor_flags())
    if keras.backend.backend() == "tensorflow":
        return all(d.get("compute_capability", (0, 0)) >= _AMPERE for d in _gpu_details())
    if any(device.lower().startswith("tpu") for device in accelerators):
        return True
    import jax

    capabilities = (getattr(device, "compute_capability", "0.0") for device in jax.devices())
    return all(tuple(map(int, text.split("."))) >= _AMPERE for text in capabilities)


def _processor_flags() -> set[str]:
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return set()
    lines = (line for line in words.splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())
