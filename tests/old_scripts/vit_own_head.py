"""Layers of one's own on a ViT, in a functional keras.Model, trained on arrays.

Idioms: TFViTModel inside keras.Model, keras.Input((3, size, size)), vit.vit(inputs)[0][:, 0, :],
ViTFeatureExtractor, vit.trainable = False
"""

import numpy as np
import tensorflow as tf
from material_images import FOLDER, VIT
from PIL import Image

from finetune_tf.compat import TFViTModel, ViTFeatureExtractor

feature_extractor = ViTFeatureExtractor.from_pretrained(VIT)
paths = sorted(FOLDER.glob("*/*.png"))
classes = sorted({path.parent.name for path in paths})
images = [Image.open(path) for path in paths]
x = feature_extractor(images=images, return_tensors="np")["pixel_values"]
y = np.array([classes.index(path.parent.name) for path in paths])

base = TFViTModel.from_pretrained(VIT)
base.trainable = False
pixel_values = tf.keras.layers.Input(shape=x.shape[1:], name="pixel_values", dtype="float32")
embeddings = base.vit(pixel_values)[0][:, 0, :]
hidden = tf.keras.layers.Dense(16, activation="relu")(embeddings)
outputs = tf.keras.layers.Dense(len(classes))(hidden)
model = tf.keras.Model(inputs=pixel_values, outputs=outputs)

before = [weight.numpy() for weight in base.weights]
model.compile(
    optimizer=tf.keras.optimizers.Adam(1e-2),
    loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(x, y, epochs=40, batch_size=12, verbose=0)
assert history.history["accuracy"][-1] > 0.9, history.history
for old, weight in zip(before, base.weights, strict=True):
    np.testing.assert_array_equal(old, weight.numpy())

model.save("own.keras")
again = tf.keras.models.load_model("own.keras", compile=False)
np.testing.assert_allclose(
    again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-5
)
