"""Names of transformers 4's TensorFlow side, for scripts that still use them.

`from transformers import …` becomes `from finetune_tf.compat import …`. Models are thin subclasses
of `FineTuneModel`; tokenizers, configs and collators are those of transformers. A thin layer: the
rest of the library does not know of it.
"""

import sys
from typing import Any

from finetune_tf.compat import training
from finetune_tf.compat.classes import CLASSES
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.compat.tokenizers import InputExample, InputFeatures, old_style  # noqa: F401
from finetune_tf.families import FAMILIES

# `from transformers.keras_callbacks import …` and its kin.
for _module in ("keras_callbacks", "modeling_tf_utils", "modeling_tf_outputs", "optimization_tf"):
    sys.modules[f"{__name__}.{_module}"] = sys.modules[__name__]

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
_OURS = (*CLASSES, *_TRAINING, "InputExample", "InputFeatures", "TFPreTrainedModel")


def _everything() -> list[str]:
    """For `import *`, in which the courses got their configs and tokenizers."""
    import transformers

    kinds = ("Config", "Tokenizer", "TokenizerFast")
    prefixes = ("Auto", *(family.class_prefix for family in FAMILIES.values()))
    theirs = {prefix + kind for prefix in prefixes for kind in kinds} | {
        name for name in dir(transformers) if name.startswith("DataCollator")
    }
    return [*_OURS, *sorted(name for name in theirs if hasattr(transformers, name))]


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return _everything()
    if name.startswith("__"):
        raise AttributeError(name)
    # Below an ImportError, as Python puts a sentence of its own in the place of an AttributeError.
    if name in CLASSES:
        return CLASSES[name]
    if name in _TRAINING:
        return getattr(training, name)
    if name in _INSTEAD:
        raise ImportError(f"{name} is gone. Write instead: {_INSTEAD[name]}.")
    if name.startswith("TF") and name.endswith("PreTrainedModel"):
        return TFPreTrainedModel
    if name.startswith("TF") and name.endswith("MainLayer"):
        model = name.replace("MainLayer", "Model")
        raise ImportError(f"{name} is gone. Write instead: {model}(config), which is called alike.")
    if name.startswith("TF"):
        raise ImportError(
            f"finetune_tf has no class {name!r}; there are: {', '.join(sorted(CLASSES))}."
        )
    if name in ("default_data_collator", "tf_default_data_collator"):
        return __getattr__("DefaultDataCollator")(return_tensors="tf")
    import transformers

    try:
        found = getattr(transformers, name)
    except AttributeError:
        raise ImportError(
            f"Neither finetune_tf.compat nor transformers {transformers.__version__} has {name!r}."
        ) from None
    if isinstance(found, type) and ("Tokenizer" in name or "Collator" in name):
        return old_style(found)
    return found
