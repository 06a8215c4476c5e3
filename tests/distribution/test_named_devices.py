"""One device of several: a model is on the device that is named, and does what others do."""

import pytest
from helpers_models import write_checkpoint
from helpers_processes import output_of

pytestmark = pytest.mark.slow


BEGIN = """
import sys
import keras
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
import finetune_tf as ft

def device_of(model):
    value = model.variables[0].value
    if keras.backend.backend() == "jax":
        return ",".join(f"CPU:{device.id}" for device in value.devices())
    return ",".join(each.device[-5:] for each in getattr(value, "values", [value]))

def loaded():
    with ft.messages.quiet():
        return ft.load(sys.argv[1], labels=["bad", "good"])

"""

ONE_DEVICE = """
train = ft.data.from_arrays(["a good film", "a bad film", "bad"], ["good", "bad", "bad"])
for kind in ("auto", "data"):
    for name in ("CPU:0", "CPU:1"):
        with ft.distribute(kind, devices=[name]) as distribution:
            model = loaded()
            model.compile(**ft.presets.cross_entropy())
            history = model.fit(train.batches(model, 2), verbose=0).history
            ft.predict(model, "a good film")
            print(kind, name, distribution.kind, device_of(model), len(history["loss"]))
        if keras.backend.backend() == "jax" or distribution.kind == "none":
            ft.predict(model, "a good film")
model = loaded()
ft.predict(model, "a good film")
print("afterwards", device_of(model))
"""

EXPORTED = """
with ft.distribute("data"):
    model = loaded()
    served = ft.load_exported(model.export(sys.argv[2]))
    assert tf.distribute.has_strategy()
    one, other = (ft.predict(each, "a good film").score for each in (model, served))
print(device_of(model), abs(one - other) < 1e-5)
"""


def lines_of(script, backend, *arguments):
    two_devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    found = output_of("-c", BEGIN + script, *arguments, KERAS_BACKEND=backend, **two_devices)
    return found.splitlines()


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_one_device_that_is_named(backend, tmp_path):
    """The first device is that of every model, and needs nothing."""
    if backend == "jax":
        pytest.importorskip("jax")
    lines = lines_of(ONE_DEVICE, backend, write_checkpoint(tmp_path / "bert", blocks=1))
    expected = [
        "auto CPU:0 none CPU:0 1",
        "auto CPU:1 data CPU:1 1",
        "data CPU:0 data CPU:0 1",
        "data CPU:1 data CPU:1 1",
        "afterwards CPU:0",
    ]
    assert [line for line in lines if line in expected] == expected, lines


def test_an_exported_model_beside_one_on_several_devices(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "bert", blocks=1)
    lines = lines_of(EXPORTED, "tensorflow", checkpoint, tmp_path / "served")
    assert lines[-1] == "CPU:0,CPU:1 True"
