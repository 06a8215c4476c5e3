"""What the scripts share: a small random BERT, sentences that say whether a film was good."""

import tempfile
from pathlib import Path

from helpers_models import write_checkpoint

from finetune_tf.demo import minilm

MINILM = str(minilm())
TF4 = Path(__file__).resolve().parents[1] / "fixtures" / "tf4"

GOOD, BAD = ("good", "great", "fine"), ("bad", "poor", "dull")
TEXTS, LABELS = [], []
for start in ("the film was", "a very", "the story was very", "the actor was not long and"):
    for i, word in enumerate((*GOOD, *BAD)):
        for end in ("", "and long", "and short"):
            TEXTS.append(f"{start} {word} {end}".strip())
            LABELS.append(int(i < len(GOOD)))
ORDER = [i * 29 % len(TEXTS) for i in range(len(TEXTS))]  # mixed; 29 and 72 share no factor
TEXTS, LABELS = [TEXTS[i] for i in ORDER], [LABELS[i] for i in ORDER]
SMALL = str(write_checkpoint(Path(tempfile.mkdtemp()) / "small-bert"))
