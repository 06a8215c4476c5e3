"""Device and precision: detection, messages, and full float32 precision on GPUs."""

import shutil
from pathlib import Path
from typing import Any

import keras

from finetune_tf.errors import ModelError
from finetune_tf.messages import say, warn

_BFLOAT16_CPU_FLAGS = {"amx_bf16", "avx512_bf16"}  # names in /proc/cpuinfo
_AMPERE = (8, 0)  # the first NVIDIA generation with bfloat16


def device_line(dtype: Any = None) -> str:
    """Returns a line with the device and the precision that a model loaded now will use.

    Warns if the machine has an NVIDIA driver but the backend finds no GPU.

    Args:
        dtype: As for `policy_of`.

    Raises:
        ModelError: If the policy does not exist.

    Example:
        >>> from finetune_tf.training.devices import device_line
        >>> device_line("mixed_bfloat16")
        'Device: ...; precision: mixed_bfloat16.'
    """
    policy = policy_of(dtype)
    backend = keras.backend.backend()
    accelerators = accelerator_names()
    if not accelerators and shutil.which("nvidia-smi"):
        warn(
            f"This machine has an NVIDIA driver, but {backend} sees no GPU and uses the CPU. "
            "Install the GPU build: pip install 'finetune-tf[gpu]'."
        )
    device = ", ".join(accelerators) or "CPU"
    return f"Device: {device} ({backend}); precision: {policy.name}."


def policy_of(dtype: Any = None) -> keras.DTypePolicy:
    """Returns the Keras dtype policy for a dtype.

    Args:
        dtype: Name of a policy, or None for the global policy. "auto" is the global policy if the
            user has set one; otherwise "mixed_bfloat16" on hardware with native bfloat16
            multiplication (CPUs with AMX or AVX512-BF16, NVIDIA GPUs since Ampere, TPUs), and
            "float32" elsewhere.

    Raises:
        ModelError: If the policy does not exist.
    """
    if dtype == "auto":
        dtype = None
        if keras.config.dtype_policy().name == "float32" and _has_native_bfloat16():
            dtype = "mixed_bfloat16"
    try:
        return keras.config.dtype_policy() if dtype is None else keras.dtype_policies.get(dtype)
    except (TypeError, ValueError):
        raise ModelError(
            f"There is no dtype policy {dtype!r}; use 'auto', 'float32', 'mixed_bfloat16' or "
            "'mixed_float16'."
        ) from None


def compute_float32_in_full() -> None:
    """Disables TensorFloat-32, so that GPUs compute float32 products in full, as PyTorch does.

    On NVIDIA GPUs since Ampere, TensorFlow and JAX by default round the factors to TensorFloat-32,
    which has 10 instead of 23 bits of mantissa, and logits differ by about 1e-3. The setting
    applies to the whole process; it can be reverted after a model is loaded, for speed.
    """
    if not accelerator_names():
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
    say("TensorFloat-32 is disabled: float32 products are computed in full, as in PyTorch.")


def check_strategy(strategy: Any) -> None:
    """Refuses strategies of TensorFlow under which Keras 3 cannot train, or not as on one device.

    Args:
        strategy: The `tf.distribute` strategy of a model.

    Raises:
        ModelError: If it is neither a MirroredStrategy nor one of a single device of this process.

    Example:
        >>> from finetune_tf.training.devices import check_strategy
        >>> import tensorflow as tf
        >>> check_strategy(tf.distribute.get_strategy())
    """
    import tensorflow as tf

    name = type(strategy).__name__
    known = (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)
    if isinstance(strategy, known) or name == "_DefaultDistributionStrategy":
        return
    if "CollectiveAllReduce" in name:  # the class behind the name
        name = "MultiWorkerMirroredStrategy"
    raise ModelError(
        f"Keras 3 does not train under {name.removesuffix('V1').removesuffix('V2')}: fit fails "
        "while it joins the results of the workers (keras issue 20585), or has never worked. "
        "Train on several machines with KERAS_BACKEND=jax, and on several devices of one machine "
        "with tf.distribute.MirroredStrategy."
    )


def accelerator_names() -> list[str]:
    """Returns the names of all GPUs and TPUs that the backend sees."""
    if keras.backend.backend() == "tensorflow":
        return [f"GPU {details.get('device_name', '')}".strip() for details in _gpu_details()]
    devices = keras.distribution.list_devices()
    return [device for device in devices if not device.lower().startswith("cpu")]


def _gpu_details() -> list[dict]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu) for gpu in gpus]


def _has_native_bfloat16() -> bool:
    accelerators = accelerator_names()
    if not accelerators:
        return bool(_BFLOAT16_CPU_FLAGS & _cpu_flags())
    if keras.backend.backend() == "tensorflow":
        return all(d.get("compute_capability", (0, 0)) >= _AMPERE for d in _gpu_details())
    if any(device.lower().startswith("tpu") for device in accelerators):
        return True
    import jax

    capabilities = (getattr(device, "compute_capability", "0.0") for device in jax.devices())
    return all(tuple(map(int, text.split("."))) >= _AMPERE for text in capabilities)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return set()
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())
