"""The model classes of transformers 4: one per family and task, and the TFAuto… classes."""

from pathlib import Path
from typing import Any

import keras

from finetune_tf.compat.arguments import family_of_checkpoint
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.tasks import TASKS


def _model_class(family: str, task: str) -> type[TFPreTrainedModel]:
    name = f"TF{FAMILIES[family].class_name(TASKS[task].class_suffix)}"
    body: dict[str, Any] = {
        "family": family,
        "task_name": task,
        "__module__": __name__,
        "__doc__": f"`{name}` of transformers 4: a {family} model for {task}.",
        FAMILIES[family].tensor_prefix: TFPreTrainedModel.base_model,
    }
    made = type(name, (TFPreTrainedModel,), body)
    return keras.saving.register_keras_serializable("finetune_tf")(made)


def _auto_class(task: str) -> type:
    name = f"TFAutoModel{TASKS[task].class_suffix.removeprefix('Model')}"

    class Auto:
        """Selects the model class by the family of a checkpoint."""

        @classmethod
        def from_pretrained(cls, checkpoint: str | Path, *args: Any, **options: Any) -> Any:
            """Loads a checkpoint, with the arguments of the selected class."""
            family = family_of_checkpoint(checkpoint, options)
            return _find_class(family, task).from_pretrained(checkpoint, *args, **options)

        @classmethod
        def from_config(cls, config: Any, **options: Any) -> Any:
            """Creates a model with random weights."""
            return _find_class(config.model_type, task).from_config(config, **options)

    Auto.__name__ = Auto.__qualname__ = name
    return Auto


def _find_class(model_type: str, task: str) -> type[TFPreTrainedModel]:
    if model_type not in FAMILIES:
        raise ModelError(
            f"finetune_tf has no {model_type!r} models. It has these families: "
            f"{', '.join(FAMILIES)}."
        )
    return CLASSES[f"TF{FAMILIES[model_type].class_name(TASKS[task].class_suffix)}"]


_OLD_TASKS = [name for name, task in TASKS.items() if task.has_old_classes]

#: All model classes of transformers 4 by name.
CLASSES: dict[str, type] = {
    made.__name__: made
    for family in FAMILIES
    for task in _OLD_TASKS
    for made in (_model_class(family, task),)
}
CLASSES |= {made.__name__: made for task in _OLD_TASKS for made in (_auto_class(task),)}
globals().update(CLASSES)  # Keras looks up the class here when it loads a saved model
