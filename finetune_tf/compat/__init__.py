"""The TensorFlow API of transformers 4, for scripts that still use it.

Replace `from transformers import …` by `from finetune_tf.compat import …`. Models are thin
subclasses of `FineTuneModel`; tokenizers, configs and collators are those of transformers. No other
module of the library imports this package.

Example:
    >>> from finetune_tf.compat import TFAutoModelForSequenceClassification
    >>> old_style = TFAutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=3)
    >>> tuple(old_style(np.array([[2, 5, 6, 3]])).logits.shape)
    (1, 3)
"""

import sys
from typing import Any

from finetune_tf.compat import training
from finetune_tf.compat.classes import CLASSES
from finetune_tf.compat.image_processors import image_processor, is_image_processor
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.compat.processors import is_processor, processor
from finetune_tf.compat.tokenizers import InputExample, InputFeatures, old_style  # noqa: F401
from finetune_tf.families import FAMILIES

# Supports imports from submodules, such as `from transformers.keras_callbacks import …`.
for _module in ("keras_callbacks", "modeling_tf_utils", "modeling_tf_outputs", "optimization_tf"):
    sys.modules[f"{__name__}.{_module}"] = sys.modules[__name__]

_TRAINING_NAMES = (
    "AdamWeightDecay",
    "KerasMetricCallback",
    "PushToHubCallback",
    "WarmUp",
    "create_optimizer",
    "prepare_tf_dataset",
)
_REPLACEMENTS = {
    "TFTrainer": "model.compile() and model.fit(…), or ft.finetune(…)",
    "TFTrainingArguments": "the arguments of ft.finetune, ft.presets and model.fit",
    "pipeline": "ft.predict(model, texts)",
    "DataCollatorForWholeWordMask": "ft.load(…, 'fill-mask') and batches(model, whole_word=True)",
    **dict.fromkeys(
        ("glue_convert_examples_to_features", "squad_convert_examples_to_features"),
        "tokenizer(texts, pairs, return_tensors='tf'), or ft.data.from_csv(…).batches(model)",
    ),
    **dict.fromkeys(
        ("glue_processors", "glue_output_modes", "DataProcessor", "SquadV1Processor"),
        "ft.data.from_csv(…), from_tfds(…) or from_huggingface(…)",
    ),
    "glue_compute_metrics": "ft.evaluate(model, examples)",
}
_OWN_NAMES = (*CLASSES, *_TRAINING_NAMES, "InputExample", "InputFeatures", "TFPreTrainedModel")


def _all_names() -> list[str]:
    """Returns the names for `import *`, including configs and tokenizers of transformers."""
    import transformers

    kinds = ("Config", "Tokenizer", "TokenizerFast", "ImageProcessor", "Processor")
    kinds += ("TextConfig", "VisionConfig")
    prefixes = ("Auto", *(family.class_prefix for family in FAMILIES.values()))
    candidates = {prefix + kind for prefix in prefixes for kind in kinds} | {
        name for name in dir(transformers) if name.startswith("DataCollator")
    }
    return [*_OWN_NAMES, *sorted(name for name in candidates if hasattr(transformers, name))]


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return _all_names()
    if name.startswith("__"):
        raise AttributeError(name)
    # Raise ImportError: Python would replace the message of an AttributeError by its own.
    if name in CLASSES:
        return CLASSES[name]
    if name in _TRAINING_NAMES:
        return getattr(training, name)
    if name in _REPLACEMENTS:
        raise ImportError(f"{name} is not supported. Use instead: {_REPLACEMENTS[name]}.")
    if name.startswith("TF") and name.endswith("PreTrainedModel"):
        return TFPreTrainedModel
    if name.startswith("TF") and name.endswith("MainLayer"):
        model = name.replace("MainLayer", "Model")
        raise ImportError(
            f"{name} is not supported. Use instead: {model}(config), which has the same call."
        )
    if name.startswith("TF"):
        raise ImportError(
            f"finetune_tf has no class {name!r}. It has: {', '.join(sorted(CLASSES))}."
        )
    if name in ("default_data_collator", "tf_default_data_collator"):
        return __getattr__("DefaultDataCollator")(return_tensors="tf")
    import transformers

    if is_image_processor(name):
        return image_processor(name)
    if is_processor(name):
        return processor(name)
    try:
        found = getattr(transformers, name)
    except AttributeError:
        raise ImportError(
            f"Neither finetune_tf.compat nor transformers {transformers.__version__} has {name!r}."
        ) from None
    if isinstance(found, type) and ("Tokenizer" in name or "Collator" in name):
        return old_style(found)
    return found
