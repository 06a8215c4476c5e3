"""`keep_blocks`: smaller models of some blocks of a checkpoint."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT
from helpers_models import small_model, write_checkpoint
from helpers_objectives import BATCH

import finetune_tf as ft
from finetune_tf.errors import ArgumentError, ModelError

REFERENCES = Path(__file__).resolve().parents[1] / "references"


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("deep") / "bert", blocks=4)
    return ft.load(folder, labels=["no", "yes"])


@pytest.mark.slow
def test_weights_config_and_record(deep, tmp_path):
    student = ft.keep_blocks(deep, [0, 2])
    assert [stage.name for stage in student.stages][:3] == ["embeddings", "block_0", "block_1"]
    assert student.config.num_hidden_layers == 2
    assert deep.config.num_hidden_layers == 4
    pairs = {"embeddings": "embeddings", "block_0": "block_0", "block_1": "block_2"}
    for name, source in (pairs | {"pooler": "pooler", "classifier": "classifier"}).items():
        for new, old in zip(
            student.get_layer(name).weights, deep.get_layer(source).weights, strict=True
        ):
            assert new is not old
            np.testing.assert_array_equal(new, old)
    assert set(student.info.pretrained) == {
        v.path for v in student.weights if not v.path.startswith("classifier")
    }
    assert student.info.record["weights"] == "those of the blocks 0, 2 of a model with 4 blocks"
    assert student.labels == deep.labels
    assert student.tokenizer("a good film").input_ids == deep.tokenizer("a good film").input_ids
    again = ft.load(student.save_pretrained(tmp_path / "student"))
    expected = student.predict(BATCH, verbose=0)
    np.testing.assert_allclose(again.predict(BATCH, verbose=0), expected, atol=1e-6)


@pytest.mark.slow
def test_all_blocks_are_the_model(deep):
    student = ft.keep_blocks(deep, range(4))
    found, expected = (model.predict(BATCH, verbose=0) for model in (student, deep))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_a_keras_file(deep, tmp_path):
    student = ft.keep_blocks(deep, [1, 3])
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    expected = student.predict(BATCH, verbose=0)
    np.testing.assert_allclose(again.predict(BATCH, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_of_unit_length(tmp_path, pooling, deep):
    folder = write_checkpoint(tmp_path / "bert", blocks=3)
    encoder = ft.load(folder, "feature-extraction", pooling=pooling)
    student = ft.keep_blocks(encoder, [2])
    assert student.predict(BATCH, verbose=0).shape == (4, 24)


@pytest.mark.parametrize(
    "name",
    [
        "deberta-v2/text-classification",
        "modernbert/text-classification",
        "gpt2/text-classification",
        "distilbert/text-classification",
        "llama/text-generation",
        "vit/image-classification",
    ],
)
def test_families(name, tmp_path):
    model = ft.load(REFERENCES / name)
    depth = sum(stage.role == "block" for stage in model.stages)
    student = ft.keep_blocks(model, [0])
    assert sum(stage.role == "block" for stage in student.stages) == 1 < depth
    again = ft.load(student.save_pretrained(tmp_path / "student"))
    for new, old in zip(again.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_kinds_of_blocks_have_to_follow_in_the_same_order():
    config = {"layer_types": None, "num_hidden_layers": 2, "global_attn_every_n_layers": 2}
    model = ft.load(REFERENCES / "modernbert" / "text-classification", config=config)
    message = (
        "block_1 is another kind of block than block_0 of a modernbert model with 1 blocks, such "
        "as one with a sliding window or with other positions. Keep other blocks, so that the "
        "kinds follow in the same order."
    )
    with pytest.raises(ModelError, match=re.escape(message)):
        ft.keep_blocks(model, [1])


@pytest.mark.parametrize("blocks", [[], [4], [-1], [2, 1], [1, 1], [0.5], [True], "01", 3])
def test_wrong_numbers(deep, blocks):
    message = (
        "blocks= lists the numbers of the blocks to keep, from 0 to 3 in increasing order, found "
        f"{blocks!r}."
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        ft.keep_blocks(deep, blocks)


@pytest.mark.parametrize("name", ["albert", "resnet", "swin", "t5", "clip"])
def test_models_without_a_chain_of_blocks(name):
    folder = next(path.parent for path in sorted((REFERENCES / name).glob("*/config.json")))
    with pytest.raises(ModelError, match="keep_blocks needs one chain of blocks, each with weigh"):
        ft.keep_blocks(ft.load(folder), [0])


def test_other_models():
    with pytest.raises(ModelError, match="keep_blocks takes a model from ft.load, found"):
        ft.keep_blocks(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), [0])
    with pytest.raises(ModelError, match="keep_blocks needs one chain of blocks"):
        ft.keep_blocks(small_model(), [0])


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["bert", TINY_VIT], ids=["bert", "vit"])
def test_pytorch_opens_it(folder, deep, tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    model = deep if folder == "bert" else ft.load(folder)
    student = ft.keep_blocks(model, [1])
    saved = student.save_pretrained(tmp_path / "student")
    if folder == "bert":
        made, batch = transformers.AutoModelForSequenceClassification, BATCH
        inputs = {name: torch.tensor(value).long() for name, value in BATCH.items()}
    else:
        made = transformers.AutoModelForImageClassification
        height, width = model.inputs[0].shape[1:3]
        levels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3))
        batch = levels.astype("uint8")
        settings = model.image_processor.to_config()
        pixels = levels / 255 - np.array(settings["image_mean"])
        pixels = pixels / np.array(settings["image_std"])
        inputs = {"pixel_values": torch.tensor(pixels.transpose(0, 3, 1, 2)).float()}
    with torch.no_grad():
        expected = made.from_pretrained(saved).eval()(**inputs).logits.numpy()
    np.testing.assert_allclose(student.predict(batch, verbose=0), expected, atol=1e-5)


def test_thresholds_of_the_whole_model_are_not_those_of_fewer_blocks(deep):
    own = {"label_thresholds": {"yes": 0.3}, "calibration": {"temperature": 2.0}}
    deep.config.update(own)
    student = ft.keep_blocks(deep, [0])
    assert not own.keys() & student.config.keys()
    assert {name: deep.config.pop(name) for name in own} == own
