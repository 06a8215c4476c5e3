"""Adapters: small trainable parts of built layers (LoRA, DoRA, IA3, bottleneck).

    model = ft.load("bert-base-uncased", labels=train.labels)
    ft.adapters.add(model, ft.adapters.LoRA(rank=8))
    model.compile()
    model.fit(train.batches(model, 32, shuffle=True), epochs=3)
    ft.adapters.save_peft(model, "my-adapter")  # a folder of PEFT, with the head
    model.save_pretrained("my-model")  # all weights, the adapter merged

An adapter is a sublayer of the layer that it adapts, which is never replaced.
"""

from finetune_tf.adapters.activity import switch
from finetune_tf.adapters.adding import add, remove
from finetune_tf.adapters.merging import merge, unmerge
from finetune_tf.adapters.peft_reading import load_peft
from finetune_tf.adapters.peft_writing import save_peft
from finetune_tf.adapters.settings import IA3, Bottleneck, LoRA

__all__ = [
    "IA3",
    "Bottleneck",
    "LoRA",
    "add",
    "load_peft",
    "merge",
    "remove",
    "save_peft",
    "switch",
    "unmerge",
]
