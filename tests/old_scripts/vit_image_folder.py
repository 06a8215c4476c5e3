"""ViT fine-tuned on a folder of pictures with a folder for each class.

Idioms: TFAutoModelForImageClassification, AutoImageProcessor(…, return_tensors="tf"),
from_tensor_slices of dicts with "labels", compile(optimizer=…) without a loss, create_optimizer,
KerasMetricCallback, PushToHubCallback(tokenizer=image_processor), predict(…).logits
"""

import numpy as np
import tensorflow as tf
from material_images import FOLDER, VIT
from PIL import Image

from finetune_tf.compat import (
    AutoImageProcessor,
    KerasMetricCallback,
    PushToHubCallback,
    TFAutoModelForImageClassification,
    create_optimizer,
)

names = sorted(path.name for path in FOLDER.iterdir())
label2id = {name: str(i) for i, name in enumerate(names)}
id2label = {str(i): name for i, name in enumerate(names)}
paths = sorted(FOLDER.glob("*/*.png"), key=lambda path: path.name)
labels = np.array([int(label2id[path.parent.name]) for path in paths])

image_processor = AutoImageProcessor.from_pretrained(VIT)
images = [Image.open(path).convert("RGB") for path in paths]
inputs = image_processor(images=images, return_tensors="tf")
assert inputs["pixel_values"].shape == (36, 3, 21, 21)

data = tf.data.Dataset.from_tensor_slices({**inputs, "labels": labels})
test, train = data.take(9).batch(9), data.skip(9).shuffle(27, seed=0).batch(9)

model = TFAutoModelForImageClassification.from_pretrained(
    VIT, id2label=id2label, label2id=label2id, ignore_mismatched_sizes=True
)
optimizer, schedule = create_optimizer(
    init_lr=1e-2, num_train_steps=len(train) * 20, num_warmup_steps=0, weight_decay_rate=0.01
)
model.compile(optimizer=optimizer)


def compute_metrics(prediction):
    logits, targets = prediction
    return {"accuracy": float(np.mean(np.argmax(logits, axis=1) == targets))}


callbacks = [
    KerasMetricCallback(metric_fn=compute_metrics, eval_dataset=test),
    PushToHubCallback(output_dir="colors", tokenizer=image_processor, save_strategy="no"),
]
history = model.fit(train, validation_data=test, epochs=20, callbacks=callbacks, verbose=0)
assert history.history["accuracy"][-1] > 0.9, history.history

model.save_pretrained("colors")
image_processor.save_pretrained("colors")
again = TFAutoModelForImageClassification.from_pretrained("colors")
logits = again.predict(test, verbose=0).logits
np.testing.assert_allclose(logits, model.predict(test, verbose=0).logits, rtol=1e-5, atol=1e-5)

blue = AutoImageProcessor.from_pretrained("colors")(
    Image.open(FOLDER / "blue" / "11.png"), return_tensors="tf"
)
predicted = int(tf.math.argmax(again(**blue).logits, axis=-1)[0])
assert again.config.id2label[predicted] == "blue"
