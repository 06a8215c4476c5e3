"""The model classes of transformers 4: one per family and task, and the TFAuto… classes."""

from pathlib import Path
from typing import Any

import keras

from finetune_tf.compat.arguments import family_of_checkpoint
from finetune_tf.compat.image_models import TFImageModel
from finetune_tf.compat.language_models import TFLanguageModel
from finetune_tf.compat.models import TFPreTrainedModel
from finetune_tf.compat.pair_models import TFDualEncoderModel, TFPairModel
from finetune_tf.compat.towers import TFImageTower, TFTextTower
from finetune_tf.errors import ModelError
from finetune_tf.families import FAMILIES, Family
from finetune_tf.families.towers import CONFIG_KEYS, TOWER_TASKS
from finetune_tf.tasks import TASKS, joint_task

# The base classes of single towers, by families that have classes of them.
_TOWERS = {"clip": (TFImageTower, TFTextTower)}


def _base_class(family: Family, task: str) -> type[TFPreTrainedModel]:
    if family.towers:
        has_own_towers = family.model_type in _TOWERS
        return TFPairModel if has_own_towers else TFDualEncoderModel
    if family.image_processor:
        return TFImageModel
    return TFLanguageModel if TASKS[task].generates_text else TFPreTrainedModel


def _model_class(
    family: str, task: str, base: type | None = None, prefix: str | None = None
) -> type[TFPreTrainedModel]:
    """Makes the class of a family and a task.

    Args:
        family: The `model_type` of the family.
        task: The name of the task.
        base: The base class; by default that of the family.
        prefix: The prefix of the name; by default that of the family.
    """
    name = f"TF{FAMILIES[family].class_name(TASKS[task].class_suffix)}"
    if prefix is not None:
        name = f"TF{prefix}{TASKS[task].class_suffix}"
    base = base or _base_class(FAMILIES[family], task)
    body: dict[str, Any] = {
        "family": family,
        "task_name": task,
        "__module__": __name__,
        "__doc__": f"`{name}` of transformers 4: a {family} model for {task}.",
        FAMILIES[family].tensor_prefix or family: base.base_model,
    }
    made = type(name, (base,), body)
    return keras.saving.register_keras_serializable("finetune_tf")(made)


def _tower_classes() -> list[type[TFPreTrainedModel]]:
    """Makes the classes of single towers, such as TFCLIPTextModel."""
    classes = []
    for family, bases in _TOWERS.items():
        for base in bases:
            of_tower = FAMILIES[family].towers[CONFIG_KEYS[base.tower]]({})
            task = TOWER_TASKS[base.tower]
            classes.append(_model_class(family, task, base, of_tower.class_prefix))
    return classes


def _auto_class(name: str) -> type:
    class Auto:
        """Selects the model class by the family of a checkpoint."""

        @classmethod
        def from_pretrained(cls, checkpoint: str | Path, *args: Any, **options: Any) -> Any:
            """Loads a checkpoint, with the arguments of the selected class."""
            family = family_of_checkpoint(checkpoint, options)
            return _find_class(family, name).from_pretrained(checkpoint, *args, **options)

        @classmethod
        def from_config(cls, config: Any, **options: Any) -> Any:
            """Creates a model with random weights."""
            return _find_class(config.model_type, name).from_config(config, **options)

    Auto.__name__ = Auto.__qualname__ = name
    return Auto


def _auto_name(task: str) -> str:
    name = f"TFAutoModel{TASKS[task].auto_suffix or TASKS[task].class_suffix}"
    return name.replace("ModelModel", "Model")


def _find_class(model_type: str, auto_name: str) -> type[TFPreTrainedModel]:
    if model_type not in FAMILIES:
        raise ModelError(
            f"finetune_tf has no {model_type!r} models. It has these families: "
            f"{', '.join(FAMILIES)}."
        )
    tasks = _AUTO_TASKS[auto_name]
    known = {task: made for (family, task), made in _BY_FAMILY.items() if family == model_type}
    found = [known[task] for task in tasks if task in known]
    if found:
        return found[0]
    if not known:
        raise ModelError(
            f"transformers 4 had no TensorFlow classes of {model_type} models. Load the checkpoint "
            "with ft.load(checkpoint)."
        )
    raise ModelError(
        f"{model_type} models have no class for {tasks[0]}. They have classes for: "
        f"{', '.join(known)}."
    )


def _tasks_of(family: Family) -> list[str]:
    """Returns the tasks for which a family has a head, and transformers 4 had classes.

    A head with a backbone of its own is that of a prefix language model, which is new.
    """
    if not family.has_old_classes:
        return []
    heads = family.heads(family.complete({"model_type": family.model_type}))
    return [name for name in _OLD_TASKS if name in heads and heads[name].backbone is None]


_OLD_TASKS = [name for name, task in TASKS.items() if task.has_old_classes]
_BY_FAMILY = {
    (family.model_type, task): _model_class(family.model_type, task)
    for family in FAMILIES.values()
    for task in _tasks_of(family)
}

# Several tasks may share an Auto… class: TFAutoModel is that of bare models of texts and of images.
_AUTO_TASKS: dict[str, list[str]] = {}
for _task in _OLD_TASKS:
    _AUTO_TASKS.setdefault(_auto_name(_task), []).append(_task)
_AUTO_TASKS["TFAutoModelForZeroShotImageClassification"] = [joint_task(has_labels=False)]

#: All model classes of transformers 4 by name.
CLASSES: dict[str, type] = {made.__name__: made for made in _BY_FAMILY.values()}
CLASSES |= {made.__name__: made for made in _tower_classes()}
CLASSES |= {name: _auto_class(name) for name in _AUTO_TASKS}
globals().update(CLASSES)  # Keras looks up the class here when it loads a saved model
