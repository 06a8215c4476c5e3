"""What fine-tuning for generation reaches on real data, beside PyTorch from the same start.

    python benchmarks/text_to_text.py pronunciation --data DATA --weights WEIGHTS [--seeds 0 1 2]
    python benchmarks/text_to_text.py translation --data DATA [--rows 10000] [--epochs 4]
    python benchmarks/text_to_text.py stories --data DATA --weights WEIGHTS [--rate 1e-3]

"pronunciation": the BART in bart_g2p with its tables and its decoder block drawn anew, trained on
g2p; measured by the words that are right. "translation": a small BART with random weights, trained
on Multi30k; measured by BLEU. PyTorch gets the same weights, batches and order; dropout differs.
"stories": the Llama in stories260K, trained on English captions; perplexity before and after, with
the interval of the difference. Prints one line of JSON for each run.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from by_pytorch import fine_tune, same_start

import finetune_tf as ft
from finetune_tf.evaluation.evaluators.registry import EVALUATORS

SMALL_BART = {
    "model_type": "bart",
    "architectures": ["BartForConditionalGeneration"],
    "vocab_size": 4000,
    "d_model": 192,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
for part in ("encoder", "decoder"):
    SMALL_BART |= {f"{part}_layers": 2, f"{part}_attention_heads": 4, f"{part}_ffn_dim": 768}


def split(folder: Path, part: str, rows: int, source: str, target: str) -> ft.data.Examples:
    """Reads the first rows of a part of a data set."""
    return ft.data.from_jsonl(folder / f"{part}.jsonl", source=source, target=target).take(rows)


def pronouncing(weights: Path, seed: int) -> ft.FineTuneModel:
    """Loads bart_g2p, and draws its tables and its decoder block anew."""
    from transformers import AutoTokenizer

    model = ft.load(weights / "bart_g2p", "text2text-generation")
    model.tokenizer = AutoTokenizer.from_pretrained(weights / "bart_g2p" / "source")
    model.target_tokenizer = AutoTokenizer.from_pretrained(weights / "bart_g2p" / "target")
    random = np.random.default_rng(seed)
    for stage in model.stages:
        if stage.role == "embeddings" or stage.chain == "decoder":
            for variable in stage.variables:
                if len(variable.shape) > 1:  # not offsets and normalisations
                    variable.assign(random.normal(0.0, 0.02, variable.shape))
    return model


def translating(train: ft.data.Examples) -> ft.FineTuneModel:
    """Makes a small BART with random weights, and a vocabulary of the words of both languages."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL_BART["vocab_size"], special_tokens=special, show_progress=False
    )
    words.train_from_iterator([*train.columns["source"], *train.columns["target"]], trainer)
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    model = ft.load(SMALL_BART, "translation")
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **names)
    return model


def generated(torch_model: Any, model: ft.FineTuneModel, test: ft.data.Examples) -> list[str]:
    """Returns what PyTorch predicts for each source."""
    import torch

    texts, sources = [], type(test)({"source": test.columns["source"]}, None, test.name)
    torch_model.eval()
    for inputs in sources.batches(model, 64).as_numpy_iterator():
        inputs = inputs[0] if isinstance(inputs, tuple) else inputs
        inputs = {key: torch.tensor(value).long() for key, value in inputs.items()}
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            rows = torch_model.generate(**inputs, max_new_tokens=60, do_sample=False, num_beams=1)
        decode = model.target_tokenizer.decode
        texts += [decode(row, skip_special_tokens=True).strip() for row in rows]
    return texts


def train_both(
    model: ft.FineTuneModel,
    train: ft.data.Examples,
    test: ft.data.Examples,
    arguments: argparse.Namespace,
    seed: int,
) -> dict[str, Any]:
    """Trains a model here and in PyTorch, and returns what both reach."""
    from transformers import AutoModelForSeq2SeqLM

    model.info.generation["max_new_tokens"] = 60
    torch_model = same_start(AutoModelForSeq2SeqLM, model)
    torch_model.generation_config.max_length = None
    batches = train.batches(model, 64, shuffle=True, seed=seed)
    model.compile(**ft.presets.cross_entropy(learning_rate=arguments.rate))
    task, found = model.task, {}

    def measured(texts: list[str]) -> dict[str, float]:
        targets = test.columns["target"]
        right = np.mean([a == b for a, b in zip(texts, targets, strict=True)])
        metrics = EVALUATORS[task.evaluator].measure(task.targets(test), texts, None)
        return {"exact": right} | {key: metrics[key] for key in ("bleu", "chrf") if key in metrics}

    start = time.perf_counter()
    history = model.fit(batches, epochs=arguments.epochs, verbose=0)
    seconds = time.perf_counter() - start
    found["ours"] = measured(ft.predict(model, test))
    found["ours"] |= {"loss": history.history["loss"][-1], "seconds": seconds}
    if not arguments.no_pytorch:
        start = time.perf_counter()
        loss = fine_tune(torch_model, batches, arguments.epochs, arguments.rate)[-1]
        seconds = time.perf_counter() - start
        found["pytorch"] = measured(generated(torch_model, model, test))
        found["pytorch"] |= {"loss": loss, "seconds": seconds}
    return found


def story_tokenizer(folder: Path) -> Any:
    """Makes the tokenizer of stories260K from its list of pieces."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = json.loads((folder / "tok512_pieces.json").read_text())
    words = {piece["piece"].strip("\n").replace(" ", "▁"): piece["id"] for piece in pieces}
    pairs = [
        (words[word], word[:i], word[i:])
        for word in words
        for i in range(1, len(word))
        if word[:i] in words and word[i:] in words and not word.startswith("<")
    ]
    merges = [(left, right) for _, left, right in sorted(pairs)]
    bpe = models.BPE(words, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def stories(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Trains stories260K on captions, and compares the perplexity with that before."""
    folder = arguments.data / "multi30k"
    train, test = (
        ft.data.from_jsonl(folder / f"{part}.jsonl", text="en", label=None).take(rows)
        for part, rows in (("train", arguments.rows), ("test", arguments.test_rows))
    )
    before, model = (ft.load(arguments.weights / "stories260K", "text-generation") for _ in "ab")
    for each in (before, model):
        each.tokenizer = story_tokenizer(arguments.weights / "stories260K")
    model.compile(**ft.presets.cross_entropy(learning_rate=arguments.rate))
    batches = train.batches(model, 32, shuffle=True, seed=seed)
    model.fit(batches, epochs=arguments.epochs, verbose=0)
    print(ft.compare({"before": before, "after": model}, test))
    return {
        side: ft.evaluate(each, test).metrics
        for side, each in (("before", before), ("after", model))
    }


def main() -> None:
    """Runs a measurement with each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["pronunciation", "translation", "stories"])
    parser.add_argument("--data", type=Path, required=True, help="folder with g2p/ and multi30k/")
    parser.add_argument("--weights", type=Path, help="folder with bart_g2p/ and stories260K/")
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--no-pytorch", action="store_true")
    arguments = parser.parse_args()
    if arguments.name != "translation" and arguments.weights is None:
        parser.error(f"{arguments.name} needs --weights")
    for seed in arguments.seeds:
        keras.utils.set_random_seed(seed)
        if arguments.name == "stories":
            found = stories(arguments, seed)
        else:
            is_translation = arguments.name == "translation"
            columns = ("multi30k", "en", "de") if is_translation else ("g2p", "word", "phonemes")
            train, test = (
                split(arguments.data / columns[0], part, rows, *columns[1:])
                for part, rows in (("train", arguments.rows), ("test", arguments.test_rows))
            )
            model = translating(train) if is_translation else pronouncing(arguments.weights, seed)
            found = train_both(model, train, test, arguments, seed)
        print(json.dumps({"measurement": arguments.name, "seed": seed, **found}), flush=True)


if __name__ == "__main__":
    main()
