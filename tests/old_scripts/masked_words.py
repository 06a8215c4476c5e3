"""Words behind a mask.

Idioms: TFAutoModelForMaskedLM, tokenizer.mask_token, DataCollatorForLanguageModeling
"""

import numpy as np
import tensorflow as tf
from material import SMALL, TEXTS

from finetune_tf.compat import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    TFAutoModelForMaskedLM,
)

tokenizer = AutoTokenizer.from_pretrained(SMALL)
model = TFAutoModelForMaskedLM.from_pretrained(SMALL)
encoding = tokenizer(TEXTS, padding=True, return_tensors="np")
collator = DataCollatorForLanguageModeling(
    tokenizer, mlm_probability=0.3, return_tensors="tf", seed=0
)
batch = collator([{"input_ids": row} for row in encoding["input_ids"]])
assert np.any(batch["input_ids"] == tokenizer.mask_token_id)

model.compile(optimizer=tf.keras.optimizers.Adam(5e-3))
data = tf.data.Dataset.from_tensor_slices(dict(batch)).batch(8)
losses = model.fit(data, epochs=10, verbose=0).history["loss"]
assert losses[-1] < 0.6 * losses[0], losses

masked = tokenizer(f"the {tokenizer.mask_token} was very good", return_tensors="tf")
place = int(np.argmax(masked["input_ids"][0] == tokenizer.mask_token_id))
best = tf.argmax(model(**masked).logits[0, place])
assert tokenizer.decode([int(best)]) in ("film", "story", "actor")
