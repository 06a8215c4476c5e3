"""One old class a family and task, made from the registries, and the TFAuto… ones."""

from pathlib import Path
from typing import Any

import keras

from finetune_tf.compat.arguments import family_of_checkpoint
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES
from finetune_tf.tasks import TASKS


def _class(family: str, task: str) -> type[TFPreTrainedModel]:
    name = f"TF{FAMILIES[family].class_prefix}{TASKS[task].class_suffix}"
    body: dict[str, Any] = {
        "family": family,
        "task_name": task,
        "__module__": __name__,
        "__doc__": f"`{name}` of transformers 4: a {family} model for {task}.",
        FAMILIES[family].tensor_prefix: TFPreTrainedModel.base_model,
    }
    made = type(name, (TFPreTrainedModel,), body)
    return keras.saving.register_keras_serializable("finetune_tf")(made)


def _auto(task: str) -> type:
    name = f"TFAutoModel{TASKS[task].class_suffix.removeprefix('Model')}"

    class Auto:
        """Finds the class for a checkpoint's family."""

        @classmethod
        def from_pretrained(cls, checkpoint: str | Path, *args: Any, **options: Any) -> Any:
            """As the class's own; arguments as there."""
            found = family_of_checkpoint(checkpoint, options)
            return _of_family(found, task).from_pretrained(checkpoint, *args, **options)

        @classmethod
        def from_config(cls, config: Any, **options: Any) -> Any:
            """A model with random weights."""
            return _of_family(config.model_type, task).from_config(config, **options)

    Auto.__name__ = Auto.__qualname__ = name
    return Auto


def _of_family(model_type: str, task: str) -> type[TFPreTrainedModel]:
    if model_type not in FAMILIES:
        raise ModelError(
            f"There is no {model_type!r} model here; families are: {', '.join(FAMILIES)}."
        )
    return CLASSES[f"TF{FAMILIES[model_type].class_prefix}{TASKS[task].class_suffix}"]


#: Every old class, by name.
CLASSES: dict[str, type] = {
    made.__name__: made for family in FAMILIES for task in TASKS for made in (_class(family, task),)
}
CLASSES |= {made.__name__: made for task in TASKS for made in (_auto(task),)}
globals().update(CLASSES)  # where Keras looks when it revives a saved model
