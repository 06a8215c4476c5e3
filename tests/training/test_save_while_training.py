"""Saving and uploading during training."""

import json

import huggingface_hub
import keras
import numpy as np
import pytest
from helpers_models import token_batch

import finetune_tf as ft
from finetune_tf.messages import quiet


@pytest.mark.slow
def test_after_each_epoch_or_after_the_last(tiny_bert, tmp_path):
    with quiet():
        model = ft.load(tiny_bert)
        model.compile()
        for each, folder in ((True, "each"), (False, "last")):
            saves = ft.callbacks.SavePretrained(tmp_path / folder, each_epoch=each)
            model.fit(*token_batch(), epochs=2, verbose=0, callbacks=[saves])
            again = ft.load(tmp_path / folder)
            np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


class Rising(keras.callbacks.Callback):
    """Makes the first epoch the best one."""

    def on_epoch_end(self, epoch, logs=None):
        logs["my_loss"] = float(epoch)


@pytest.mark.parametrize("each_epoch", [True, False])
def test_what_early_stopping_restores_is_saved(each_epoch, tiny_bert, tmp_path):
    with quiet():
        model = ft.load(tiny_bert, labels=["no", "yes"])
        ft.train_only(model, ft.select.head())
        saves = ft.callbacks.SavePretrained(tmp_path / "saved", each_epoch=each_epoch)
        stop = keras.callbacks.EarlyStopping("my_loss", mode="min", restore_best_weights=True)
        callbacks = [saves, Rising(), stop]
        model.fit(*token_batch(), epochs=2, verbose=0, callbacks=callbacks)
        again = ft.load(tmp_path / "saved")
    assert stop.best_epoch == 0
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_push_to_hub(tiny_bert, monkeypatch):
    """There is no Hub in this test, so a fake records the uploads."""
    seen = {}

    class Hub:
        def __init__(self, token):
            seen["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            assert exist_ok
            seen["private"] = private
            return type("Repo", (), {"repo_id": f"me/{repo_id}"})

        def upload_folder(self, repo_id, folder_path):
            seen["repo"] = repo_id
            seen["files"] = sorted(path.name for path in folder_path.iterdir())
            seen["dtype"] = json.loads((folder_path / "config.json").read_text())["dtype"]
            return "commit"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    with quiet():
        model = ft.load(tiny_bert)
        assert model.push_to_hub("mine", private=True, token="secret") == "commit"
    assert seen["token"] == "secret"
    assert seen["private"] is True
    assert seen["repo"] == "me/mine"
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= {*seen["files"]}
    assert ft.predict(model, "good").score > 0  # the tokenizer is still found
    with quiet():
        model.push_to_hub("mine", dtype="float16", max_shard_size="20KB")
    assert seen["dtype"] == "float16"
    assert "model.safetensors.index.json" in seen["files"]
