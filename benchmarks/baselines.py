"""The TF-IDF baseline against what a practitioner writes in five lines of scikit-learn.

    python benchmarks/baselines.py --data ../shared/data/chnsenticorp [--rows 1000] [--seed 0]

Needs a folder with train.csv and test.csv (`text`, `label`). Prints one line of JSON a method with
its accuracy on the test and the seconds that it took; the alternatives are logistic regression with
scikit-learn's defaults on TF-IDF of words, of characters within words, and of characters.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import finetune_tf as ft
from finetune_tf.evaluation.baselines.text import baseline_scores
from finetune_tf.tasks import get_task

ALTERNATIVES = {
    "words 1-2": {"ngram_range": (1, 2)},
    "characters 2-5 within words": {"analyzer": "char_wb", "ngram_range": (2, 5)},
    "characters 1-3": {"analyzer": "char", "ngram_range": (1, 3)},
}


def ours(train: ft.data.Examples, test: ft.data.Examples, seed: int) -> np.ndarray:
    """Class numbers by the baseline "tfidf" of `evaluate`."""
    targets = get_task("text-classification", train.labels).targets(train)
    return baseline_scores("tfidf", train, targets, test, train.labels, seed).argmax(axis=1)


def alternative(
    train: ft.data.Examples, test: ft.data.Examples, features: dict[str, object]
) -> np.ndarray:
    """Class numbers by TF-IDF and logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    targets = get_task("text-classification", train.labels).targets(train)
    model = make_pipeline(TfidfVectorizer(**features), LogisticRegression(max_iter=1000))
    return model.fit(train.columns["text"], targets).predict(test.columns["text"])


def main() -> None:
    """Prints a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train and test .csv")
    parser.add_argument("--rows", type=int, help="only so many texts to learn from")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train = ft.data.from_csv(arguments.data / "train.csv")
    test = ft.data.from_csv(arguments.data / "test.csv", labels=train.labels)
    if arguments.rows:
        train = train.shuffle(arguments.seed).take(arguments.rows)
    right = get_task("text-classification", train.labels).targets(test)
    methods = {"finetune_tf": lambda: ours(train, test, arguments.seed)}
    for name, features in ALTERNATIVES.items():
        methods[name] = lambda features=features: alternative(train, test, features)
    for name, method in methods.items():
        start = time.perf_counter()
        accuracy = float((method() == right).mean())
        seconds = round(time.perf_counter() - start, 1)
        row = {"data": arguments.data.name, "rows": len(train), "method": name}
        print(json.dumps(row | {"accuracy": round(accuracy, 4), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
