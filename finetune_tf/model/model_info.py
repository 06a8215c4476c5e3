"""Metadata of a model: checkpoint, task, labels, config and training record."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from finetune_tf.base.files import write_text
from finetune_tf.base.labels import Labels
from finetune_tf.base.paths import absolute


class Config(dict):
    """A Hugging Face config, with `config.hidden_size` as well as `config["hidden_size"]`.

    As an attribute, `id2label` has integer keys; `num_labels` is the number of labels.

    Example:
        >>> from finetune_tf.model.model_info import Config
        >>> config = Config({"hidden_size": 384, "id2label": {"0": "bad", "1": "good"}})
        >>> config.hidden_size, config.id2label[1], config.num_labels
        (384, 'good', 2)
    """

    def __getattr__(self, name: str) -> Any:
        """Returns the value of a key."""
        if name == "num_labels":
            return len(self.get("id2label", {}))
        if name not in self:
            raise AttributeError(f"The config has no key {name!r}.")
        if name == "id2label":
            return {int(number): label for number, label in self[name].items()}
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_dict(self) -> dict:
        """Returns a copy as a plain dict."""
        return dict(self)

    def to_json_string(self) -> str:
        """Returns the content of a config.json."""
        return json.dumps(self, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json into a folder, which is created if it does not exist."""
        write_text(absolute(folder) / "config.json", self.to_json_string())


@dataclasses.dataclass
class ModelInfo:
    """Metadata of a model, which is part of its Keras config.

    Attributes:
        checkpoint: The name of the checkpoint as passed to `load`.
        tokenizer: The folder that the tokenizer is loaded from.
        task: The name of the task.
        labels: The names of the outputs, or None if they have no names.
        pooling: "pooler" (that of the model family), "cls" or "mean"; None without pooling.
        config: The complete Hugging Face config, as it will be saved.
        head_layers: The names of the layers that the checkpoint did not train.
        initial_weights: For their randomly initialized variables, a dict from path to shape and
            checksum of the initial values; see `finetune_tf.training.untrained`.
        file_dtype: The dtype of the weights in the checkpoint, used for saving as well.
        max_length: The number of tokens to which the checkpoint truncates texts, or None.
        record: The history of the model for its model card: data, fits and results.
        pretrained: The paths of the variables that `load` filled with trained tensors. All other
            variables (a new head, an adapter) are new. None if unknown, as in files of older
            versions.
        generation: The content of the checkpoint's generation_config.json.
        image_processor: The content of preprocessor_config.json, with all defaults; empty for a
            model of texts.
    """

    checkpoint: str
    tokenizer: str
    task: str
    labels: Labels | None
    pooling: str | None
    config: dict
    head_layers: tuple[str, ...]
    max_length: int | None = None
    initial_weights: dict[str, list] = dataclasses.field(default_factory=dict)
    file_dtype: str = "float32"
    record: dict = dataclasses.field(default_factory=dict)
    pretrained: tuple[str, ...] | None = None
    generation: dict[str, Any] = dataclasses.field(default_factory=dict)
    image_processor: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.config = Config(self.config)
        self.head_layers = tuple(self.head_layers)
        self.pretrained = None if self.pretrained is None else tuple(self.pretrained)

    def to_dict(self) -> dict:
        """Returns a JSON-serializable copy."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["config"] = dict(self.config)
        names = self.labels and {
            "names": list(self.labels),
            "problem_type": self.labels.problem_type,
        }
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        return values | lists | {"labels": names}

    @classmethod
    def from_dict(cls, values: dict) -> "ModelInfo":
        """Creates the metadata from the result of `to_dict`."""
        labels = values["labels"] and Labels(**values["labels"])
        return cls(**{**values, "labels": labels})
