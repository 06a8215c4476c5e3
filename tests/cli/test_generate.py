"""The command `generate`, and training and evaluation of models that generate text."""

import inspect
import io
import json
import sys

import pytest
import typer
from helpers_decoders import write_decoder

import finetune_tf as ft
from finetune_tf import cli

FEW = ["--max-new-tokens", 4]
PAIRS = [
    ("a good film", "ein guter Film"),
    ("the actor was bad", "der Schauspieler war schlechter"),
    ("a very good actor", "ein sehr guter Schauspieler"),
    ("the film was bad", "der Film war schlechter"),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(monkeypatch, *arguments) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["finetune-tf", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def generated(monkeypatch, capsys, *arguments) -> list[dict]:
    capsys.readouterr()  # of what the test itself has loaded
    code = run(monkeypatch, "generate", *arguments)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return [json.loads(line) for line in printed.out.splitlines()]


def failed(monkeypatch, capsys, *arguments) -> str:
    assert run(monkeypatch, "generate", *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


@pytest.fixture(scope="module")
def gpt(tiny_decoder):
    return ft.load(tiny_decoder)


@pytest.mark.slow
def test_a_message_says_that_the_name_of_a_file_is_a_text(
    tiny_decoder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a good film\n", encoding="utf-8")
    assert run(monkeypatch, "generate", tiny_decoder, "prompts.txt", *FEW) == 0
    assert (
        "'prompts.txt' is a file, but generate takes it as a text, not for what is in it. For its "
        "lines: finetune-tf generate CHECKPOINT < prompts.txt"
    ) in capsys.readouterr().err


def test_the_command_has_the_arguments_of_both_functions():
    command = typer.main.get_command(cli.app).commands["generate"]
    found = {parameter.name for parameter in command.params}
    names = {*inspect.signature(ft.generate).parameters, *inspect.signature(ft.stream).parameters}
    inside = {"model", "prompt", "return_ids"}  # the checkpoint, the prompts; texts are printed
    assert names - inside <= found


@pytest.mark.slow
def test_each_prompt_has_a_line(tiny_decoder, gpt, monkeypatch, capsys):
    prompts = ["a very good", "the actor"]
    lines = generated(monkeypatch, capsys, tiny_decoder, *prompts, *FEW)
    texts = ft.generate(gpt, prompts, max_new_tokens=4)
    assert lines == [
        {"text": prompt, "generated_text": text}
        for prompt, text in zip(prompts, texts, strict=True)
    ]


@pytest.mark.slow
def test_options_reach_the_function(tiny_decoder, gpt, monkeypatch, capsys):
    given = ["--do-sample", "--temperature", 2.0, "--top-k", 0, "--top-p", 0.9, "--min-p", 0.01]
    given += ["--repetition-penalty", 1.5, "--no-repeat-ngram-size", 2, "--seed", 3]
    given += ["--bad-words", "film", "--stop", "good", "--stop", "bad", "--batch-size", 1]
    given += ["--num-return-sequences", 3, "--scores"]
    (line,) = generated(monkeypatch, capsys, tiny_decoder, "a very", *FEW, *given)
    texts, scores = ft.generate(
        gpt,
        "a very",
        4,
        do_sample=True,
        temperature=2.0,
        top_k=0,
        top_p=0.9,
        min_p=0.01,
        repetition_penalty=1.5,
        no_repeat_ngram_size=2,
        seed=3,
        bad_words=["film"],
        stop_strings=["good", "bad"],
        batch_size=1,
        num_return_sequences=3,
        return_scores=True,
    )
    assert line["generated_text"] == texts and len(texts) == 3
    assert line["score"] == pytest.approx(scores, abs=1e-5)


@pytest.mark.slow
def test_beams(tiny_decoder, gpt, monkeypatch, capsys):
    given = ["--num-beams", 3, "--length-penalty", 0.5, "--early-stopping"]
    (line,) = generated(monkeypatch, capsys, tiny_decoder, "a very", *FEW, *given)
    text = ft.generate(gpt, "a very", 4, num_beams=3, length_penalty=0.5, early_stopping=True)
    assert line["generated_text"] == text


@pytest.mark.slow
def test_prompts_from_a_file_and_from_standard_input(tiny_decoder, tmp_path, monkeypatch, capsys):
    content = "\ufeffa very good\n\n the actor \r\n"
    (tmp_path / "prompts.txt").write_text(content, encoding="utf-16-le")
    file = ["--file", tmp_path / "prompts.txt", "--encoding", "utf-16-le"]
    from_file = generated(monkeypatch, capsys, tiny_decoder, *file, *FEW)
    assert [line["text"] for line in from_file] == ["a very good", "", "the actor"]
    assert ["generated_text" in line for line in from_file] == [True, False, True]

    piped = io.TextIOWrapper(io.BytesIO(content.encode()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", piped)
    assert generated(monkeypatch, capsys, tiny_decoder, *FEW) == from_file


@pytest.mark.slow
def test_a_stream_prints_the_same_text(tiny_decoder, gpt, monkeypatch, capsys):
    assert run(monkeypatch, "generate", tiny_decoder, "a very good", "--stream", *FEW) == 0
    text = ft.generate(gpt, "a very good", max_new_tokens=4)
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.slow
def test_a_terminal_shows_one_text_as_it_grows(tiny_decoder, gpt, monkeypatch):
    def shown(*arguments) -> str:
        monkeypatch.setattr(sys, "stdout", Terminal())
        assert run(monkeypatch, "generate", tiny_decoder, *arguments, *FEW) == 0
        return sys.stdout.getvalue()

    assert shown("a very good") == ft.generate(gpt, "a very good", max_new_tokens=4) + "\n"
    for others in (["a very", "the"], ["a", "--num-beams", 2], ["a", "--scores"]):
        assert shown(*others).startswith('{"text": ')
    assert shown("a very good", "--no-stream").startswith('{"text": ')


def test_what_a_stream_cannot_do(tiny_decoder, monkeypatch, capsys):
    stream = [tiny_decoder, "a very", "--stream"]
    error = failed(monkeypatch, capsys, *stream, "the")
    assert "finetune-tf: --stream prints the text of one prompt, found 2." in error
    error = failed(monkeypatch, capsys, *stream, "--scores")
    assert "--scores has no meaning for a stream. Add --no-stream." in error
    error = failed(monkeypatch, capsys, *stream, "--num-beams", 2)
    assert "Give num_beams=1, or use generate." in error
    error = failed(monkeypatch, capsys, tiny_decoder, " ", "--stream")
    assert "The prompt is empty, so there is nothing to continue." in error


def test_errors_are_one_line(tiny_decoder, tiny_bert, tmp_path, monkeypatch, capsys):
    file = tmp_path / "prompts.txt"
    error = failed(monkeypatch, capsys, tiny_decoder, "a", "--file", file)
    assert "finetune-tf: Give either prompts or --file, not both." in error
    error = failed(monkeypatch, capsys, tiny_decoder, "--file", file)
    assert "There is no file" in error and "prompts.txt" in error
    error = failed(monkeypatch, capsys, tiny_decoder, "a", "--temperature", 2.0)
    assert "temperature has no effect without do_sample=True" in error
    error = failed(monkeypatch, capsys, tiny_decoder, "a", "--max-new-tokens", 0)
    assert "max_new_tokens" in error
    error = failed(monkeypatch, capsys, tiny_bert, "a [MASK] film", "--task", "feature-extraction")
    assert "generate needs a model that generates text" in error


@pytest.mark.slow
def test_chats(tmp_path, monkeypatch, capsys):
    checkpoint = write_decoder(tmp_path / "chat")
    model = ft.load(checkpoint)
    model.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}very {% endif %}"
    )
    checkpoint = model.save_pretrained(tmp_path / "saved")
    (line,) = generated(monkeypatch, capsys, checkpoint, "a", "--chat", *FEW)
    expected = ft.generate(model, "a very", max_new_tokens=4)
    assert line == {"text": "a", "generated_text": expected}
    capsys.readouterr()
    assert run(monkeypatch, "generate", checkpoint, "a", "--chat", "--stream", *FEW) == 0
    assert capsys.readouterr().out == f"{expected}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "key", "baseline"),
    [
        ("translation", "translation_text", "dictionary"),
        ("summarization", "summary_text", "lead-3"),
        ("text2text-generation", "generated_text", None),
    ],
)
def test_train_evaluate_and_generate_with_an_encoder_decoder(
    task, key, baseline, tiny_t5, tmp_path, monkeypatch, capsys
):
    rows = [{"en": source, "de": target} for source, target in PAIRS] * 2
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    columns = ["--task", task, "--source", "en", "--target", "de"]
    options = ["--epochs", 1, "--batch-size", 4, "--validation", data, "--test", data]
    if task == "translation":  # the checkpoint has a prefix for these languages
        options += ["--source-language", "en", "--target-language", "de"]
    else:
        options += ["--prefix", "summarize: ", "--max-target-length", 8]
    options += ["--output", tmp_path / "run"]

    assert run(monkeypatch, "train", tiny_t5, data, *columns, *options) == 0
    printed = capsys.readouterr().out
    assert baseline is None or f"baseline {baseline}" in printed
    checkpoint = tmp_path / "run" / "checkpoint"
    assert run(monkeypatch, "evaluate", checkpoint, data, *columns[2:]) == 0
    assert "train.jsonl: 8" in capsys.readouterr().out

    (line,) = generated(monkeypatch, capsys, checkpoint, "a good film", *FEW)
    model = ft.load(checkpoint)  # the folder says for which task
    assert model.task.name == task
    params = model.config["task_specific_params"][task]
    assert params["prefix"] == ("translate: " if task == "translation" else "summarize: ")
    assert line == {"text": "a good film", key: ft.generate(model, "a good film", 4)}

    capsys.readouterr()
    assert run(monkeypatch, "predict", checkpoint, "a good film") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"text", key}


@pytest.mark.slow
def test_train_on_prompts_and_completions(tiny_decoder, tmp_path, monkeypatch, capsys):
    rows = [{"question": "a very good", "answer": "film"}, {"question": "the", "answer": "actor"}]
    data = tmp_path / "train.jsonl"
    data.write_text("\n".join(map(json.dumps, rows * 4)), encoding="utf-8")
    columns = ["--task", "text-generation", "--prompt", "question", "--completion", "answer"]
    options = ["--epochs", 1, "--validation", data, "--test", data, "--output", tmp_path / "run"]

    assert run(monkeypatch, "train", tiny_decoder, data, *columns, *options) == 0
    printed = capsys.readouterr().out
    assert "perplexity" in printed and "baseline bigram" in printed
    (line,) = generated(monkeypatch, capsys, tmp_path / "run" / "checkpoint", "the", *FEW)
    assert set(line) == {"text", "generated_text"}
