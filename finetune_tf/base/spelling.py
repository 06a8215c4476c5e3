"""Checks of the names and types of arguments.

`names_checked` decorates every public function. Before the function runs, it compares the keyword
arguments of the call with the signature. If a name is misspelled or belongs to another library
(`sep` of pandas, `num_classes` of Keras, `num_labels` of transformers), the error suggests the name
that is used here. A flag must be true or false. If the function raises an exception and an argument
is not an instance of its annotated class, the error reports that argument. The ranges of numbers
are checked in `arguments`.
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

#: The names that other libraries use, by the name that is used here. A name may be listed for
#: several arguments; the first one that the function has is suggested.
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
    "augment": "augmentation augmentations augmenter data_augmentation transform transforms",
    "shuffle": "shuffled random",
    "max_length": "max_len maxlen max_seq_length max_seq_len maximum_length seq_length seq_len "
    "sequence_length length model_max_length max_tokens truncation",
    "max_new_tokens": "max_length max_tokens num_tokens max_gen_len max_output_tokens",
    "min_new_tokens": "min_length",
    "bad_words": "bad_words_ids",
    "stop_strings": "stop stop_words stop_sequences stopping_criteria",
    "max_target_length": "max_summary_length target_length max_output_length",
    "prefix": "source_prefix task_prefix",
    "languages": "language_pair languages_pair lang_pair source_lang target_lang",
    "mask_rate": "rate mlm_probability masking_rate mask_probability mask_prob",
    "whole_word": "whole_word_mask whole_words",
    "stride": "doc_stride overlap",
    "epochs": "epoch num_epochs n_epochs nb_epoch nb_epochs num_train_epochs max_epochs",
    "learning_rate": "lr learningrate rate learn_rate eta",
    "optimizer": "optim optimiser opt",
    "schedule": "scheduler lr_scheduler lr_scheduler_type lr_schedule decay",
    "warmup_steps": "num_warmup_steps warmup_iterations",
    "warmup_ratio": "warmup warm_up warmup_proportion warmup_steps num_warmup_steps",
    "rates": "learning_rates rate_factors lr_multipliers param_groups parameter_groups",
    "no_decay": "exclude_from_weight_decay no_weight_decay",
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
    "dropout": "dropout_rate hidden_dropout_prob hidden_dropout classifier_dropout lora_dropout",
    "task": "task_name pipeline",
    "policy": "freeze trainable train_only strategy selector",
    "pooling": "pooler pool pooling_mode pooling_strategy",
    "new_head": "ignore_mismatched_sizes reset_head",
    "gradient_checkpointing": "checkpointing use_gradient_checkpointing",
    "revision": "branch version commit",
    "callbacks": "callback",
    "keep": "load_best_model_at_end save_best restore_best_weights",
    "baseline": "baselines compare_with",
    "rank": "r lora_r lora_rank",
    "alpha": "lora_alpha",
    "targets": "target_modules target_layers modules",
    "adapter": "config peft_config lora_config",
    "share": "alpha ratio weight coefficient fraction mix",
    "shares": "alphas ratios weights coefficients fractions",
    "folder": "path output output_dir directory dir save_directory filepath cache_dir",
    "n": "count number rows size",
    "ways": "way n_way n_ways num_ways",
    "shots": "shot k_shot n_shot n_shots num_shots",
    "queries": "query n_query n_queries num_queries",
    "episodes": "tasks num_tasks num_episodes iterations",
    "inner_rate": "inner_lr inner_learning_rate fast_lr",
}

#: Where to set something, for functions that do not have the argument.
PLACES: dict[str, str] = {
    "padding": "Batches are padded automatically, each one to the length of its longest row",
    "truncation": "Texts are truncated to max_length= automatically",
    "learning_rate": "Pass the learning rate to a preset: "
    "model.compile(**ft.presets.cross_entropy(learning_rate=2e-5))",
    "weight_decay": "Pass the weight decay to a preset: "
    "model.compile(**ft.presets.cross_entropy(weight_decay=0.01))",
    "warmup_ratio": "Pass the warm-up ratio to a preset: "
    "model.compile(**ft.presets.cross_entropy(warmup_ratio=0.1))",
    "label_smoothing": "Label smoothing applies to single-label classification only: "
    "ft.presets.cross_entropy(label_smoothing=0.1)",
    "epochs": "Pass the epochs to model.fit(batches, epochs=3) or to ft.finetune",
    "batch_size": "Set the batch size when you make batches: "
    "examples.batches(model, batch_size=32)",
    "max_length": "Pass the number of tokens to ft.load(checkpoint, max_length=128)",
    "eos_token_id": "Set it in model.info.generation['eos_token_id']",
    "pad_token_id": "Prompts of different lengths need no padding; leave it out",
    "return_full_text": "The text is returned without its prompt: prompt + text is the full text",
    "shuffle": "Shuffle when you make batches: examples.batches(model, shuffle=True)",
    "labels": "Pass the labels to ft.load(checkpoint, labels=train.labels)",
    "label": 'Name the label column when you read the data: ft.data.from_csv(path, label="stars")',
    "text": 'Name the text column when you read the data: ft.data.from_csv(path, text="…")',
    "task": "Pass the task to ft.load(checkpoint, task)",
    "seed": "Pass the seed to examples.batches, examples.split or ft.finetune",
    "columns": 'Name each column by its own argument: text="…", text_pair="…", label="…"',
    "metrics": "Presets include a loss and metrics. Pass other metrics to compile: "
    "model.compile(**(preset | {'metrics': […]}))",
    "loss": "Each preset has its loss; choose the preset that has the loss you need",
    "class_weight": "Pass class weights to model.fit(batches, class_weight={…})",
    "device": 'TensorFlow chooses the device; use a block `with tf.device("/CPU:0"):` to choose '
    "another one",
}


def names_checked(
    function: Function | None = None, *, also: Names | Callable[[], Names] = ()
) -> Function:
    """Decorates a function so that unknown argument names raise a helpful error.

        @names_checked
        def load(checkpoint, task="text-classification", *, labels=None): ...

        @names_checked(also=("tokens", "tags"))
        def from_csv(path, text="text", **columns): ...

    Args:
        function: The function to decorate.
        also: Names that the function accepts in its `**` argument, or a dict from each name to its
            synonyms, separated by spaces; or a function that returns either if they are not known
            at import time.

    Example:
        >>> from finetune_tf.base.spelling import names_checked
        >>> @names_checked
        ... def load(checkpoint, labels=None):
        ...     return labels
        >>> load("bert", num_labels=2)
        Traceback (most recent call last):
            ...
        finetune_tf.errors.UnknownArgumentError: load() has no argument 'num_labels'. Did you mean
        labels=?
    """
    if function is None:
        return functools.partial(names_checked, also=also)
    signature = inspect.signature(function)
    kinds = [(name, parameter.kind) for name, parameter in signature.parameters.items()]
    parameters = [
        name
        for name, kind in kinds
        if kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and name not in ("self", "cls")
    ]
    qualified = function.__qualname__.removesuffix(".__init__")
    known = frozenset(parameters)
    classes = {name: _accepted_classes(signature.parameters[name]) for name in parameters}
    classes = {name: accepted for name, accepted in classes.items() if accepted}
    flags = [name for name, accepted in classes.items() if accepted == (bool,)]
    has_var_keyword = any(kind is inspect.Parameter.VAR_KEYWORD for _, kind in kinds)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if not known.issuperset(kwargs):
            more = also() if callable(also) else also
            names = [*parameters, *more]
            synonyms = more if isinstance(more, Mapping) else {}
            accepts_any = has_var_keyword and not also
            for name in kwargs:
                if name not in names and not accepts_any:
                    raise unknown_argument(f"{qualified}()", name, names, synonyms)
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise UnknownArgumentError(_binding_error(qualified, parameters, error)) from None
        for name in flags:
            if name in bound and not _is_flag(bound[name]):
                raise _wrong_type(name, classes[name], bound[name])
        try:
            return function(*args, **kwargs)
        except FinetuneError:
            raise
        except Exception as error:
            wrong = [n for n in classes if n in bound and not _is_instance(bound[n], classes[n])]
            if not wrong:
                raise
            raise _wrong_type(wrong[0], classes[wrong[0]], bound[wrong[0]]) from error

    return checked


# How messages call these classes; any other class is called by its own name.
_CLASS_NAMES: dict[type, str] = {
    str: "a string",
    bool: "True or False",
    Path: "a path",
    type(None): "None",
    Mapping: "a dict",
    Iterable: "a list",
    Sequence: "a list",
}


def _accepted_classes(parameter: inspect.Parameter) -> tuple[type, ...]:
    """Returns the accepted classes; empty for numbers and for annotations that are no classes."""
    annotation = parameter.annotation
    members = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if any(get_origin(member) is Literal for member in members):
        literals = [m for m in members if get_origin(m) is Literal]
        members = [m for m in members if m not in literals]
        members += [type(value) for literal in literals for value in get_args(literal)]
    members = [get_origin(member) or member for member in members]
    not_checked = (int, float, Any, object, inspect.Parameter.empty)
    if any(not isinstance(member, type) or member in not_checked for member in members):
        return ()
    return tuple(members)


def _is_instance(value: Any, accepted: tuple[type, ...]) -> bool:
    return isinstance(value, accepted) or (Path in accepted and isinstance(value, os.PathLike))


def _is_flag(value: Any) -> bool:
    """Whether a value is a Python or NumPy bool, 0 or 1; a string such as "no" is not."""
    return not isinstance(value, str) and getattr(value, "ndim", 0) == 0 and value in (0, 1)


def _wrong_type(name: str, accepted: tuple[type, ...], value: Any) -> ArgumentTypeError:
    expected = " or ".join(_CLASS_NAMES.get(each, f"a {each.__name__}") for each in accepted)
    return ArgumentTypeError(f"{name} must be {expected}, found {shown(value)}.")


def unknown_argument(
    who: str, name: str, names: list[str], synonyms: Mapping[str, str] | None = None
) -> UnknownArgumentError:
    """Creates the error for an unknown argument, which suggests the intended one.

    Args:
        who: The function, for the message: "load()".
        name: The unknown name.
        names: The names that the function accepts.
        synonyms: Further `SYNONYMS`, of arguments that only this function has.
    """
    message = f"{who} has no argument {name!r}."
    meant = meant_by(name, names, synonyms)
    advice = PLACES.get(name) or next(
        (PLACES[known] for known in _names_here(name) if known in PLACES), None
    )
    if meant:
        return UnknownArgumentError(f"{message} Did you mean {meant}=?")
    if advice:
        return UnknownArgumentError(f"{message} {advice}.")
    return UnknownArgumentError(f"{message} It has {', '.join(names) or 'none'}.")


def meant_by(
    name: str, names: Iterable[str], synonyms: Mapping[str, str] | None = None
) -> str | None:
    """Returns the accepted name that an unknown name most likely refers to, or None.

    Args:
        name: The unknown name.
        names: The accepted names.
        synonyms: Further `SYNONYMS`.

    Example:
        >>> from finetune_tf.base.spelling import meant_by
        >>> meant_by("lr", ["epochs", "learning_rate"]), meant_by("epoch", ["epochs"])
        ('learning_rate', 'epochs')
    """
    names = list(names)
    for known in _names_here(name, synonyms):
        if known in names:
            return known
    if name.lower() in PLACES:
        return None
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    return close[0] if close else None


def _names_here(name: str, synonyms: Mapping[str, str] | None = None) -> list[str]:
    """Returns the arguments of this library that other libraries call by this name."""
    plain = name.lower().replace("-", "_").strip("_")
    every = {**SYNONYMS, **(synonyms or {})}
    return [known for known, others in every.items() if plain in others.split()]


def _binding_error(function: str, parameters: list[str], error: TypeError) -> str:
    """Explains why a call does not match the signature, in place of Python's message."""
    text = str(error)
    if text.startswith("missing a required"):
        missing = text.rpartition(": ")[2]
        return (
            f"{function}() needs the argument {missing}. Its arguments are {', '.join(parameters)}."
        )
    if text.startswith("too many positional"):
        return (
            f"{function}() got too many positional arguments. Pass them by name; its arguments "
            f"are {', '.join(parameters)}."
        )
    return f"{function}(): {text}."
