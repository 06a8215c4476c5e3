"""ft.distribute: what it accepts, and what it says of what it cannot do."""

import pytest

import finetune_tf as ft
from finetune_tf.distribution import current


@pytest.fixture(autouse=True)
def no_distribution():
    assert current() is None
    yield
    assert current() is None


def test_one_device_needs_nothing(tiny_bert):
    with ft.distribute() as distribution:
        assert current() is distribution
        assert (distribution.kind, distribution.devices) == ("none", ("CPU:0",))
        assert distribution.is_first and distribution.num_processes == 1
        model = ft.load(tiny_bert, labels=["bad", "good"])
        assert model.distribute_strategy.num_replicas_in_sync == 1
    distribution.end()  # nothing is left to end


def test_a_second_distribution():
    with ft.distribute(), pytest.raises(ft.errors.ModelError, match="End it first"):
        ft.distribute()


def test_a_device_that_is_named(tiny_bert, capsys):
    before = ft.load(tiny_bert, labels=["bad", "good"])
    with ft.distribute("data", devices=["cpu:0"]):
        model = ft.load(tiny_bert, labels=["bad", "good"])
        assert model.distribute_strategy.extended.worker_devices[0].endswith("CPU:0")
        batches = ft.data.from_arrays(["good", "bad"], ["good", "bad"]).batches(model)
        model.fit(batches, verbose=0)
        with pytest.raises(ft.errors.ModelError, match="loaded before ft.distribute"):
            before.fit(batches, verbose=0)
    with pytest.raises(ft.errors.ModelError, match="has ended"):
        model.evaluate(batches, verbose=0)
    before.fit(batches, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "mirror"}, ft.errors.ArgumentError, "'auto', 'data', 'model'; found 'mirror'"),
        ({"kind": "model"}, ft.errors.ModelError, "set KERAS_BACKEND=jax"),
        ({"parts": 2}, ft.errors.ModelError, "set KERAS_BACKEND=jax"),
        ({"num_processes": 2}, ft.errors.ModelError, "issues/20585.*set KERAS_BACKEND=jax"),
        ({"coordinator_address": "auto"}, ft.errors.ModelError, "issues/20585"),
        ({"devices": ["GPU:7"]}, ft.errors.ArgumentError, "different ones of CPU:0; found"),
        ({"devices": ["CPU:0", "cpu:0"]}, ft.errors.ArgumentError, "different ones"),
        ({"devices": []}, ft.errors.ArgumentError, r"different ones of CPU:0; found \[\]"),
        ({"device": "CPU:0"}, ft.errors.UnknownArgumentError, "Did you mean devices=?"),
        ({"devices": "CPU:0"}, ft.errors.ArgumentError, r"a list of names, such as \['CPU:0'\]"),
    ],
)
def test_what_cannot_be(arguments, error, message):
    with pytest.raises(error, match=message):
        ft.distribute(**arguments)
