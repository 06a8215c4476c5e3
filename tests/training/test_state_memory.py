"""AdamW with moments in the memory of the host: same numbers, same files, and what is refused."""

import keras
import pytest
from helpers_resume import broken_and_resumed, on_arrays, outcome, preset

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError
from finetune_tf.training import AdamW, optimizers

pytestmark = pytest.mark.filterwarnings("ignore:A learning rate of")  # of a small random model
needs_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX has this memory")


def memories(optimizer) -> dict[str, str]:
    """Returns the memory of each variable of an optimizer."""
    return {v.path: v.value.sharding.memory_kind for v in optimizer.variables}


def moments_on_host(**options):
    return on_arrays(preset(state_memory="host", **options))


@needs_jax
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"state_dtype": "bfloat16", "accumulate": 2}], ids=str)
def test_the_numbers_are_those_of_moments_on_the_device(options, monkeypatch, capsys):
    monkeypatch.setattr(optimizers, "SMALLEST_NARROW", 16)
    expected = outcome(lambda: on_arrays(preset(**options)))
    made = []
    outcome(lambda: made.append(moments_on_host(**options)) or made[-1]).require_same(expected)
    ((model, _),) = made
    large = [v for v in model.trainable_variables if v.value.size >= 16]
    assert 0 < len(large) < len(model.trainable_variables)
    assert list(memories(model.optimizer).values()).count("pinned_host") == 2 * len(large)
    assert "state_memory='host' saves no memory on a CPU" in capsys.readouterr().out


@needs_jax
@pytest.mark.jax
@pytest.mark.slow
@pytest.mark.parametrize("writer", ["safetensors", "orbax"])
def test_a_run_may_continue_with_moments_in_another_memory(writer, monkeypatch, tmp_path):
    if writer == "orbax":
        pytest.importorskip("orbax.checkpoint")
    monkeypatch.setattr(optimizers, "SMALLEST_NARROW", 16)
    expected = outcome(on_arrays)
    memory = iter(
        [{"state_memory": "host"}, {"state_memory": "host"}, {}, {"state_memory": "host"}]
    )

    def make():
        return on_arrays(preset(**next(memory)))

    places = ((0, 3), (1, "validation"), (2, 1))
    broken_and_resumed(make, tmp_path, *places, writer=writer).require_same(expected)


@needs_jax
@pytest.mark.jax
@pytest.mark.slow
def test_keras_files_contain_it(monkeypatch, tmp_path):
    monkeypatch.setattr(optimizers, "SMALLEST_NARROW", 16)
    model, fit = moments_on_host()
    model.fit(**fit, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert memories(again.optimizer) == memories(model.optimizer)
    for network in (model, again):
        network.fit(**fit, verbose=0)
    for one, other in zip(model.weights, again.weights, strict=True):
        assert (one.numpy() == other.numpy()).all()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has this memory")
def test_other_backends_refuse_it(capsys):
    with pytest.raises(ModelError, match="is not possible here: Keras runs on tensorflow, and on"):
        ft.presets.cross_entropy(state_memory="host")
    config = AdamW(1e-4, state_dtype="bfloat16").get_config() | {"state_memory": "host"}
    optimizer = AdamW.from_config(config)  # from a file that JAX has written
    assert (optimizer.state_dtype, optimizer.state_memory) == ("bfloat16", None)
    assert "are not kept in the memory of the host: Keras runs on" in capsys.readouterr().out


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="state_memory must be 'device' or 'host', found 'cpu'"):
        AdamW(1e-4, state_memory="cpu")
    with pytest.raises(ModelError, match="state_memory is for the moments of 'adamw', not for 'sg"):
        ft.presets.mean_squared_error("sgd", state_memory="device")
