"""SetFit on the draws of a job, for `fewshot.py`; needs setfit and sentence-transformers."""

import json
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments

JOB = json.loads(Path(sys.argv[1]).read_text())


def main() -> None:
    """Trains on each draw with SetFit's defaults, and prints accuracies and processor seconds."""
    imported = common.peak_mb()
    result: dict[str, list] = {"accuracy": [], "processor": [], "steps": []}
    for draw in JOB["draws"]:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.process_time()
            model = SetFitModel.from_pretrained(JOB["checkpoint"])
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=JOB["max_steps"],
                save_strategy="no",
                report_to="none",
                show_progress_bar=False,
            )
            trainer = Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(draw))
            trainer.train()
            result["processor"].append(time.process_time() - begin)
            result["steps"].append(int(trainer.st_trainer.state.global_step))
        predicted = np.asarray(model.predict(JOB["test"]["text"]))
        result["accuracy"].append(float(np.mean(predicted == np.array(JOB["test"]["label"]))))
    common.tell(result, imported)


if __name__ == "__main__":
    main()
