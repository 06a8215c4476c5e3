"""Classes of a picture by ResNet, and its features, as on the pages of the models.

Idioms: AutoFeatureExtractor(…, return_tensors="tf"), TFResNetForImageClassification,
TFResNetModel, model(**inputs).logits, config.id2label, list(last_hidden_state.shape)
"""

import numpy as np
import tensorflow as tf
from material_images import FOLDER, RESNET
from PIL import Image

from finetune_tf.compat import (
    AutoFeatureExtractor,
    TFResNetForImageClassification,
    TFResNetModel,
)

image = Image.open(FOLDER / "red" / "0.png")
feature_extractor = AutoFeatureExtractor.from_pretrained(RESNET)
model = TFResNetForImageClassification.from_pretrained(RESNET)

inputs = feature_extractor(image, return_tensors="tf")
assert list(inputs["pixel_values"].shape) == [1, 3, 37, 37]
logits = model(**inputs).logits
predicted_label = int(tf.math.argmax(logits, axis=-1)[0])
assert model.config.id2label[predicted_label].startswith("LABEL_")

bare = TFResNetModel.from_pretrained(RESNET)
outputs = bare(**inputs)
last_hidden_states = outputs.last_hidden_state
assert last_hidden_states.shape[0] == 1 and len(last_hidden_states.shape) == 4
assert list(outputs.pooler_output.shape) == [1, last_hidden_states.shape[1], 1, 1]
mean = tf.reduce_mean(last_hidden_states, axis=(2, 3))
np.testing.assert_allclose(mean, outputs.pooler_output[:, :, 0, 0], rtol=1e-5, atol=1e-6)

features = model.resnet(inputs["pixel_values"], output_hidden_states=True)
np.testing.assert_allclose(features[0], last_hidden_states, rtol=1e-5, atol=1e-6)
assert [len(state.shape) for state in features.hidden_states] == [4] * len(features.hidden_states)
