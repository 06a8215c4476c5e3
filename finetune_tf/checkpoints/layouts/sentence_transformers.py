"""The layout of sentence-transformers: a transformer, a pooling module, and further modules.

It is read to find out how a checkpoint computes its vectors. It is written for models that no class
of transformers can represent: text embeddings, and classifiers on another pooling than the
family's own. Keys and module paths are written in the old form, which all releases from 2 to 6 of
sentence-transformers can read.
"""

from pathlib import Path
from typing import Any

from finetune_tf.base.json_files import checked, file_inside, member, read_json, write_json
from finetune_tf.base.paths import has_file
from finetune_tf.checkpoints.layouts.layout import Layout, Modules
from finetune_tf.errors import CheckpointError
from finetune_tf.families.config_values import OneOf, integer, read_values
from finetune_tf.families.family import Family, Head
from finetune_tf.weights.files import read_tensors
from finetune_tf.weights.table import Weight, linear, prefixed
from finetune_tf.weights.writing import WeightWriter

_LIST = "modules.json"
_GENERAL = "config_sentence_transformers.json"
_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
_DENSE = "2_Dense"
_PACKAGE = "sentence_transformers"
# The name of the file with the transformer's settings once depended on the family.
_SETTINGS_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
)
_SETTINGS = {
    "max_seq_length": integer(2**31 - 1, nullable=True),
    "do_lower_case": OneOf((True, False, None)),
}

#: File with the settings of the pooling, which other layouts may write as well.
POOLING_CONFIG = "1_Pooling/config.json"
# The weight table of a linear Dense module, which is a classifier in Keras.
_LINEAR = linear("linear", "classifier/dense")


class SentenceTransformersLayout(Layout):
    """A transformer without a head, and one folder for each module that follows it."""

    def read(self, folder: Path) -> Modules | None:
        """Reads modules.json and the config files of the modules.

        Raises:
            CheckpointError: If one of them is damaged or missing, or if the transformer is in
                another folder.
        """
        files = (_LIST, POOLING_CONFIG, f"{_DENSE}/config.json", _GENERAL, *_SETTINGS_FILES)
        return _read(folder) if any(has_file(folder / name) for name in files) else None

    def rows(self, head: Head) -> list[Weight]:
        """Returns the rows of the Dense module, which is the same for all families."""
        return prefixed(_LINEAR, _DENSE)

    def class_name(self, family: Family, class_suffix: str) -> str:
        """Returns the bare model, since the transformer has no head for any task."""
        return f"{family.class_prefix}Model"

    def opens_in(self, family: Family, class_suffix: str) -> str:
        """Returns the same class for all families and tasks."""
        return "sentence_transformers.SentenceTransformer"

    def write(
        self, folder: Path, model: Any, family: Family, weights: WeightWriter, max_length: int
    ) -> None:
        """Writes the transformer, a Dense module if there is a classifier, and modules.json."""
        dense_paths = {path for row in _LINEAR for path in row.variables}
        head = [variable for variable in model.weights if variable.path in dense_paths]
        rest = [variable for variable in model.weights if variable.path not in dense_paths]
        size = model.get_layer("pooling").output.shape[-1]
        weights.write(folder, rest, family.weights(model.config))
        steps = {"": "Transformer", "1_Pooling": "Pooling"}
        files: dict[str, Any] = {
            "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
            POOLING_CONFIG: {
                "word_embedding_dimension": size,
                "pooling_mode_cls_token": model.info.pooling == "cls",
                "pooling_mode_mean_tokens": model.info.pooling == "mean",
                "pooling_mode_max_tokens": False,
                "pooling_mode_mean_sqrt_len_tokens": False,
            },
        }
        if head:
            steps[_DENSE] = "Dense"
            files[f"{_DENSE}/config.json"] = {
                "in_features": size,
                "out_features": model.output.shape[-1],
                "bias": True,
                "activation_function": "torch.nn.modules.linear.Identity",
            }
            (folder / _DENSE).mkdir()
            weights.write(folder / _DENSE, head, _LINEAR, in_shards=False)
        if any(layer.name == "l2_normalize" for layer in model.layers):
            steps["2_Normalize"] = "Normalize"
        files[_LIST] = [
            {"idx": i, "name": str(i), "path": path, "type": f"{_PACKAGE}.models.{name}"}
            for i, (path, name) in enumerate(steps.items())
        ]
        for path, content in files.items():
            write_json(folder / path, content)


SENTENCE_TRANSFORMERS = SentenceTransformersLayout()


def _read(folder: Path) -> Modules:
    listed = _read_module_list(folder)
    # If a class is listed twice, its first path is used.
    paths = {kind: path for kind, path in reversed(listed) if path != folder}
    if "Transformer" in paths:
        raise CheckpointError(
            f"{folder / _LIST} specifies that the transformer is in {paths['Transformer']}, "
            f"but it is read from {folder}. Move the files of the transformer there and set "
            '"path": "" for it in modules.json.'
        )
    dense = paths.get("Dense", folder / _DENSE)
    has_dense = has_file(dense / "config.json")
    activation = _read_value(dense / "config.json", "activation_function", str, "")
    file = next((folder / name for name in _SETTINGS_FILES if has_file(folder / name)), None)
    settings = read_values(file, _SETTINGS) if file else {}
    general = folder / _GENERAL
    prompts = _read_value(general, "prompts", dict, {})
    default = _read_value(general, "default_prompt_name", str, None)
    pooling = paths.get("Pooling", folder / "1_Pooling") / "config.json"
    for module in ("Pooling", "Dense"):
        if module in paths and not has_file(paths[module] / "config.json"):
            raise CheckpointError(
                f"{folder / _LIST} lists the {module} module "
                f"{str(paths[module].relative_to(folder))!r}, but there is no "
                f"{paths[module] / 'config.json'}. Download the complete checkpoint, or "
                "correct the path."
            )
    tensors = read_tensors(dense) if has_dense else {}
    kernel = tensors.get("linear.weight")
    return Modules(
        pooling=_read_pooling(pooling),
        dense={f"{_DENSE}.{name}": tensor for name, tensor in tensors.items()},
        dense_size=next(iter(kernel.shape), None) if kernel else None,
        activation=activation.rpartition(".")[2] or "Identity",
        normalize=any(kind == "Normalize" for kind, _ in listed),
        max_length=settings.get("max_seq_length"),
        types=tuple(kind for kind, _ in listed),
        prompt="" if default is None else member(prompts, default, str, general),
        lower_case=settings.get("do_lower_case", False),
    )


def _read_module_list(folder: Path) -> list[tuple[str, Path]]:
    """Reads the class names and folders of modules.json in order.

    Only classes of sentence-transformers are named without their package, because a class of
    another package may have the same name and compute something else.
    """
    file = folder / _LIST
    modules = []
    for entry in read_json(file, list) if has_file(file) else []:
        checked(entry, dict, f"An entry of {file}", CheckpointError)
        kind = member(entry, "type", str, file, "")
        package, _, rest = kind.partition(".")
        kind = rest.rpartition(".")[2] if package == _PACKAGE else kind
        path = file_inside(folder, member(entry, "path", str, file, ""), file)
        modules.append((kind, path))
    return modules


def _read_value(path: Path, key: str, kind: type, default: Any) -> Any:
    """Returns the value of a key in a JSON file; the default if key or file does not exist."""
    return member(read_json(path), key, kind, path, default) if has_file(path) else default


def _read_pooling(path: Path) -> str | None:
    if not has_file(path):
        return None
    config = read_json(path)
    modes = member(config, "pooling_mode", (str, list), path, "") or [
        _MODES.get(key, key)
        for key in config
        if key.startswith("pooling_mode_") and member(config, key, bool, path, False)
    ]
    modes = [modes] if isinstance(modes, str) else modes
    return "+".join(
        checked(mode, str, f"A pooling mode of {path}", CheckpointError) for mode in modes
    )
