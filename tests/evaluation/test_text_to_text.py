"""Metrics, baselines and reports of generated texts."""

import json
import sys

import numpy as np
import pytest
from helpers_text_to_text import write_tokenizer, writer

import finetune_tf as ft
from finetune_tf.errors import DataError, MissingExtraError
from finetune_tf.evaluation.baselines.extracts import centrality
from finetune_tf.evaluation.baselines.word_table import learn_table
from finetune_tf.evaluation.bootstrap import paired_bootstrap
from finetune_tf.evaluation.evaluators.generated_scores import bleu_of_means, bleu_statistics
from finetune_tf.evaluation.evaluators.registry import EVALUATORS
from finetune_tf.messages import quiet

sacrebleu = pytest.importorskip("sacrebleu")
WORDS = [
    "the",
    "a",
    "film",
    "story",
    "was",
    "is",
    "very",
    "good",
    "bad",
    "dull",
    "long",
    "short",
    "and",
    "not",
    "actor",
    ",",
    ".",
]


def random_texts(rows, seed):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(1, 13))) for _ in range(rows)]


def nearly(texts, seed, share=0.3):
    """The texts with a share of their words replaced."""
    random = np.random.default_rng(seed)
    return [
        " ".join(random.choice(WORDS) if random.random() < share else w for w in text.split())
        for text in texts
    ]


def bleu(targets, predictions):
    return bleu_of_means(bleu_statistics(targets, predictions).mean(axis=0, keepdims=True))[0]


class TestBleu:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
    @pytest.mark.parametrize("seed", range(3))
    def test_it_is_that_of_sacrebleu(self, share, seed):
        references = random_texts(40, seed)
        predictions = nearly(references, seed + 10, share)
        expected = sacrebleu.corpus_bleu(predictions, [references]).score
        assert bleu([[text] for text in references], predictions) == pytest.approx(expected, 1e-12)

    @pytest.mark.parametrize(
        ("references", "predictions"),
        [
            (["a good film"], ["a good film"]),  # no four words, so no BLEU
            (["a good film was very long"], ["a bad story is good and"]),  # smoothed orders
            (["a good film was very long"], ["x y z"]),  # no match
            (["a good film", "a bad film"], ["", "a bad film was bad"]),  # an empty prediction
            (["ein schöner Film , sehr lang ."], ["Ein schöner Film, sehr lang."]),
        ],
    )
    def test_special_cases(self, references, predictions):
        expected = sacrebleu.corpus_bleu(predictions, [references]).score
        assert bleu([[text] for text in references], predictions) == pytest.approx(expected, 1e-12)

    def test_several_references(self):
        streams = [random_texts(30, seed) for seed in range(3)]
        predictions = nearly(streams[1], 5)
        expected = sacrebleu.corpus_bleu(predictions, streams).score
        targets = [list(row) for row in zip(*streams, strict=True)]
        assert bleu(targets, predictions) == pytest.approx(expected, 1e-12)
        targets[0] = targets[0][:1]  # a row may have fewer
        streams[1][0] = streams[2][0] = None
        expected = sacrebleu.corpus_bleu(predictions, streams).score
        assert bleu(targets, predictions) == pytest.approx(expected, 1e-12)
        measured = EVALUATORS["translation"].measure(targets, predictions, None)
        assert measured["chrf"] == sacrebleu.corpus_chrf(predictions, streams).score

    @pytest.mark.parametrize(
        ("reference", "prediction", "tokenizer"),
        [
            ("这部电影非常好看。", "这部电影很好看。", "zh"),
            ("とても良い映画です", "良い映画です", "char"),
        ],
    )
    def test_scripts_without_spaces(self, reference, prediction, tokenizer):
        expected = sacrebleu.corpus_bleu([prediction], [[reference]], tokenize=tokenizer).score
        assert expected > 10
        assert bleu([[reference]], [prediction]) == pytest.approx(expected, 1e-12)
        (note,) = EVALUATORS["translation"].notes([[reference]])
        assert f"tok:{tokenizer}|" in note

    def test_the_bootstrap_evaluates_the_whole_of_each_resample(self):
        """Each resample has the BLEU of sacrebleu on the texts that were drawn."""
        references = random_texts(12, 0)
        targets = [[text] for text in references]
        predictions = nearly(references, 1, 0.4)
        statistics = bleu_statistics(targets, predictions)
        for seed in range(20):
            drawn = np.random.default_rng(seed).integers(0, 12, 12)
            texts = [[texts[i] for i in drawn] for texts in (predictions, references)]
            expected = sacrebleu.corpus_bleu(texts[0], [texts[1]]).score
            weights = np.bincount(drawn, minlength=12)[None] / 12
            assert bleu_of_means(weights @ statistics)[0] == pytest.approx(expected, 1e-12)

    def test_the_difference_of_two_systems(self):
        references = random_texts(60, 0)
        targets = [[text] for text in references]
        good, bad = nearly(references, 1, 0.2), nearly(references, 2, 0.6)
        found = paired_bootstrap(EVALUATORS["translation"], targets, good, bad, n=300)
        scores = [sacrebleu.corpus_bleu(texts, [references]).score for texts in (good, bad)]
        assert found.value == pytest.approx(scores[0] - scores[1], 1e-9)
        assert 0 < found.low < found.value < found.high


class TestRouge:
    @pytest.mark.slow
    def test_it_is_that_of_rouge_score(self):
        from rouge_score.rouge_scorer import RougeScorer

        references, predictions = random_texts(20, 0), random_texts(20, 1)
        scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
        pairs = list(zip(references, predictions, strict=True))
        expected = {
            name: np.mean([scorer.score(*pair)[name].fmeasure for pair in pairs])
            for name in ("rougeL", "rouge1", "rouge2")
        }
        found = EVALUATORS["summarization"].measure([[r] for r in references], predictions, None)
        assert found == pytest.approx(expected) and list(found)[0] == "rougeL"

    def test_the_best_of_several_references_counts(self):
        targets = [["a dull story", "a very good film"]]
        assert EVALUATORS["summarization"].measure(targets, ["a very good film"], None) == {
            "rougeL": 1.0,
            "rouge1": 1.0,
            "rouge2": 1.0,
        }

    @pytest.mark.parametrize(
        ("reference", "prediction", "rouge1"),
        [
            ("这部电影很好", "这部电影不好", 5 / 6),
            ("der schöne Film läuft", "ein schöner Film lief", 1 / 4),
        ],
    )
    def test_other_scripts(self, reference, prediction, rouge1):
        """rouge-score's own tokenizer drops such characters and splits words at umlauts."""
        found = EVALUATORS["summarization"].measure([[reference]], [prediction], None)
        assert found["rouge1"] == pytest.approx(rouge1)
        assert "words in any script" in EVALUATORS["summarization"].notes([[reference]])[0]


def test_exact_matches():
    targets = [["a  b"], ["c", "d"], ["e"], ["f"]]
    found = EVALUATORS["text2text-generation"].measure(targets, [" a b", "d", "E", ""], None)
    assert found["exact_match"] == 0.5


class TestBaselines:
    def test_words_are_learned_from_pairs(self):
        english = ["the house", "the book", "a book", "a dog sees the house ."]
        german = ["das Haus", "das Buch", "ein Buch", "ein Hund sieht das Haus ."]
        table = learn_table(english, german)
        assert [table[word] for word in ["the", "house", "book", "a", "."]] == [
            "das",
            "Haus",
            "Buch",
            "ein",
            ".",
        ]

    def test_the_dictionary_translates_word_by_word(self):
        train = ft.data.from_arrays(
            source=["the house", "the book", "a book"], target=["das Haus", "das Buch", "ein Buch"]
        )
        test = ft.data.from_arrays(source=["A house, the Zoo!"], target=["Ein Haus, der Zoo!"])
        baseline = EVALUATORS["translation"].baselines["dictionary"]
        targets = [[text] for text in train.columns["target"]]
        assert baseline(train, targets, test, None, 0) == ["Ein Haus, das Zoo!"]

    def test_sentences_are_extracted(self):
        text = "A film opens. The film opens in May. It rains. Critics like the film of May."
        examples = ft.data.from_arrays(source=[text, "One."], target=["x", "y"])
        lead, textrank = (
            EVALUATORS["summarization"].baselines[name](examples, [], examples, None, 0)
            for name in ("lead-3", "textrank")
        )
        assert lead == ["A film opens. The film opens in May. It rains.", "One."]
        assert textrank[0] == text.replace("It rains. ", "")

    def test_textrank_is_pagerank(self):
        found = ["a red film", "a red film and a story", "a story of love", "love and war"]
        sets = [set(sentence.split()) for sentence in found]
        links = np.zeros((4, 4))
        for i in range(4):
            for j in range(i):
                shared = len(sets[i] & sets[j]) / np.log(len(sets[i]) * len(sets[j]))
                links[i, j] = links[j, i] = shared
        # PageRank is the fixed point of r = 0.85 * transitions @ r + 0.15 / 4.
        transitions = links / links.sum(axis=0)
        expected = np.linalg.solve(np.eye(4) - 0.85 * transitions, np.full(4, 0.15 / 4))
        np.testing.assert_allclose(centrality(found), expected, rtol=1e-6)

    def test_the_nearest_source(self):
        train = ft.data.from_arrays(source=["cuddle", "walking"], target=["kadl", "wokin"])
        test = ft.data.from_arrays(source=["cuddly", "walk"], target=["kadli", "wok"])
        nearest = EVALUATORS["text2text-generation"].baselines["nearest"]
        assert nearest(train, [["kadl"], ["wokin"]], test, None, 0) == ["kadl", "wokin"]


class TestReports:
    SOURCES = ["the film was very good", "a very bad film and a dull story"]
    TARGETS = ["der Film war sehr guter", "ein sehr schlechter Film und ein guter Film"]

    @pytest.fixture
    def films(self):
        return ft.data.from_arrays(source=self.SOURCES, target=self.TARGETS, name="films")

    @pytest.fixture
    def model(self, tmp_path):
        written = dict(zip(self.SOURCES, ["der Film war guter", self.TARGETS[1]], strict=True))
        return writer(write_tokenizer(tmp_path / "words"), written=written)

    def test_translation(self, model, films, tmp_path):
        with quiet():
            report = ft.evaluate(model, films, baseline="auto", train=films)
        predictions = ["der Film war guter", self.TARGETS[1]]
        assert report.predictions == predictions
        expected = sacrebleu.corpus_bleu(predictions, [self.TARGETS]).score
        assert report.metrics["bleu"] == pytest.approx(expected)
        assert report.baseline.name == "dictionary" and report.difference.metric == "bleu"
        shown = str(report)
        assert "source" in shown and "der Film war sehr guter" in shown
        assert f"tok:13a|smooth:exp|version:{sacrebleu.__version__}" in shown
        folder = report.save(tmp_path / "report")
        saved = json.loads((folder / "report.json").read_text())
        assert saved["examples"][0] == {
            "source": self.SOURCES[0],
            "reference": self.TARGETS[0],
            "prediction": predictions[0],
        }
        assert (folder / "report.png").exists()
        assert "<td>der Film war guter</td>" in report._repr_html_()

    def test_comparison(self, model, films):
        with quiet():
            comparison = ft.compare({"one": model, "two": model}, films, self.SOURCES)
        assert comparison.rows[1].difference.value == 0.0
        assert comparison.rows[2].name == "baseline predictions"
        assert "smooth:exp" in str(comparison)

    def test_several_references(self, model):
        films = ft.data.from_arrays(
            source=self.SOURCES[:1], target=[["falsch", "der Film war guter"]]
        )
        with quiet():
            assert ft.evaluate(model, films).metrics["bleu"] == pytest.approx(100)

    def test_predictions_of_others_are_texts(self, model, films):
        with pytest.raises(DataError, match="predictions must be texts, found 3 for row 1"):
            ft.evaluate(model, films, baseline=["ein Film", 3])

    @pytest.mark.parametrize(
        ("task", "module", "package"),
        [
            ("translation", "sacrebleu", "sacrebleu"),
            ("summarization", "rouge_score", "rouge-score"),
        ],
    )
    def test_a_missing_package_is_found_before_the_model_runs(
        self, tmp_path, films, monkeypatch, task, module, package
    ):
        model = writer(write_tokenizer(tmp_path / "words"), task)
        for name in [name for name in sys.modules if name.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=rf"{package}.*finetune-tf\[generation\]"):
            ft.evaluate(model, films)
        assert model.asked == []
