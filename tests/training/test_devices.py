"""The line that names the device, and the GPU that nobody uses."""

import shutil

import keras
import pytest

import finetune_tf as ft
from finetune_tf.training.devices import device_line


@pytest.fixture
def machine(monkeypatch):
    """Says which GPUs TensorFlow sees and whether there is an NVIDIA driver."""

    def machine(gpus, has_driver):
        found = "/usr/bin/nvidia-smi" if has_driver else None
        monkeypatch.setattr(shutil, "which", lambda name: found)
        monkeypatch.setattr("finetune_tf.training.devices._tensorflow_gpus", lambda: gpus)

    return machine


def test_a_cpu_without_a_driver_is_no_reason_to_warn(machine):
    machine([], has_driver=False)
    assert device_line() == "Device: CPU (tensorflow); precision: float32."


def test_a_gpu_is_named_with_the_precision(machine):
    machine(["GPU NVIDIA A100"], has_driver=True)
    line = "Device: GPU NVIDIA A100 (tensorflow); precision: mixed_bfloat16."
    assert device_line("mixed_bfloat16") == line
    assert device_line(keras.DTypePolicy("mixed_bfloat16")) == line


def test_a_driver_without_a_gpu_that_tensorflow_sees_warns(machine):
    machine([], has_driver=True)
    message = r"tensorflow sees no GPU and uses the CPU\. .* pip install 'finetune-tf\[gpu\]'"
    with pytest.warns(UserWarning, match=message):
        assert device_line().startswith("Device: CPU")


@pytest.mark.parametrize("dtype", ["float17", 5])
def test_an_unknown_precision(dtype, tiny_bert):
    for call in (device_line, lambda dtype: ft.load(tiny_bert, dtype=dtype)):
        with pytest.raises(ft.errors.ModelError, match=f"no dtype policy {dtype!r}; use 'float32'"):
            call(dtype)
