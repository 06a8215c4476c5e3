"""What a model knows besides its weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from finetune_tf.base.files import write_text
from finetune_tf.base.labels import Labels
from finetune_tf.base.paths import absolute


class Config(dict):
    """A Hugging Face config, with `config.hidden_size` as well as `config["hidden_size"]`.

    As attributes, classes of `id2label` are numbers, and `num_labels` says how many there are.
    """

    def __getattr__(self, name: str) -> Any:
        """A key."""
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
        """A copy."""
        return dict(self)

    def to_json_string(self) -> str:
        """What stands in a config.json."""
        return json.dumps(self, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json into a folder, which is made if need be."""
        write_text(absolute(folder) / "config.json", self.to_json_string())


@dataclasses.dataclass
class ModelInfo:
    """What a model knows besides its weights; it travels in the Keras config.

    Attributes:
        checkpoint: As the user called it.
        tokenizer: Folder that the tokenizer is loaded from.
        task: Name of the task.
        labels: Names of the outputs, or None where they have none.
        pooling: "pooler" (the family's own), "cls" or "mean"; None where nothing is pooled.
        config: The complete Hugging Face config, as it will be saved.
        head_layers: Names of the layers that no checkpoint has trained.
        initial_weights: Of the variables in them that were drawn anew: path to shape and checksum
            of the first values; see `finetune_tf.training.untrained`.
        file_dtype: Type of numbers of the checkpoint's weights, in which the model is saved again.
        max_length: Tokens that the checkpoint wants texts cut to, or None.
        record: What was done with the model, for its card: data, fits, results.
        pretrained: Paths of the variables that the load filled with trained tensors; what is not
            among them (a new head, an adapter) is new, wherever it stands. None if that is not
            known: files of older versions do not say it.
        generation: The content of the checkpoint's generation_config.json.
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

    def __post_init__(self) -> None:
        self.config = Config(self.config)
        self.head_layers = tuple(self.head_layers)
        self.pretrained = None if self.pretrained is None else tuple(self.pretrained)

    def to_dict(self) -> dict:
        """A JSON-safe copy."""
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
        """The inverse of `to_dict`."""
        labels = values["labels"] and Labels(**values["labels"])
        return cls(**{**values, "labels": labels})
