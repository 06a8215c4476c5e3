"""Random changes of the images of a batch, the same for equal (seed, epoch, batch).

The layers are those of Keras. They get levels as floats and give levels, which are rounded again.

Shape legend: B batch, H height, W width, C classes.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import keras

from finetune_tf.architectures import PIXELS
from finetune_tf.base.arguments import shown
from finetune_tf.base.extras import require_tensorflow
from finetune_tf.base.keras_internals import seeds_from
from finetune_tf.errors import ArgumentError, DataError
from finetune_tf.tasks import Task

if TYPE_CHECKING:
    import tensorflow as tf

_LEVELS = {"value_range": (0, 255), "dtype": "float32"}
_SMALLEST_AREA = 0.35  # of a crop; classifiers trained from scratch use .08
_ASPECTS = (3 / 4, 4 / 3)
_OPERATIONS = 2  # of RandAugment on each batch

# Changes levels (B, H, W, 3) float32 and, if it mixes images, targets (B, …); None without labels.
Step = Callable[["tf.Tensor", "tf.Tensor | None"], tuple["tf.Tensor", "tf.Tensor | None"]]


def _color() -> keras.layers.Layer:
    return keras.layers.RandomColorJitter(
        brightness_factor=0.2,
        contrast_factor=0.2,
        saturation_factor=(0.4, 0.6),  # 0.5 changes nothing
        hue_factor=0.05,
        **_LEVELS,
    )


def _rand_augment() -> list[keras.layers.Layer]:
    # Not `keras.layers.RandAugment`: up to Keras 3.10 it chooses its operations only once.
    layers, floats = keras.layers, {"dtype": "float32"}
    return [
        layers.RandomRotation(30 / 360, **floats),
        layers.RandomTranslation(0.2, 0.2, **floats),
        layers.RandomShear(0.2, 0.2, **floats),
        layers.RandomBrightness(0.3, **_LEVELS),
        layers.RandomContrast(0.5, **_LEVELS),
        layers.RandomSharpness((0.2, 0.8), **_LEVELS),
        layers.RandomColorDegeneration(0.5, **_LEVELS),
        layers.RandomPosterization((4, 8), **_LEVELS),  # 4 to 7 bits; a single 4 means 1 to 3
        layers.AutoContrast(**_LEVELS),
    ]


#: The words of `batches(augment=…)`, each with what makes its layer or layers; a crop has none.
WORDS: dict[str, Callable[[], Any]] = {
    "flip": lambda: keras.layers.RandomFlip("horizontal", dtype="float32"),
    "crop": lambda: [],
    "color": _color,
    "randaugment": _rand_augment,
    "mixup": lambda: keras.layers.MixUp(alpha=0.2, dtype="float32"),
    "cutmix": lambda: keras.layers.CutMix(factor=(1.0, 1.0), dtype="float32"),
}


class Augmentation:
    """Changes the images of batches at random.

    Args:
        augment: A word of `WORDS`, a Keras preprocessing layer, or a list of these. They are
            applied in this order, and those that mix images last; of several that mix images, one
            is chosen for each batch.
        task: The task of the model.
        has_targets: Whether batches have targets.
        name: The name of the examples, for messages.

    Raises:
        ArgumentError: If something else is given, or the task has no classes to mix.
        MissingExtraError: If TensorFlow is not installed, whose operations change the images.
    """

    def __init__(self, augment: Any, task: Task, has_targets: bool, name: str) -> None:
        if task.preprocessor != "image_processor":
            raise ArgumentError("augment= is for images, but the model reads texts.")
        if task.reads_clips:
            raise ArgumentError(
                "augment= is for images, but the model reads videos, whose frames would be changed "
                "each in its own way. Write augmented clips to the training data instead."
            )
        require_tensorflow("augment= changes images with the operations of")
        is_list = isinstance(augment, list | tuple)
        given = [(each, _layers_of(each)) for each in (augment if is_list else [augment])]
        mixing = [(each, layers) for each, layers in given if _mixes(layers)]
        #: What mixes the images of a batch; None if nothing does.
        self.mixing = mixing[0][0] if mixing else None
        if mixing:
            self._check_mixing(mixing[0][0], task, has_targets, name)
        self._classes = len(task.labels) if mixing and task.output_kind == "classes" else None
        self.layers = [layer for _, layers in given for layer in layers]
        self._steps = [_step_of(each, layers) for each, layers in given if not _mixes(layers)]
        if mixing:
            choices = [functools.partial(_apply_mixing, layers[0]) for _, layers in mixing]
            self._steps.append(functools.partial(_one_of, choices))

    @staticmethod
    def _check_mixing(given: Any, task: Task, has_targets: bool, name: str) -> None:
        word = shown(given)
        if task.output_kind not in ("classes", "several"):
            raise ArgumentError(f"augment={word} mixes classes, but the model has none.")
        if not has_targets:
            raise ArgumentError(f"augment={word} mixes labels, but {name} has none.")

    def __call__(self, dataset: "tf.data.Dataset", seeds: "tf.Tensor") -> "tf.data.Dataset":
        """Returns the batches of an epoch with changed images.

        Args:
            dataset: Batches with the input `pixel_values` (B, H, W, 3) uint8.
            seeds: The seeds of these batches, (batches, 2) int64.
        """
        import tensorflow as tf

        pairs = tf.data.Dataset.zip((dataset, tf.data.Dataset.from_tensor_slices(seeds)))
        plain = tf.autograph.experimental.do_not_convert
        return pairs.map(plain(self._augmented), num_parallel_calls=2, deterministic=True)

    def _augmented(self, batch: Any, seed: "tf.Tensor") -> Any:
        """Returns one batch with changed images; its seed is (2,) int64."""
        import tensorflow as tf

        inputs, targets = batch if isinstance(batch, tuple) else (batch, None)
        pixels = inputs[PIXELS]
        images = tf.cast(pixels, "float32")
        if self._classes is not None:
            targets = tf.one_hot(targets, self._classes, dtype="float32")
        with _drawing(self.layers, seed):
            for step in self._steps:
                images, targets = step(images, targets)
        images = tf.cast(tf.round(tf.clip_by_value(images, 0.0, 255.0)), "uint8")
        inputs = {**inputs, PIXELS: tf.ensure_shape(images, pixels.shape)}
        return (inputs, targets) if isinstance(batch, tuple) else inputs


# The function that returns another seed at each call, while the step of a batch is traced.
_NEXT_SEED: ContextVar[Callable[[], "tf.Tensor"]] = ContextVar("finetune_tf_next_seed")


@contextlib.contextmanager
def _drawing(layers: Sequence[keras.layers.Layer], seed: "tf.Tensor") -> Iterator[None]:
    """Inside the block, the layers and `_uniform` draw from the seed of a batch, (2,) int64."""
    import tensorflow as tf

    numbers = itertools.count()

    def next_seed() -> tf.Tensor:
        return seed + tf.constant([0, next(numbers)], "int64")

    token = _NEXT_SEED.set(next_seed)
    try:
        with seeds_from(next_seed, layers):
            yield
    finally:
        _NEXT_SEED.reset(token)


def _uniform(shape: Any, low: Any, high: Any, dtype: str = "float32") -> "tf.Tensor":
    import tensorflow as tf

    return tf.random.stateless_uniform(shape, _NEXT_SEED.get()(), low, high, dtype)


def _layers_of(given: Any) -> list[keras.layers.Layer]:
    """The layers of a word, or the layer itself in a list."""
    if isinstance(given, keras.layers.Layer):
        return [given]
    if not isinstance(given, str) or given not in WORDS:
        raise ArgumentError(
            f"augment= is one of {', '.join(map(repr, WORDS))}, a Keras preprocessing layer, or a "
            f"list of these; found {shown(given)}."
        )
    layers = WORDS[given]()
    return layers if isinstance(layers, list) else [layers]


def _mixes(layers: list[keras.layers.Layer]) -> bool:
    return any(isinstance(layer, keras.layers.MixUp | keras.layers.CutMix) for layer in layers)


def _step_of(given: Any, layers: list[keras.layers.Layer]) -> Step:
    if given == "crop":
        return _crop
    if given == "randaugment":
        steps = [functools.partial(_apply, each) for each in layers]
        return functools.partial(_some_of, [*steps, _solarize])
    return functools.partial(_apply, layers[0])


def _apply(layer: keras.layers.Layer, images: "tf.Tensor", targets: Any) -> tuple:
    changed = layer(images, training=True)
    if not images.shape.is_compatible_with(changed.shape):
        raise DataError(
            f"A layer of augment= must keep the shape of the images, {tuple(images.shape)}; "
            f"{layer.name} gives {tuple(changed.shape)}."
        )
    import tensorflow as tf

    return tf.ensure_shape(tf.cast(changed, "float32"), images.shape), targets


def _apply_mixing(layer: keras.layers.Layer, images: "tf.Tensor", targets: Any) -> tuple:
    mixed = layer({"images": images, "labels": targets}, training=True)
    return mixed["images"], mixed["labels"]


def _crop(images: "tf.Tensor", targets: Any) -> tuple:
    """Cuts out a part of each image, of another area and proportion, and scales it up."""
    import tensorflow as tf

    size, count = images.shape[1:3], tf.shape(images)[:1]
    area = _uniform(count, _SMALLEST_AREA, 1.0)
    aspect = tf.exp(_uniform(count, *map(tf.math.log, _ASPECTS)))
    height = tf.minimum(tf.sqrt(area / aspect), 1.0)  # (B,), as shares of the image
    width = tf.minimum(tf.sqrt(area * aspect), 1.0)
    top, left = _uniform(count, 0.0, 1.0) * (1 - height), _uniform(count, 0.0, 1.0) * (1 - width)
    boxes = tf.stack([top, left, top + height, left + width], axis=1)
    return tf.image.crop_and_resize(images, boxes, tf.range(count[0]), size), targets


def _solarize(images: "tf.Tensor", targets: Any) -> tuple:
    """Inverts the levels of each image above a threshold in the upper half of the levels.

    Not `keras.layers.Solarization`, whose thresholds are drawn from nearly 0 on, whatever range it
    is given: most of its images are negatives (Keras 3.15).
    """
    import tensorflow as tf

    threshold = _uniform((tf.shape(images)[0], 1, 1, 1), 127.5, 255.0)
    return tf.where(images > threshold, 255.0 - images, images), targets


def _one_of(steps: list[Step], images: "tf.Tensor", targets: Any) -> tuple:
    """Applies one of the steps, chosen at random."""
    import tensorflow as tf

    if len(steps) == 1:
        return steps[0](images, targets)
    branches = [functools.partial(step, images, targets) for step in steps]
    changed, labels = tf.switch_case(_uniform((), 0, len(steps), "int32"), branches)
    return tf.ensure_shape(changed, images.shape), labels


def _some_of(steps: list[Step], images: "tf.Tensor", targets: Any) -> tuple:
    """Applies a few of the steps of RandAugment, chosen at random."""
    alone = [lambda given, _, step=step: (step(given, None)[0], ()) for step in steps]
    for _ in range(_OPERATIONS):
        images, _ = _one_of(alone, images, None)
    return images, targets
