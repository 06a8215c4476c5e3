"""Reports count test texts that occur with different labels."""

import pytest

import finetune_tf as ft


@pytest.mark.slow
def test_a_report_counts_contradictions(tiny_bert):
    model = ft.load(tiny_bert, labels=["neg", "pos"])
    train = ft.data.from_arrays(["a film", "a story", "dull"], [1, 1, 0], labels=["neg", "pos"])
    test = ft.data.from_arrays(
        ["A film", "good", "good", "a story", "bad"], ["neg", "pos", "neg", "pos", "neg"]
    )

    report = ft.evaluate(model, test, train=train)
    assert report.contradictions == 3
    assert report.to_dict()["contradictions"] == 3
    assert (
        "3 of 5 test texts also occur with another label in the test set or the training "
        "examples: a model can predict these correctly only by chance."
    ) in str(report)

    alone = ft.evaluate(model, test)
    assert alone.contradictions == 2
    clean = ft.evaluate(model, test[[0, 1, 4]])
    assert clean.contradictions == 0
    assert "another label" not in str(clean)
