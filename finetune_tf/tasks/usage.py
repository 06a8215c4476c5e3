"""Code that model cards show: how a model is used in each library that opens its folder."""

from dataclasses import dataclass

_PIPELINE = """from transformers import pipeline

classify = pipeline("{{task}}", model="{{folder}}"{options})
classify("…")"""
_ENCODE = """from sentence_transformers import SentenceTransformer

{result} = SentenceTransformer("{{folder}}").encode(["…"])"""
_LOAD = """import finetune_tf as ft

model = ft.load("{{folder}}"{task})
{predict}"""


@dataclass(frozen=True)
class Usage:
    """Code for each library, in which "{folder}" and "{task}" are filled in.

    Attributes:
        transformers: Code that returns in transformers what `predict` returns, or the logits.
        sentence_transformers: The same in sentence-transformers.
        finetune_tf: The same in this library.
    """

    transformers: str
    sentence_transformers: str
    finetune_tf: str

    def code(self, library: str, folder: str, task: str) -> str:
        """The code for one library.

        Args:
            library: Name of its Python package.
            folder: Path of the model's folder.
            task: Name of the task.

        Example:
            >>> from finetune_tf.tasks.usage import make_usage
            >>> print(make_usage().code("finetune_tf", "folder", "fill-mask"))
            import finetune_tf as ft
            <BLANKLINE>
            model = ft.load("folder", "fill-mask")
            ft.predict(model, ["…"])
        """
        return getattr(self, library).format(folder=folder, task=task)


def make_usage(
    predict: str = 'ft.predict(model, ["…"])',
    names_task: bool = True,
    encoded: str = "embeddings",
    pipeline_options: str = "",
    transformers: str | None = None,
) -> Usage:
    """The code for a task.

    Args:
        predict: A call of `predict`.
        names_task: Whether `load` has to be given the name of the task.
        encoded: What `encode` of sentence-transformers returns.
        pipeline_options: Further arguments of transformers' pipeline.
        transformers: Code for transformers; by default a pipeline of the task's name.
    """
    return Usage(
        transformers=transformers or _PIPELINE.format(options=pipeline_options),
        sentence_transformers=_ENCODE.format(result=encoded),
        finetune_tf=_LOAD.format(predict=predict, task=', "{task}"' if names_task else ""),
    )
