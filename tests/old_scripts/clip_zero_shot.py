"""Zero-shot classification by CLIP: the classes of pictures by the texts that describe them.

Idioms: TFCLIPModel, CLIPProcessor(text=…, images=…, return_tensors="tf", padding=True),
model(**inputs).logits_per_image, tf.nn.softmax, get_text_features, get_image_features,
TFCLIPVisionModel, pooler_output
"""

import numpy as np
import tensorflow as tf
from material_pairs import CLIP, PICTURES
from PIL import Image

from finetune_tf.compat import CLIPProcessor, CLIPTokenizer, TFCLIPModel, TFCLIPVisionModel

model = TFCLIPModel.from_pretrained(CLIP)
processor = CLIPProcessor.from_pretrained(CLIP)

classes = sorted(path.name for path in PICTURES.iterdir())
image = Image.open(PICTURES / "red" / "0.png")
inputs = processor(
    text=[f"a photo of something {name}" for name in classes],
    images=image,
    return_tensors="tf",
    padding=True,
)
outputs = model(**inputs)
logits_per_image = outputs.logits_per_image  # the similarity of the image with each text
probs = tf.nn.softmax(logits_per_image, axis=1)
assert probs.shape == (1, len(classes))
np.testing.assert_allclose(tf.reduce_sum(probs, axis=1), [1.0], rtol=1e-6)
np.testing.assert_array_equal(outputs[0], logits_per_image)

# The vectors of many pictures and of the classes are computed once, and compared by their cosine.
tokenizer = CLIPTokenizer.from_pretrained(CLIP)
texts = tokenizer([f"a {name} picture" for name in classes], padding=True, return_tensors="tf")
text_features = tf.math.l2_normalize(model.get_text_features(**texts), axis=-1)
paths = sorted(PICTURES.glob("*/*.png"))
pixels = processor(images=[Image.open(path) for path in paths], return_tensors="tf")
image_features = tf.math.l2_normalize(model.get_image_features(**pixels), axis=-1)
cosines = tf.matmul(image_features, text_features, transpose_b=True)
assert cosines.shape == (24, 3)

scaled = cosines * tf.exp(tf.convert_to_tensor(model.logit_scale))
expected = model(**texts, **pixels).logits_per_image
np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)

vision = TFCLIPVisionModel.from_pretrained(CLIP)
pooled = vision(**pixels).pooler_output
projected = model.clip.visual_projection(pooled)
np.testing.assert_allclose(tf.math.l2_normalize(projected, -1), image_features, atol=1e-5)
