"""The message about the device, and the warning about an unused GPU."""

import platform
import shutil
import sys

import keras
import pytest
import tensorflow as tf

import finetune_tf as ft
from finetune_tf.training.devices import _cpu_flags, device_line, policy_of


@pytest.fixture
def machine(monkeypatch):
    """Simulates the GPUs that TensorFlow finds and an NVIDIA driver."""

    def machine(gpus, has_driver):
        found = "/usr/bin/nvidia-smi" if has_driver else None
        monkeypatch.setattr(shutil, "which", lambda name: found)
        monkeypatch.setattr("finetune_tf.training.devices._gpu_details", lambda: gpus)

    yield machine
    tf.config.experimental.enable_tensor_float_32_execution(True)


def test_a_cpu_without_a_driver_is_no_reason_to_warn(machine):
    machine([], has_driver=False)
    assert device_line() == "Device: CPU (tensorflow); precision: float32."


def test_a_gpu_is_named_with_the_precision(machine):
    machine([{"device_name": "NVIDIA A100"}], has_driver=True)
    line = "Device: GPU NVIDIA A100 (tensorflow); precision: mixed_bfloat16."
    assert device_line("mixed_bfloat16") == line
    assert device_line(keras.DTypePolicy("mixed_bfloat16")) == line


def test_a_driver_without_a_gpu_that_tensorflow_sees_warns(machine):
    machine([], has_driver=True)
    message = r"tensorflow sees no GPU and uses the CPU\. .* pip install 'finetune-tf\[gpu\]'"
    with pytest.warns(UserWarning, match=message):
        assert device_line().startswith("Device: CPU")


@pytest.mark.parametrize("dtype", ["float17", 5, 0, "", False])
def test_an_unknown_precision(dtype, tiny_bert):
    for call in (device_line, lambda dtype: ft.load(tiny_bert, dtype=dtype)):
        with pytest.raises(
            ft.errors.ModelError, match=f"no dtype policy {dtype!r}; use 'auto', 'float32'"
        ):
            call(dtype)


@pytest.mark.parametrize(
    ("flags", "gpus", "expected"),
    [
        ({"avx2", "avx512f"}, [], "float32"),
        ({"avx512_bf16"}, [], "mixed_bfloat16"),
        ({"amx_bf16", "amx_tile"}, [], "mixed_bfloat16"),
        ({"amx_bf16"}, [{"device_name": "Tesla T4", "compute_capability": (7, 5)}], "float32"),
        (set(), [{"device_name": "A100", "compute_capability": (8, 0)}], "mixed_bfloat16"),
    ],
)
def test_auto_is_what_the_device_multiplies_fast(
    flags, gpus, expected, machine, monkeypatch, tiny_bert, capsys
):
    monkeypatch.setattr("finetune_tf.training.devices._cpu_flags", lambda: flags)
    machine(gpus, has_driver=False)
    assert policy_of("auto").name == expected
    assert ft.load(tiny_bert, dtype="auto").get_layer("block_0").dtype_policy.name == expected
    assert f"precision: {expected}." in capsys.readouterr().out


def test_auto_leaves_the_users_own_policy_alone(monkeypatch):
    monkeypatch.setattr("finetune_tf.training.devices._cpu_flags", lambda: {"amx_bf16"})
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert policy_of("auto").name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_this_processor_has_flags():
    if sys.platform == "linux" and platform.machine() == "x86_64":
        assert "sse2" in _cpu_flags()


@pytest.mark.parametrize(("dtype", "full"), [("float32", True), ("mixed_bfloat16", False)])
def test_float32_on_a_gpu_is_float32_as_in_pytorch(dtype, full, machine, tiny_bert, capsys):
    machine([{"device_name": "A100", "compute_capability": (8, 0)}], has_driver=False)
    ft.load(tiny_bert, dtype=dtype)
    assert tf.config.experimental.tensor_float_32_execution_enabled() is not full
    assert ("TensorFloat-32 is disabled" in capsys.readouterr().out) is full
    ft.load(tiny_bert, dtype=dtype)
    assert "TensorFloat" not in capsys.readouterr().out  # said once


def test_float32_of_a_keras_file_on_a_gpu(machine, tiny_bert, tmp_path):
    machine([], has_driver=False)
    for dtype in ("mixed_bfloat16", "float32"):
        ft.load(tiny_bert, dtype=dtype).save(tmp_path / f"{dtype}.keras")
    machine([{"device_name": "A100", "compute_capability": (8, 0)}], has_driver=False)
    keras.models.load_model(tmp_path / "mixed_bfloat16.keras")
    assert tf.config.experimental.tensor_float_32_execution_enabled()
    keras.models.load_model(tmp_path / "float32.keras")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_a_cpu_keeps_its_settings(machine, tiny_bert):
    machine([], has_driver=False)
    ft.load(tiny_bert, dtype="float32")
    assert tf.config.experimental.tensor_float_32_execution_enabled()
