"""Baselines on real translations, dialogues and pronunciations.

The data are not part of the project: Multi30k, DialogSum and English words with their phonemes as
JSON Lines in one folder each, in the folder that FINETUNE_TF_DATA names.
"""

import os
from pathlib import Path

import pytest

import finetune_tf as ft
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.tasks import get_task

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("FINETUNE_TF_DATA", ROOT / "shared" / "data"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"FINETUNE_TF_DATA names no folder: {DATA}"),
]


def measures(task, folder, source, target, test_target=None):
    """The metrics of each baseline of a task, and the predictions."""
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA} has no folder {folder}.")
    train = ft.data.from_jsonl(DATA / folder / "train.jsonl", source=source, target=target)
    test = ft.data.from_jsonl(
        DATA / folder / "test.jsonl", source=source, target=test_target or target
    )
    known, expected = (get_task(task).targets(examples) for examples in (train, test))
    found, predictions = {}, {}
    evaluator = EVALUATORS[task]
    for name, baseline in evaluator.baselines.items():
        predictions[name] = baseline(train, known, test, None, 0)
        found[name] = evaluator.measure(expected, predictions[name], None)
    return found, predictions, expected


def test_translation():
    import sacrebleu

    found, predictions, expected = measures("translation", "multi30k", "en", "de")
    references = [texts[0] for texts in expected]
    for name, texts in predictions.items():
        bleu = sacrebleu.corpus_bleu(texts, [references]).score
        assert found[name]["bleu"] == pytest.approx(bleu, 1e-12)
    assert found["dictionary"]["bleu"] > 10 > 1 > found["copy"]["bleu"]


def test_summarization_with_three_references():
    found, _, expected = measures(
        "summarization", "dialogsum", "dialogue", "summary", test_target="summaries"
    )
    assert {len(references) for references in expected} == {3}
    assert found["lead-3"]["rougeL"] > found["textrank"]["rougeL"] > 0.2


def test_pronunciation():
    found, *_ = measures("text2text-generation", "g2p", "word", "phonemes")
    assert found["nearest"]["chrf"] > 40 > 10 > found["copy"]["chrf"]
