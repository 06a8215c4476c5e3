"""The module layout of sentence-transformers: transformer, pooling, and what follows.

Read to learn how a checkpoint's vectors were made, and written for models that no class of
PyTorch's transformers can hold: classifiers on another pooling than the family's own, and
embeddings of texts. The keys and module paths written are the old ones, which every release from
2 to 6 understands.
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
# The file of the transformer's settings was once called after the family.
_SETTINGS_FILES = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
)
_SETTINGS = {
    "max_seq_length": integer(2**31 - 1, nullable=True),
    "do_lower_case": OneOf((True, False, None)),
}

#: The settings of the pooling, which other layouts may say there, too.
POOLING_CONFIG = "1_Pooling/config.json"
# Rows of a linear Dense module that is a classifier here.
_LINEAR = linear("linear", "classifier/dense")


class SentenceTransformersLayout(Layout):
    """A transformer without a head, and a folder for each module behind it."""

    def read(self, folder: Path) -> Modules | None:
        """What modules.json and the files of the modules say.

        Raises:
            CheckpointError: If a file of them is damaged or missing, or the transformer lies in
                another folder.
        """
        files = (_LIST, POOLING_CONFIG, f"{_DENSE}/config.json", _GENERAL, *_SETTINGS_FILES)
        return _read(folder) if any(has_file(folder / name) for name in files) else None

    def rows(self, head: Head) -> list[Weight]:
        """The rows of the Dense module, whatever the family's own head is."""
        return prefixed(_LINEAR, _DENSE)

    def class_name(self, family: Family, class_suffix: str) -> str:
        """The transformer has no head, whatever the task is."""
        return f"{family.class_prefix}Model"

    def opens_in(self, family: Family, class_suffix: str) -> str:
        """One class for all families and tasks."""
        return "sentence_transformers.SentenceTransformer"

    def write(
        self, folder: Path, model: Any, family: Family, weights: WeightWriter, max_length: int
    ) -> None:
        """Writes the transformer, a Dense module if there is a classifier, and their list."""
        in_dense = {path for row in _LINEAR for path in row.variables}
        head = [variable for variable in model.weights if variable.path in in_dense]
        rest = [variable for variable in model.weights if variable.path not in in_dense]
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
    listed = _listed(folder)
    paths = {kind: path for kind, path in reversed(listed) if path != folder}  # the first counts
    if "Transformer" in paths:
        raise CheckpointError(
            f"{folder / _LIST} says that the transformer lies in {paths['Transformer']}, "
            f"but it is read from {folder}. Move the files of the transformer there and write "
            '"path": "" for it in modules.json.'
        )
    dense = paths.get("Dense", folder / _DENSE)
    has_dense = has_file(dense / "config.json")
    activation = _value(dense / "config.json", "activation_function", str, "")
    file = next((folder / name for name in _SETTINGS_FILES if has_file(folder / name)), None)
    settings = read_values(file, _SETTINGS) if file else {}
    general = folder / _GENERAL
    prompts = _value(general, "prompts", dict, {})
    default = _value(general, "default_prompt_name", str, None)
    pooling = paths.get("Pooling", folder / "1_Pooling") / "config.json"
    for module in ("Pooling", "Dense"):
        if module in paths and not has_file(paths[module] / "config.json"):
            raise CheckpointError(
                f"{folder / _LIST} names the {module} module "
                f"{str(paths[module].relative_to(folder))!r}, but there is no "
                f"{paths[module] / 'config.json'}. Get the whole checkpoint, or correct the name."
            )
    tensors = read_tensors(dense) if has_dense else {}
    kernel = tensors.get("linear.weight")
    return Modules(
        pooling=_pooling(pooling),
        dense={f"{_DENSE}.{name}": tensor for name, tensor in tensors.items()},
        dense_size=next(iter(kernel.shape), None) if kernel else None,
        activation=activation.rpartition(".")[2] or "Identity",
        normalize=any(kind == "Normalize" for kind, _ in listed),
        max_length=settings.get("max_seq_length"),
        types=tuple(kind for kind, _ in listed),
        prompt="" if default is None else member(prompts, default, str, general),
        lower_case=settings.get("do_lower_case", False),
    )


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """The modules of modules.json in order: the name of the class, and the folder.

    Of a class of sentence-transformers the name is its last part. Another package's class may have
    the same last part and compute something else.
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


def _value(path: Path, key: str, kind: type, default: Any) -> Any:
    """The value of a key in a JSON file, or the default if one of them is not there."""
    return member(read_json(path), key, kind, path, default) if has_file(path) else default


def _pooling(path: Path) -> str | None:
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
