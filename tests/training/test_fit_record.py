"""The model card has the results of the weights that the model has."""

import keras
import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.checkpoints.card import model_card

TOKENS, ANSWERS = token_batch()


class Rising(keras.callbacks.Callback):
    """Makes the first epoch the best one."""

    def on_epoch_end(self, epoch, logs=None):
        logs["my_loss"] = float(epoch)


def fitted(*callbacks, **options):
    model = small_model()
    model.compile(**ft.presets.cross_entropy(learning_rate=1e-4))
    options = {"batch_size": 8, "verbose": 0, "epochs": 3} | options
    history = model.fit(TOKENS, ANSWERS, callbacks=[Rising(), *callbacks], **options)
    return model, history


def card_of(model):
    return model_card(model.info, "finetune_tf.load", {}, model.task)


def early_stopping(restores):
    return keras.callbacks.EarlyStopping(
        "my_loss", mode="min", patience=1, restore_best_weights=restores
    )


def test_the_results_of_the_restored_epoch():
    model, history = fitted(early_stopping(restores=True), initial_epoch=1, epochs=4)
    assert history.epoch == [1, 2]
    (record,) = model.info.record["fits"]
    assert record["epochs"] == 2 and record["restored"] == 2
    assert record["last"] == {name: values[0] for name, values in history.history.items()}
    assert f"| weights of epoch 2: accuracy {record['last']['accuracy']:.4f}" in card_of(model)


def test_the_results_of_the_last_epoch():
    model, history = fitted(early_stopping(restores=False))
    (record,) = model.info.record["fits"]
    assert "restored" not in record
    assert record["last"] == {name: values[-1] for name, values in history.history.items()}
    assert "weights of epoch" not in card_of(model)


def trains(model, batches, file):
    model.fit(batches, verbose=0)


def takes_a_step(model, batches, file):
    model.train_on_batch(*next(iter(batches)))


def loads_weights(model, batches, file):
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.load_weights(file)


def adds_another_adapter(model, batches, file):
    ft.adapters.add(model, ft.adapters.LoRA(rank=2, targets="all"), name="second")
    ft.adapters.switch(model, None)


@pytest.mark.parametrize("change", [trains, takes_a_step, loads_weights, adds_another_adapter])
def test_results_of_other_weights_are_forgotten(change, tiny_bert, tmp_path):
    examples = ft.data.from_arrays(["a good film", "a dull film"] * 2, ["yes", "no"] * 2)
    model = small_model(checkpoint=tiny_bert)
    if change is adds_another_adapter:
        model = ft.load(tiny_bert, labels=["no", "yes"])
    batches = examples.batches(model, 2)
    model.fit(batches, verbose=0)
    model.save_weights(tmp_path / "my.weights.h5")
    ft.evaluate(model, examples)
    model.evaluate(batches, verbose=0)
    model.load_weights(tmp_path / "my.weights.h5")  # those that it has
    assert "## Result" in card_of(model)
    change(model, batches, tmp_path / "my.weights.h5")
    assert "## Result" not in card_of(model)
