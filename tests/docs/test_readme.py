"""The words are true: their code runs, their links lead somewhere, both languages agree."""

import importlib.util
import json
import re
import textwrap
from pathlib import Path

import pytest
from helpers_images import write_classes
from helpers_models import write_checkpoint
from helpers_videos import write_videos

import finetune_tf as ft

ROOT = Path(__file__).resolve().parents[2]
GOOD = ["a very good film", "the actor was great", "a fine story", "not dull and not bad"]
BAD = ["a very bad film", "the actor was poor", "a dull story", "not good and not fine"]
TINY_MOBILENET = ROOT / "tests" / "references" / "mobilenet_v2" / "image-classification"
SPLITS = {"train": slice(0, 3), "validation": slice(1, 3), "test": slice(2, 4)}


def write_resnet(folder: Path) -> None:
    """Writes the weights of a random network for images of 32 x 32 pixels."""
    config = {"model_type": "resnet", "layer_type": "basic", "num_labels": 10}
    config |= {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [3, 3, 3]}
    config |= {"small_stem": True, "padded_shortcuts": True}
    with ft.messages.quiet():
        ft.load(config, "image-classification", image_size=32).save_pretrained(folder)


def code_blocks(page: str, language: str = "python") -> list[str]:
    """What stands between the fences of a language, those inside of lists included."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in blocks]


def tiny_reviews(split: str) -> ft.data.Examples:
    """In the place of `ft.data.reviews`, with words that the tiny checkpoints know."""
    good, bad = GOOD[SPLITS[split]], BAD[SPLITS[split]]
    labels = ["positive"] * len(good) + ["negative"] * len(bad)
    return ft.data.from_arrays(good + bad, labels, name=f"toy {split}")


@pytest.fixture
def run(monkeypatch, tmp_path, tiny_decoder, tiny_t5):
    """Runs pieces of code in one namespace and an empty folder, on tiny checkpoints and data."""
    monkeypatch.setattr(ft.data, "reviews", tiny_reviews)
    monkeypatch.chdir(tmp_path)
    names = {}

    def run(code: str, checkpoint: Path) -> dict:
        code = code.replace('"bert-base-uncased"', repr(str(checkpoint)))
        code = code.replace('"google-t5/t5-small"', repr(str(tiny_t5)))
        code = code.replace('"google/mobilenet_v2_1.0_224"', repr(str(TINY_MOBILENET)))
        exec(code.replace('"gpt2"', repr(str(tiny_decoder))), names)
        return names

    return run


@pytest.mark.slow
def test_the_ten_lines_run_as_they_stand(run, tiny_bert, capsys):
    code = code_blocks("README.md")[0]
    assert len([line for line in code.splitlines() if line]) == 10

    names = run(code, tiny_bert)

    assert names["model"].labels == ("negative", "positive")
    printed = capsys.readouterr().out
    assert "baseline tfidf" in printed
    assert "2 of 4 test texts also occur in the training examples" in printed
    assert "my-model; opens in transformers.BertForSequenceClassification" in printed
    assert printed.splitlines()[-1].startswith("Prediction('")


def test_the_readme_freezes_what_it_says(run, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "six-blocks", blocks=6)
    names = {"model": ft.load(checkpoint, labels=2, pooling="mean"), "ft": ft}
    code = next(block for block in code_blocks("README.md") if "select.bottom" in block)

    counts = []
    for line in code.splitlines():
        exec(line, names)
        counts.append(ft.count_parameters(names["model"])[0])

    head, top, without_bottom, biases, everything = counts
    assert head == 24 * 2 + 2
    assert head < biases < top < everything
    assert without_bottom == top  # of six blocks, four are frozen and two learn


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_code_of_text_generation_runs(run, tiny_bert, tmp_path, capsys):
    rows = [{"question": "a very", "answer": "good film"}, {"question": "not", "answer": "bad"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (code,) = [block for block in code_blocks("README.md") if "ft.generate" in block]
    code = code.replace("max_new_tokens=40", "max_new_tokens=4").replace(
        "What is a verb?", "a very"
    )

    names = run(f"import finetune_tf as ft\n{code}", tiny_bert)

    last = capsys.readouterr().out.splitlines()[-1]
    assert last == ft.generate(names["model"], "a very", max_new_tokens=4, num_beams=4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_code_of_translation_runs(run, tiny_bert, tmp_path, capsys):
    rows = [{"en": "a good film", "de": "ein guter Film"}, {"en": "the actor", "de": "der"}]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (code,) = [block for block in code_blocks("README.md") if "t5-small" in block]
    assert len(code.splitlines()) == 9

    names = run(f"import finetune_tf as ft\n{code}", tiny_bert)

    printed = capsys.readouterr().out
    assert "baseline dictionary" in printed
    assert printed.splitlines()[-1] == ft.predict(names["model"], "a good film")


@pytest.mark.slow
def test_all_other_code_of_the_readme_runs(run, tiny_bert, tmp_path):
    ten_lines, recipe = code_blocks("README.md")[:2]

    names = run(f"{ten_lines}\n{recipe}", tiny_bert)

    assert names["result"].report.baseline.name == "tfidf"
    assert (tmp_path / "runs/reviews/checkpoint/model.safetensors").is_file()


@pytest.mark.slow
def test_the_code_of_few_examples_and_explanations_runs(run, tiny_bert, tmp_path):
    (code,) = [block for block in code_blocks("README.md") if "ft.fewshot" in block]
    data = "import finetune_tf as ft\ntrain, test = map(ft.data.reviews, ('train', 'test'))\n"

    run(data + code, tiny_bert)

    assert "<h1" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A learning rate of")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's save
def test_the_code_of_the_guide_runs_from_top_to_bottom(run, tiny_bert):
    write_classes(Path("photos"), count=12)
    write_resnet(Path("resnet20"))
    write_videos(Path("clips"), pairs=8)
    for block in code_blocks("docs/guide.md"):
        run(block, tiny_bert)

    assert Path("photo-report/report.json").is_file()
    assert Path("served/saved_model.pb").is_file()  # the last thing the guide makes


@pytest.mark.slow
def test_the_code_of_the_page_for_movers_runs(run, tiny_bert, capsys):
    for block in code_blocks("docs/migrating.md"):
        names = run(block, tiny_bert)

    assert isinstance(names["model"], ft.TFBertForSequenceClassification)
    assert "shape=(4, 2), dtype=float32" in capsys.readouterr().out


def test_both_languages_of_the_readme_show_the_same_code():
    for language in ("python", "bash"):
        english = code_blocks("README.md", language)
        assert english
        assert code_blocks("README.zh-CN.md", language) == english


@pytest.mark.slow
def test_links_to_files_lead_to_files():
    pages = [page for page in ROOT.rglob("*.md") if not _is_generated(page)]
    assert {"README.md", "README.zh-CN.md", "guide.md"} <= {page.name for page in pages}
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            target, _, heading = link.partition("#")
            if re.match(r"\w+:", target):
                continue
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links to {target}, which is not there."
            if heading:
                assert heading in headings(linked), f"{page.name} links to #{heading}."


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line).lower().replace(" ", "-") for line in lines}


def _is_generated(page: Path) -> bool:
    parts = page.relative_to(ROOT).parts
    return any(part.startswith(".") or part in {"build", "dist", "runs"} for part in parts)


def test_the_table_of_families_is_what_the_registries_say():
    spec = importlib.util.spec_from_file_location("make_tables", ROOT / "docs" / "make_tables.py")
    make_tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_tables)
    stored = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert stored == make_tables.page(), "run python docs/make_tables.py"
