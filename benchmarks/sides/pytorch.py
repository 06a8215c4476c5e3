"""The jobs done by PyTorch and transformers 5.

Settings: "eager", "compile" (torch.compile); "grouped" sorts rows by length before they are
batched, as the Trainer's group_by_length does.
"""

import os
import time

import common

job = common.job()

import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoTokenizer,
    BertForSequenceClassification,
    get_linear_schedule_with_warmup,
)

torch.set_num_threads(os.cpu_count())
torch.manual_seed(0)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
settings = set(job.setting.split("+"))
IMPORTED = common.peak_mb()


def load() -> BertForSequenceClassification:
    """The model of the job."""
    model = BertForSequenceClassification.from_pretrained(job.checkpoint, num_labels=2)
    if job.frozen == "backbone":
        model.bert.requires_grad_(False)
    if job.frozen == "half":
        model.bert.embeddings.requires_grad_(False)
        model.bert.encoder.layer[:3].requires_grad_(False)
    model = model.to(DEVICE)
    return torch.compile(model, dynamic=True) if "compile" in settings else model


def optimizer_of(model: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW without decay on biases and normalisations, in its fastest form."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def train_step(model, optimizer, inputs: dict, labels: torch.Tensor) -> None:
    """Forward, backward, clipping, update."""
    with torch.autocast(DEVICE, torch.bfloat16, enabled=job.dtype == "bfloat16"):
        loss = model(**inputs, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _fixed() -> tuple[dict, torch.Tensor]:
    ids = torch.randint(1000, 30000, (job.batch, job.length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return _there(inputs), torch.randint(0, 2, (job.batch,)).to(DEVICE)


def _there(tensors: dict) -> dict:
    return {name: tensor.to(DEVICE) for name, tensor in tensors.items()}


def _wait() -> None:
    """Until the device has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def step() -> dict:
    """A training step at a fixed shape."""
    model = load().train()
    optimizer, batch = optimizer_of(model, 2e-5), _fixed()
    times = []
    for _ in range(common.WARM_UP + job.steps):
        start = time.perf_counter()
        train_step(model, optimizer, *batch)
        _wait()
        times.append(time.perf_counter() - start)
    return common.summary(times)


def first() -> dict:
    """From the start of the process to the end of the first step."""
    model = load().train()
    train_step(model, optimizer_of(model, 2e-5), *_fixed())
    _wait()
    return {"seconds": common.since_start()}


def padded(rows: list[list[int]]) -> dict:
    """Rows of ids as tensors, padded to the longest."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    sizes = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(length) < sizes[:, None]).long()
    return _there({"input_ids": ids, "attention_mask": mask})


def epochs() -> dict:
    """Whole epochs over real sentences, from tokens to weights; the model is loaded before."""
    given, labels = common.texts(job.data, "train", job.rows, job.corpus)
    tokenizer = AutoTokenizer.from_pretrained(job.checkpoint)
    model = load()
    start = time.perf_counter()
    rows = tokenizer(given)["input_ids"]
    optimizer = optimizer_of(model, 2e-3 if job.frozen == "backbone" else 5e-5)
    steps = job.epochs * -(-len(rows) // job.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * steps), steps)
    model.train()
    of_epochs = []
    for _ in range(job.epochs):
        begin = time.perf_counter()
        order = torch.randperm(len(rows)).tolist()
        if "grouped" in settings:  # within stretches of 50 batches, as the Trainer does
            stretch = 50 * job.batch
            order = [
                i
                for at in range(0, len(order), stretch)
                for i in sorted(order[at : at + stretch], key=lambda i: len(rows[i]))
            ]
        batches = [order[i : i + job.batch] for i in range(0, len(order), job.batch)]
        if "grouped" in settings:
            batches = [batches[i] for i in torch.randperm(len(batches)).tolist()]
        for chosen in batches:
            inputs = padded([rows[i] for i in chosen])
            targets = torch.tensor([labels[i] for i in chosen]).to(DEVICE)
            train_step(model, optimizer, inputs, targets)
            schedule.step()
        _wait()
        of_epochs.append(time.perf_counter() - begin)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "epochs": of_epochs, "accuracy": accuracy(model, tokenizer)}


@torch.no_grad()
def predictions(model, rows: list[list[int]]) -> list[int]:
    """Classes of rows, batched by length."""
    model.eval()
    found = [0] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for chosen in (order[i : i + 64] for i in range(0, len(order), 64)):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=job.dtype == "bfloat16"):
            best = model(**padded([rows[i] for i in chosen])).logits.argmax(-1)
        for i, label in zip(chosen, best.tolist(), strict=True):
            found[i] = label
    return found


def accuracy(model, tokenizer) -> float:
    """On the test sentences."""
    given, labels = common.texts(job.data, "test", None)
    found = predictions(model, tokenizer(given)["input_ids"])
    return sum(a == b for a, b in zip(found, labels, strict=True)) / len(labels)


def predict() -> dict:
    """Labels for real sentences, the model loaded and used once before."""
    given, _ = common.texts(job.data, "train", job.rows, job.corpus)
    tokenizer, model = AutoTokenizer.from_pretrained(job.checkpoint), load()
    predictions(model, tokenizer(given[:64])["input_ids"])
    start = time.perf_counter()
    predictions(model, tokenizer(given)["input_ids"])
    return {"seconds": time.perf_counter() - start}


common.tell(globals()[job.workload](), IMPORTED)
