"""The layout of transformers: config.json, and the weights of one model class."""

from pathlib import Path
from typing import Any

from finetune_tf.base.json_files import write_json
from finetune_tf.checkpoints.layouts.layout import Layout, Modules
from finetune_tf.checkpoints.layouts.sentence_transformers import POOLING_CONFIG
from finetune_tf.families.family import Family, Head
from finetune_tf.weights.table import Weight, prefixed
from finetune_tf.weights.writing import WeightWriter


class TransformersLayout(Layout):
    """One model class of transformers contains the backbone and the head."""

    def read(self, folder: Path) -> Modules:
        """Returns empty modules: every folder has this layout, which lists no modules."""
        return Modules()

    def rows(self, head: Head) -> list[Weight]:
        """Returns the weight table of the family's own head."""
        return list(head.weights)

    def class_name(self, family: Family, class_suffix: str) -> str:
        """Returns the class for the task, such as "BertForSequenceClassification"."""
        return family.class_name(class_suffix)

    def opens_in(self, family: Family, class_suffix: str) -> str:
        """Returns the class that config.json names."""
        return f"transformers.{self.class_name(family, class_suffix)}"

    def write(
        self, folder: Path, model: Any, family: Family, weights: WeightWriter, max_length: int
    ) -> None:
        """Writes all weights together; names of the backbone get the prefix of task models."""
        backbone = prefixed(family.weights(model.config), family.tensor_prefix)
        head = family.head(model.task.name, model.config)
        weights.write(folder, model.weights, [*self.rows(head), *backbone])
        if model.task.poolings and model.info.pooling != model.task.poolings[0]:
            # The class implies this pooling, but `load` would otherwise use the default one.
            write_json(folder / POOLING_CONFIG, {"pooling_mode": model.info.pooling})


TRANSFORMERS = TransformersLayout()
