"""Small graphs of several chains, as encoder-decoders and two towers have them."""

import keras
import numpy as np
from keras import ops

from finetune_tf.architectures import EndOfChain

ROWS, WORDS, SIZE = 6, 11, 8
SOURCE, TARGET, PIXELS = 5, 3, 8  # lengths of both sides, and pixels a side of a picture


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """Attention to itself, attention to a memory where there is one, and a feed-forward part."""

    def build(self, hidden_shape, memory_shape=None, bias_shape=None):
        def dense(name):
            layer = keras.layers.Dense(SIZE, name=name)
            layer.build((None, None, SIZE))
            return layer

        self.query, self.key, self.value = (dense(name) for name in ("query", "key", "value"))
        self.inner = dense("inner")
        if memory_shape is not None:
            self.memory_query, self.memory_value = dense("memory_query"), dense("memory_value")

    def call(self, hidden, memory=None, bias=None):
        scores = ops.matmul(self.query(hidden), ops.transpose(self.key(hidden), (0, 2, 1)))
        scores = scores if bias is None else scores + bias
        hidden = hidden + ops.matmul(ops.softmax(scores), self.value(hidden))
        if memory is not None:
            scores = ops.matmul(self.memory_query(hidden), ops.transpose(memory, (0, 2, 1)))
            hidden = hidden + ops.matmul(ops.softmax(scores), self.memory_value(memory))
        return hidden + ops.tanh(self.inner(hidden))

    def compute_output_shape(self, hidden_shape, memory_shape=None, bias_shape=None):
        return hidden_shape


@keras.saving.register_keras_serializable("tests")
class Distances(keras.layers.Layer):
    """A number for each distance between two tokens, which all blocks of a side share."""

    carried = True

    def build(self, ids_shape):
        self.table = self.add_weight((2 * SOURCE,), name="table")

    def call(self, ids):
        places = ops.arange(ops.shape(ids)[1])
        return ops.take(self.table, places[:, None] - places[None] + SOURCE)[None]

    def compute_output_shape(self, ids_shape):
        return (1, ids_shape[1], ids_shape[1])


def t5_like(tied=True, length=None):
    """An encoder and a decoder whose blocks read its output; both sides share a word table."""
    source = keras.Input((length and SOURCE,), dtype="int32", name="input_ids")
    target = keras.Input((length and TARGET,), dtype="int32", name="decoder_input_ids")
    shared = keras.layers.Embedding(WORDS, SIZE, name="shared")
    own = shared if tied else keras.layers.Embedding(WORDS, SIZE, name="decoder_words")

    hidden, bias = shared(source), Distances(name="encoder_distances")(source)
    for i in range(2):
        hidden = Block(name=f"encoder_block_{i}")(hidden, bias=bias)
    hidden = keras.layers.LayerNormalization(name="encoder_norm")(hidden)
    memory = EndOfChain(name="encoder")(hidden)

    hidden, bias = own(target), Distances(name="decoder_distances")(target)
    for i in range(2):
        hidden = Block(name=f"decoder_block_{i}")(hidden, memory, bias)
    hidden = keras.layers.LayerNormalization(name="decoder_norm")(hidden)
    hidden = EndOfChain(name="decoder")(hidden)
    scores = keras.layers.Dense(WORDS, name="lm_head")(hidden)
    return keras.Model([source, target], scores, name="t5")


def t5_data(seed=0):
    random = np.random.default_rng(seed)
    source = random.integers(0, WORDS, (ROWS, SOURCE)).astype("int32")
    target = random.integers(0, WORDS, (ROWS, TARGET)).astype("int32")
    return {"input_ids": source, "decoder_input_ids": target}, np.roll(target, -1, axis=1)


def text_tower(ids, prefix=""):
    hidden = keras.layers.Embedding(WORDS, SIZE, name=f"{prefix}embeddings")(ids)
    for i in range(2):
        hidden = Block(name=f"{prefix}block_{i}")(hidden)
    hidden = keras.layers.LayerNormalization(name=f"{prefix}norm")(hidden)
    pooled = ops.mean(hidden, axis=1)
    return keras.layers.Dense(SIZE, use_bias=False, name=f"{prefix}projection")(pooled)


def image_tower(pixels, prefix=""):
    hidden = keras.layers.Conv2D(SIZE, 4, 4, name=f"{prefix}patches")(pixels)
    hidden = keras.layers.Reshape((-1, SIZE))(hidden)
    for i in range(2):
        hidden = Block(name=f"{prefix}block_{i}")(hidden)
    pooled = ops.mean(hidden, axis=1)
    return keras.layers.Dense(SIZE, use_bias=False, name=f"{prefix}projection")(pooled)


def two_towers(nested=False):
    """Texts and pictures, each to a vector; the outputs are their products."""
    ids = keras.Input((SOURCE,), dtype="int32", name="input_ids")
    pixels = keras.Input((PIXELS, PIXELS, 3), name="pixels")
    if nested:
        text = keras.Model(ids, text_tower(ids), name="text")(ids)
        image = keras.Model(pixels, image_tower(pixels), name="image")(pixels)
    else:
        text = EndOfChain(name="text")(text_tower(ids, "text_"))
        image = EndOfChain(name="image")(image_tower(pixels, "image_"))
    return keras.Model([ids, pixels], ops.matmul(text, ops.transpose(image)), name="clip")


def tower_data(seed=0):
    random = np.random.default_rng(seed)
    ids = random.integers(0, WORDS, (ROWS, SOURCE)).astype("int32")
    pixels = random.normal(size=(ROWS, PIXELS, PIXELS, 3)).astype("float32")
    return {"input_ids": ids, "pixels": pixels}, np.arange(ROWS)


def vit_like():
    """A picture cut into patches, a class token and positions in layers of their own, blocks."""
    pixels = keras.Input((PIXELS, PIXELS, 3), name="pixels")
    hidden = keras.layers.Conv2D(SIZE, 4, 4, name="stem")(pixels)
    hidden = keras.layers.Reshape((-1, SIZE))(hidden)
    hidden = ClassToken(name="first")(hidden)
    hidden = AddPositions(name="places")(hidden)
    for i in range(3):
        hidden = Block(name=f"layer_{i}")(hidden)
    hidden = keras.layers.LayerNormalization(name="top_norm")(hidden)
    return keras.Model(pixels, keras.layers.Dense(2, name="logits")(hidden[:, 0]), name="vit")


class ClassToken(keras.layers.Layer):
    def build(self, shape):
        self.token = self.add_weight((1, 1, SIZE), name="token")

    def call(self, hidden):
        token = ops.broadcast_to(self.token, (ops.shape(hidden)[0], 1, SIZE))
        return ops.concatenate([token, hidden], axis=1)


class AddPositions(keras.layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape[1:], name="table")

    def call(self, hidden):
        return hidden + self.table
