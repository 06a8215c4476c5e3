"""Cached features of a fixed number of changed variants of each image."""

import keras
import numpy as np
import pytest
from helpers_images import TINY_VIT

import finetune_tf as ft
from finetune_tf.data.augmentation import Augmentation
from finetune_tf.data.augmented_features import variants_of
from finetune_tf.errors import ArgumentError
from finetune_tf.messages import quiet

COUNT, VARIANTS, BATCH = 70, 3, 16  # more images than are changed together
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 21, 21, 3)).astype("uint8")
# The number of an image is its target, which tells the rows of shuffled batches apart.
EXAMPLES = ft.data.from_arrays(
    image=IMAGES, label=[float(i) for i in range(COUNT)], problem_type="regression", name="photos"
)
OPTIONS = {"shuffle": True, "augment": ["flip", "color"], "augment_variants": VARIANTS}


@pytest.fixture(scope="module")
def model():
    with quiet():
        model = ft.load(TINY_VIT, labels=EXAMPLES.labels, new_head=True)
        ft.freeze(model, ft.select.embeddings() | ft.select.bottom(1))
    return model


@pytest.fixture(scope="module")
def learner(model):
    return ft.cache_features(model)


@pytest.fixture(scope="module")
def batches(learner):
    with quiet():
        return EXAMPLES.batches(learner, BATCH, **OPTIONS)


def rows_of_an_epoch(batches):
    """The features of an epoch in the order of the images."""
    parts = [(x["cached_features"], y) for x, y in batches.as_numpy_iterator()]
    features, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert sorted(numbers.ravel()) == list(range(COUNT))
    return features[np.argsort(numbers.ravel())]


def changed_images(model, variants=VARIANTS, seed=0):
    augmentation = Augmentation(OPTIONS["augment"], model.task, True, "photos")
    pixels = EXAMPLES.encoded(model).inputs["pixel_values"]
    return [each.rows for each in variants_of(pixels, augmentation, variants, seed)]


@pytest.mark.slow
def test_each_epoch_has_the_features_of_one_variant(model, learner, batches):
    """They are those that the whole model computes of the same changed images."""
    variants = changed_images(model)
    assert all((one != other).any() for one in variants for other in variants if one is not other)
    assert all(each.shape == IMAGES.shape and (each != IMAGES).any() for each in variants)
    batches.cursor.epoch = 0
    found = [rows_of_an_epoch(batches) for _ in range(2 * VARIANTS)]
    for features, pixels in zip(found, 2 * variants, strict=True):
        logits = learner({"cached_features": features})
        np.testing.assert_allclose(logits, model(pixels), atol=1e-5)
        assert np.abs(model(pixels) - model(IMAGES)).max() > 1e-3
    for first, again in zip(found[:VARIANTS], found[VARIANTS:], strict=True):
        np.testing.assert_array_equal(first, again)


def test_the_order_is_that_of_batches_without_variants(learner, batches):
    with quiet():
        plain = EXAMPLES.batches(learner, BATCH, shuffle=True)
    batches.cursor.epoch = 0
    for _ in range(2):
        for (_, one), (_, other) in zip(batches, plain, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_fit_continues_at_its_epoch(batches):
    batches.cursor.epoch = 0
    expected = [rows_of_an_epoch(batches) for _ in range(2)][1]
    batches.cursor.epoch = VARIANTS + 1
    np.testing.assert_array_equal(rows_of_an_epoch(batches), expected)


@pytest.mark.slow
def test_the_seed_determines_the_changes(model):
    first, again = (changed_images(model) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(changed_images(model, variants=1)[0], first[0])
    assert (changed_images(model, seed=1)[0] != first[0]).any()


@pytest.mark.slow
def test_equal_changes_are_read_from_a_folder(model, tmp_path, capsys):
    def lines(**options):
        capsys.readouterr()
        learner = ft.cache_features(model, folder=tmp_path)
        found = rows_of_an_epoch(EXAMPLES.batches(learner, BATCH, **{**OPTIONS, **options}))
        return found, capsys.readouterr().out.splitlines()

    first, said = lines(augment_variants=2)
    assert [line.split(":")[0] for line in said] == [
        f"Features of variant {i} of 2 of photos" for i in (1, 2)
    ]
    assert all("computed once" in line for line in said)
    again, said = lines(augment_variants=2)
    np.testing.assert_array_equal(first, again)
    assert all("read from" in line for line in said)
    other, said = lines(augment_variants=1, augment="flip")
    assert "computed once" in said[0] and (other != first).any()


@pytest.mark.slow
def test_a_fit_lowers_the_loss(model):
    with quiet():
        learner = ft.cache_features(model)
        learner.compile(keras.optimizers.Adam(1e-4), "mse")
        data = EXAMPLES.batches(learner, BATCH, **OPTIONS)
        losses = learner.fit(data, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"augment": None}, "augment_variants= is for augment= with cached features"),
            ({"augment_variants": None}, r"augment=…, augment_variants=4\), which takes four"),
            ({"augment_variants": 0}, "augment_variants must be"),
            ({"shuffle": False}, "augment= is for training"),
            ({"augment": ["flip", keras.layers.MixUp()]}, "has no classes|mixes classes"),
        ],
    )
    def test_options(self, learner, options, message):
        with pytest.raises(ArgumentError, match=message):
            EXAMPLES.batches(learner, BATCH, **{**OPTIONS, **options})

    def test_a_model_without_a_cache(self, model):
        with pytest.raises(ArgumentError, match="each epoch has new changes"):
            EXAMPLES.batches(model, BATCH, **OPTIONS)

    def test_mixing(self):
        examples = ft.data.from_arrays(image=IMAGES[:4], label=["a", "b"] * 2)
        with quiet():
            model = ft.load(TINY_VIT, labels=examples.labels, new_head=True)
            ft.train_only(model, ft.select.head())
        with pytest.raises(ArgumentError, match="'cutmix' mixes the images of each batch"):
            options = {**OPTIONS, "augment": ["flip", "cutmix"]}
            examples.batches(ft.cache_features(model), 2, **options)
