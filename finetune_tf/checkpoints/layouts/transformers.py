"""The layout of PyTorch's transformers: config.json and the weights of one class of model."""

from pathlib import Path
from typing import Any

from finetune_tf.base.json_files import write_json
from finetune_tf.checkpoints.layouts.layout import Layout, Modules
from finetune_tf.checkpoints.layouts.sentence_transformers import POOLING_CONFIG
from finetune_tf.families.family import Family, Head
from finetune_tf.weights.table import Weight, prefixed
from finetune_tf.weights.writing import WeightWriter


class TransformersLayout(Layout):
    """One class of transformers holds the backbone and the head."""

    def read(self, folder: Path) -> Modules:
        """Every folder is one of this layout; nothing in it says what follows the transformer."""
        return Modules()

    def rows(self, head: Head) -> list[Weight]:
        """The family's own rows for the task."""
        return list(head.weights)

    def class_name(self, family: Family, class_suffix: str) -> str:
        """The class for the task, such as "BertForSequenceClassification"."""
        return family.class_name(class_suffix)

    def opens_in(self, family: Family, class_suffix: str) -> str:
        """The class that config.json names."""
        return f"transformers.{self.class_name(family, class_suffix)}"

    def write(
        self, folder: Path, model: Any, family: Family, weights: WeightWriter, max_length: int
    ) -> None:
        """Writes one set of weights, the backbone's under the prefix that task models have."""
        backbone = prefixed(family.weights(model.config), family.tensor_prefix)
        head = family.head(model.task.name, model.config)
        weights.write(folder, model.weights, [*self.rows(head), *backbone])
        if model.task.poolings and model.info.pooling != model.task.poolings[0]:
            # The class has this pooling inside; a load here would take it for another one.
            write_json(folder / POOLING_CONFIG, {"pooling_mode": model.info.pooling})


TRANSFORMERS = TransformersLayout()
