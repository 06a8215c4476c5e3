"""The options of `finetune-tf generate`, which are the arguments of `ft.generate`."""

from typing import Annotated, Any

import typer

from finetune_tf.cli.options import with_options

# Type and help of each option; None, the default of all, leaves the choice to the checkpoint.
_OPTIONS: dict[str, tuple[Any, str]] = {
    "max_new_tokens": (int, "The maximum number of new tokens; by default 50."),
    "min_new_tokens": (int, "The minimum number of new tokens."),
    "do_sample": (bool, "Draw tokens at random instead of taking the most probable one."),
    "num_beams": (int, "The number of beams of beam search, which --do-sample draws at random."),
    "temperature": (float, "Divide the logits by this before a token is drawn."),
    "top_k": (int, "Draw from this number of most probable tokens; 0 for all."),
    "top_p": (float, "Draw from the most probable tokens with this total probability."),
    "min_p": (float, "Draw from tokens with this fraction of the highest probability."),
    "typical_p": (float, "Draw from the most typical tokens with this total probability."),
    "epsilon_cutoff": (float, "Draw from tokens with at least this probability."),
    "eta_cutoff": (float, "As --epsilon-cutoff, but lower where the entropy is high."),
    "repetition_penalty": (float, "Lower the scores of tokens that already occur, e.g. 1.2."),
    "no_repeat_ngram_size": (int, "Never repeat a sequence of this number of tokens."),
    "encoder_repetition_penalty": (float, "Raise the scores of tokens of the source, e.g. 1.2."),
    "encoder_no_repeat_ngram_size": (int, "Never repeat this number of tokens of the source."),
    "bad_words": (list[str], "A text that is never generated; can be given several times."),
    "stop_strings": (list[str], "End a text that contains this; can be given several times."),
    "length_penalty": (float, "With beams: above 1, prefer long texts; below 1, short ones."),
    "early_stopping": (bool, "With beams: stop as soon as there are enough complete texts."),
    "num_return_sequences": (int, "The number of texts for each prompt."),
    "return_scores": (bool, "Print the log-probability of each text as well."),
}
_NAMES = {
    "stop_strings": ("--stop-strings", "--stop"),
    "return_scores": ("--return-scores/--no-return-scores", "--scores"),
}
# These have a value in any case, as in the other commands.
_ALWAYS: dict[str, tuple[Any, Any]] = {
    "batch_size": (Annotated[int, typer.Option(min=1, help="Prompts in a batch.")], 8),
    "seed": (Annotated[int, typer.Option(help="Seed of all random choices.")], 0),
}


def _generation_options() -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each option by the name of the argument."""
    listed = {
        name: (Annotated[kind | None, typer.Option(*_NAMES.get(name, ()), help=text)], None)
        for name, (kind, text) in _OPTIONS.items()
    }
    return listed | _ALWAYS


def _given(**values: Any) -> dict[str, Any]:
    """The arguments of `ft.generate`: the options that were given."""
    return {name: value for name, value in values.items() if value not in (None, [])}


#: Decorates a command: its parameter `generation` becomes one option for each argument of
#: `ft.generate`. The command gets a dict of those that were given.
takes_generation_options = with_options("generation", _generation_options, _given)
