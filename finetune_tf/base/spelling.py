"""Names and types of arguments: a wrong one is an error of the library that says what is right.

`names_checked` stands above every public function. It compares the names of a call with those of
the function before that runs, so that a misspelt or foreign name (pandas' `sep`, Keras's
`num_classes`, transformers' `num_labels`) is told with what it is called here. A flag that is
neither true nor false is refused. Where a function fails and an argument is not of the class that
its annotation names, that is what the error says. For numbers there are ranges, in
`arguments`.
"""

import difflib
import functools
import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from finetune_tf.base.arguments import shown
from finetune_tf.errors import ArgumentTypeError, FinetuneError, UnknownArgumentError

Function = TypeVar("Function", bound=Callable[..., Any])
Names = Iterable[str] | Mapping[str, str]

#: What arguments are called elsewhere, by what they are called here. A name may stand for several
#: arguments; the first one that a function has is meant.
SYNONYMS: dict[str, str] = {
    "text": "texts sentence sentences text_column text_col x inputs input content body document "
    "documents review reviews sentence1 data",
    "texts": "text sentence sentences x inputs input content data",
    "text_pair": "text_pairs pair pairs text2 sentence2 second_text text_b pair_column",
    "label": "target targets label_column label_col labels_column y class class_column output "
    "outputs stars score tag",
    "labels": "num_labels num_classes n_classes n_labels nb_classes num_class class_names "
    "classes label_names label_list id2label label2id num_outputs n_outputs",
    "delimiter": "sep separator delim delimiters",
    "quotechar": "quote quotes quoting",
    "encoding": "charset enc codec",
    "on_invalid": "on_bad_lines errors on_error invalid drop_invalid dropna skip_invalid",
    "path": "file filename file_name filepath file_path filepath_or_buffer fname data_files csv io",
    "frame": "df dataframe data_frame data",
    "dataset": "dataset_name ds data name path",
    "builder": "dataset dataset_name ds name path",
    "sheet": "sheet_name sheetname worksheet tab",
    "split": "subset part which",
    "config": "config_name configuration subset name",
    "name": "title",
    "batch_size": "batchsize batch bs batch_sz per_device_train_batch_size train_batch_size "
    "per_device_eval_batch_size eval_batch_size",
    "tokens_per_batch": "max_tokens batch_tokens max_tokens_per_batch",
    "drop_remainder": "drop_last",
    "shuffle": "shuffled random",
    "max_length": "max_len maxlen max_seq_length max_seq_len maximum_length seq_length seq_len "
    "sequence_length length model_max_length max_tokens truncation",
    "mask_rate": "rate mlm_probability masking_rate mask_probability mask_prob",
    "whole_word": "whole_word_mask whole_words",
    "stride": "doc_stride overlap",
    "epochs": "epoch num_epochs n_epochs nb_epoch nb_epochs num_train_epochs max_epochs",
    "learning_rate": "lr learningrate rate learn_rate eta",
    "optimizer": "optim optimiser opt",
    "schedule": "scheduler lr_scheduler lr_scheduler_type lr_schedule decay",
    "warmup_ratio": "warmup warm_up warmup_steps num_warmup_steps warmup_proportion",
    "weight_decay": "decay wd weight_decay_rate l2",
    "clip_norm": "clipnorm clip global_clipnorm max_grad_norm gradient_clip_val grad_clip",
    "accumulate": "gradient_accumulation_steps accumulation accumulation_steps",
    "label_smoothing": "smoothing label_smoothing_factor",
    "fraction": "frac test_size validation_split ratio share size test_ratio val_split",
    "seed": "random_state random_seed rng",
    "checkpoint": "model model_name model_id pretrained_model_name_or_path name_or_path "
    "pretrained name path preset handle folder",
    "train": "train_data train_dataset training training_data train_set train_ds train_examples "
    "data dataset x",
    "validation": "val valid dev eval eval_dataset validation_data val_data val_dataset "
    "validation_set val_ds eval_data valid_data",
    "test": "test_data test_dataset test_set test_ds data dataset examples x",
    "dtype": "torch_dtype precision fp16 bf16 mixed_precision",
    "dropout": "dropout_rate hidden_dropout_prob hidden_dropout classifier_dropout",
    "task": "task_name pipeline",
    "policy": "freeze trainable train_only strategy selector",
    "pooling": "pooler pool pooling_mode pooling_strategy",
    "new_head": "ignore_mismatched_sizes reset_head",
    "gradient_checkpointing": "checkpointing use_gradient_checkpointing",
    "revision": "branch version commit",
    "callbacks": "callback",
    "keep": "load_best_model_at_end save_best restore_best_weights",
    "baseline": "baselines compare_with",
    "folder": "path output output_dir directory dir save_directory filepath cache_dir",
    "n": "count number rows size",
}

#: What is said elsewhere, for a function that has no such argument.
PLACES: dict[str, str] = {
    "padding": "Batches pad each row to the length of its batch by themselves",
    "truncation": "Texts are cut to max_length= by themselves",
    "learning_rate": "A learning rate is given to a preset: "
    "model.compile(**ft.presets.cross_entropy(learning_rate=2e-5))",
    "weight_decay": "Weight decay is given to a preset: "
    "model.compile(**ft.presets.cross_entropy(weight_decay=0.01))",
    "warmup_ratio": "Warm-up is given to a preset: "
    "model.compile(**ft.presets.cross_entropy(warmup_ratio=0.1))",
    "label_smoothing": "Label smoothing is for classes of which one is right: "
    "ft.presets.cross_entropy(label_smoothing=0.1)",
    "epochs": "Epochs are given to model.fit(batches, epochs=3) or to ft.finetune",
    "batch_size": "A batch size is given where batches are made: "
    "examples.batches(model, batch_size=32)",
    "max_length": "Texts are cut where batches are made: examples.batches(model, max_length=128)",
    "shuffle": "Rows are shuffled where batches are made: examples.batches(model, shuffle=True)",
    "labels": "Labels are given to ft.load(checkpoint, labels=train.labels)",
    "label": "The column of the labels is named when data are read: "
    'ft.data.from_csv(path, label="stars")',
    "text": 'The column of the texts is named when data are read: ft.data.from_csv(path, text="…")',
    "task": "The task is given to ft.load(checkpoint, task)",
    "seed": "A seed is given to examples.batches, examples.split and ft.finetune",
    "columns": 'Columns are named one by one: text="…", text_pair="…", label="…"',
    "metrics": "Presets come with loss and metrics; give others to compile: "
    "model.compile(**(preset | {'metrics': […]}))",
    "loss": "Presets come with their loss; choose the preset that has it",
    "class_weight": "Class weights are given to model.fit(batches, class_weight={…})",
    "device": 'TensorFlow chooses the device; say with tf.device("/CPU:0"): to choose another',
}


def names_checked(
    function: Function | None = None, *, also: Names | Callable[[], Names] = ()
) -> Function:
    """Decorates a function: a call with a wrong name of an argument is explained.

        @names_checked
        def load(checkpoint, task="text-classification", *, labels=None): ...

        @names_checked(also=("tokens", "tags"))
        def from_csv(path, text="text", **columns): ...

    Args:
        function: The function.
        also: Names that it accepts in its `**` argument, or a dict from each to what it is called
            elsewhere, separated by spaces; or a function that returns either, where they are not
            known yet.
    """
    if function is None:
        return functools.partial(names_checked, also=also)
    signature = inspect.signature(function)
    kinds = [(name, parameter.kind) for name, parameter in signature.parameters.items()]
    own = [
        name
        for name, kind in kinds
        if kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and name not in ("self", "cls")
    ]
    qualified = function.__qualname__.removesuffix(".__init__")
    known = frozenset(own)
    plain = {name: _plain_types(signature.parameters[name]) for name in own}
    plain = {name: allowed for name, allowed in plain.items() if allowed}
    flags = [name for name, allowed in plain.items() if allowed == (bool,)]
    takes_more = any(kind is inspect.Parameter.VAR_KEYWORD for _, kind in kinds)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not known.issuperset(kwargs):
            more = also() if callable(also) else also
            names = [*own, *more]
            synonyms = more if isinstance(more, Mapping) else {}
            open_ended = takes_more and not also
            for name in kwargs:
                if name not in names and not open_ended:
                    raise unknown_argument(f"{qualified}()", name, names, synonyms)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise UnknownArgumentError(_misfit(qualified, own, error)) from None
        for name in flags:
            if name in given and not _is_flag(given[name]):
                raise _wrong_type(name, plain[name], given[name])
        try:
            return function(*args, **kwargs)
        except FinetuneError:
            raise
        except Exception as error:
            wrong = [n for n in plain if n in given and not _is_of(given[n], plain[n])]
            if not wrong:
                raise
            raise _wrong_type(wrong[0], plain[wrong[0]], given[wrong[0]]) from error

    return checked


# How types are told; another class is told by its name.
_WORDS: dict[type, str] = {
    str: "a text",
    bool: "True or False",
    Path: "a path",
    type(None): "None",
    Mapping: "a dict",
    Iterable: "a list",
    Sequence: "a list",
}


def _plain_types(parameter: inspect.Parameter) -> tuple[type, ...]:
    """The classes that an argument may be of; none if its annotation says more, or a number."""
    annotation = parameter.annotation
    members = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if any(get_origin(member) is Literal for member in members):
        literals = [m for m in members if get_origin(m) is Literal]
        members = [m for m in members if m not in literals]
        members += [type(value) for literal in literals for value in get_args(literal)]
    members = [get_origin(member) or member for member in members]
    open_ended = (int, float, Any, object, inspect.Parameter.empty)
    if any(not isinstance(member, type) or member in open_ended for member in members):
        return ()
    return tuple(members)


def _is_of(value: Any, allowed: tuple[type, ...]) -> bool:
    return isinstance(value, allowed) or (Path in allowed and isinstance(value, os.PathLike))


def _is_flag(value: Any) -> bool:
    """Whether a value is true or false, as Python, NumPy or C has it; "no" is not."""
    return not isinstance(value, str) and getattr(value, "ndim", 0) == 0 and value in (0, 1)


def _wrong_type(name: str, allowed: tuple[type, ...], value: Any) -> ArgumentTypeError:
    words = " or ".join(_WORDS.get(each, f"a {each.__name__}") for each in allowed)
    return ArgumentTypeError(f"{name} is {words}, found {shown(value)}.")


def unknown_argument(
    who: str, name: str, names: list[str], synonyms: Mapping[str, str] | None = None
) -> UnknownArgumentError:
    """The error for an argument that does not exist, with the one that is probably meant.

    Args:
        who: What was called.
        name: The name that it does not know.
        names: Those that it knows.
        synonyms: Further `SYNONYMS`, of arguments that only this function has.
    """
    told = f"{who} has no argument {name!r}."
    meant = meant_by(name, names, synonyms)
    elsewhere = PLACES.get(name) or next(
        (PLACES[right] for right in _rights(name) if right in PLACES), None
    )
    if meant:
        return UnknownArgumentError(f"{told} Did you mean {meant}=?")
    if elsewhere:
        return UnknownArgumentError(f"{told} {elsewhere}.")
    return UnknownArgumentError(f"{told} It has {', '.join(names) or 'none'}.")


def meant_by(
    name: str, names: Iterable[str], synonyms: Mapping[str, str] | None = None
) -> str | None:
    """The one of the names that a wrong name probably means, or None.

    Args:
        name: The wrong name.
        names: The right names.
        synonyms: Further `SYNONYMS`.
    """
    names = list(names)
    for right in _rights(name, synonyms):
        if right in names:
            return right
    if name.lower() in PLACES:
        return None
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    return close[0] if close else None


def _rights(name: str, synonyms: Mapping[str, str] | None = None) -> list[str]:
    """What a name from elsewhere may be called here."""
    plain = name.lower().replace("-", "_").strip("_")
    known = {**SYNONYMS, **(synonyms or {})}
    return [right for right, others in known.items() if plain in others.split()]


def _misfit(function: str, own: list[str], error: TypeError) -> str:
    text = str(error)
    if text.startswith("missing a required"):
        missing = text.rpartition(": ")[2]
        return f"{function}() needs the argument {missing}. Its arguments are {', '.join(own)}."
    if text.startswith("too many positional"):
        return (
            f"{function}() got too many values without a name. Give them by name; its arguments "
            f"are {', '.join(own)}."
        )
    return f"{function}(): {text}."
