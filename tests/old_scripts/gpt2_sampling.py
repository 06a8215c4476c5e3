"""Text from GPT-2: greedy, by beam search and by sampling, as in "How to generate text".

Idioms: encode(return_tensors="tf"), do_sample, top_k, top_p, temperature, num_return_sequences
"""

import tensorflow as tf
from material_text import GPT2

from finetune_tf.compat import AutoTokenizer, TFGPT2LMHeadModel

tokenizer = AutoTokenizer.from_pretrained(GPT2)
model = TFGPT2LMHeadModel.from_pretrained(GPT2, pad_token_id=tokenizer.eos_token_id)
input_ids = tokenizer.encode("the actor was", return_tensors="tf")

greedy = model.generate(input_ids, max_length=15)
assert isinstance(greedy, tf.Tensor) and greedy.shape[1] <= 15
assert tokenizer.decode(greedy[0]).startswith("the actor was")
beams = model.generate(
    input_ids,
    max_length=15,
    num_beams=5,
    no_repeat_ngram_size=2,
    num_return_sequences=5,
    early_stopping=True,
)
assert len(beams) == 5

tf.random.set_seed(0)
options = dict(do_sample=True, max_length=15, top_k=50, top_p=0.95, num_return_sequences=3)
samples = model.generate(input_ids, temperature=0.9, **options)
assert samples.shape[0] == 3
others = model.generate(input_ids, temperature=0.9, **options)
tf.random.set_seed(0)
again = model.generate(input_ids, temperature=0.9, **options)
assert samples.shape == again.shape and bool(tf.reduce_all(samples == again))
assert samples.shape != others.shape or not bool(tf.reduce_all(samples == others))
for i, sample in enumerate(samples):
    print(f"{i}: {tokenizer.decode(sample, skip_special_tokens=True)}")
