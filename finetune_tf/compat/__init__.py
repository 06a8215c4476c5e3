"""Names of transformers 4's TensorFlow side, for scripts that still use them.

`from transformers import …` becomes `from finetune_tf.compat import …`. Models are thin subclasses
of `FineTuneModel`; tokenizers, configs and collators are those of transformers. A thin layer: the
rest of the library does not know of it.
"""

from typing import Any

from finetune_tf.compat import training
from finetune_tf.compat.classes import CLASSES
from finetune_tf.compat.tokenizers import with_tensorflow

_TRAINING = (
    "AdamWeightDecay",
    "KerasMetricCallback",
    "PushToHubCallback",
    "WarmUp",
    "create_optimizer",
    "prepare_tf_dataset",
)
_INSTEAD = {
    "TFTrainer": "model.compile() and model.fit(…), or ft.finetune(…)",
    "TFTrainingArguments": "the arguments of ft.finetune, ft.presets and model.fit",
    "pipeline": "ft.predict(model, texts)",
    "glue_convert_examples_to_features": "tokenizer(texts, pairs, return_tensors='tf'), or "
    "ft.data.from_csv(…).batches(model)",
    "InputExample": "ft.data.from_arrays(texts, labels)",
    "InputFeatures": "tokenizer(texts, return_tensors='tf')",
}


def __getattr__(name: str) -> Any:
    if name in CLASSES:
        return CLASSES[name]
    if name in _TRAINING:
        return getattr(training, name)
    if name in _INSTEAD:
        raise AttributeError(f"{name} is gone. Write instead: {_INSTEAD[name]}.")
    if name.startswith("TF"):
        raise AttributeError(
            f"finetune_tf has no class {name!r}; there are: {', '.join(sorted(CLASSES))}."
        )
    import transformers

    try:
        found = getattr(transformers, name)
    except AttributeError:
        raise AttributeError(
            f"Neither finetune_tf.compat nor transformers {transformers.__version__} has {name!r}."
        ) from None
    if isinstance(found, type) and ("Tokenizer" in name or "Collator" in name):
        return with_tensorflow(found)
    return found
