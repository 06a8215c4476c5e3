"""Training steps of PEFT on PyTorch, for `adapters`; the settings are those of `ours_adapters`."""

import os

import common

job = common.job()

import torch  # noqa: E402
from peft import IA3Config, LoraConfig, TaskType, get_peft_model  # noqa: E402
from transformers import BertForSequenceClassification  # noqa: E402

torch.set_num_threads(os.cpu_count())
torch.manual_seed(0)
IMPORTED = common.peak_mb()
RANK = 8
LAYERS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
LORA = {"r": RANK, "lora_alpha": 16, "task_type": TaskType.SEQ_CLS}
ADAPTERS = {
    "full": None,
    "lora-qv": LoraConfig(target_modules=["query", "value"], **LORA),
    "lora-all": LoraConfig(target_modules=LAYERS, **LORA),
    "dora-all": LoraConfig(target_modules=LAYERS, use_dora=True, **LORA),
    "ia3": IA3Config(
        target_modules=["key", "value", "output.dense"],
        feedforward_modules=["output.dense"],
        task_type=TaskType.SEQ_CLS,
    ),
}


def main() -> None:
    """Trains a model on one batch again and again, and prints the seconds of a step."""
    config = ADAPTERS[job.setting]
    model = BertForSequenceClassification.from_pretrained(job.checkpoint, num_labels=2)
    if config is not None:
        model = get_peft_model(model, config)
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate = 2e-5 if config is None else 5e-4
    optimizer = torch.optim.AdamW(groups, lr=rate, fused=True)
    ids = torch.randint(1000, 30000, (job.batch, job.length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.randint(0, 2, (job.batch,))
    clock = common.StepClock()
    for _ in range(common.WARM_UP + job.steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=job.dtype == "bfloat16"):
            loss = model(**inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.mark()
    common.tell(clock.result(), IMPORTED)


main()
