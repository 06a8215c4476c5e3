"""A ViT and a BERT trained to match pictures with captions, and zero-shot classes by them.

Idioms: TFVisionTextDualEncoderModel.from_vision_text_pretrained, VisionTextDualEncoderProcessor,
from_tensor_slices of dicts without labels, compile(optimizer=…) and fit,
model.vision_model.trainable, model(…, return_loss=True).loss, save_pretrained, logits_per_image
"""

import numpy as np
import tensorflow as tf
from material_pairs import BERT, PICTURES, VIT
from PIL import Image

from finetune_tf.compat import (
    AutoImageProcessor,
    AutoTokenizer,
    TFVisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    create_optimizer,
)

tokenizer = AutoTokenizer.from_pretrained(BERT)
image_processor = AutoImageProcessor.from_pretrained(VIT)
processor = VisionTextDualEncoderProcessor(image_processor, tokenizer)
model = TFVisionTextDualEncoderModel.from_vision_text_pretrained(VIT, BERT, projection_dim=16)

names = sorted(path.name for path in PICTURES.iterdir())
rows = [(PICTURES / name / f"{i}.png", f"a {name} picture") for i in range(8) for name in names]
inputs = processor(
    text=[caption for _, caption in rows],
    images=[Image.open(path) for path, _ in rows],
    return_tensors="tf",
    padding="max_length",
    max_length=8,
    truncation=True,
)
assert inputs["pixel_values"].shape == (24, 3, 21, 21)

# Three pictures a batch, one of each color, because a batch must not repeat a caption.
data = tf.data.Dataset.from_tensor_slices(dict(inputs)).batch(3)
first = next(iter(data))
before = model(**first, return_loss=True).loss
model.vision_model.trainable = False
frozen = [variable.numpy() for variable in model.vision_model.weights]
optimizer, schedule = create_optimizer(init_lr=1e-2, num_train_steps=160, num_warmup_steps=0)
model.compile(optimizer=optimizer)
history = model.fit(data, validation_data=data.take(2), epochs=20, verbose=0)
after = model(**first, return_loss=True).loss
assert float(after[0]) < 0.3 * float(before[0]), (before, after)
assert history.history["val_loss"][-1] < history.history["val_loss"][0]
for variable, old in zip(model.vision_model.weights, frozen, strict=True):
    np.testing.assert_array_equal(variable, old)

model.save_pretrained("pairs")
processor.save_pretrained("pairs")
again = TFVisionTextDualEncoderModel.from_pretrained("pairs")
processor = VisionTextDualEncoderProcessor.from_pretrained("pairs")
inputs = processor(
    text=[f"a {name} picture" for name in names],
    images=[Image.open(PICTURES / name / "7.png") for name in names],
    return_tensors="tf",
    padding=True,
)
predicted = tf.argmax(again(**inputs).logits_per_image, axis=1)
assert predicted.numpy().tolist() == [0, 1, 2]
