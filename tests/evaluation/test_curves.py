"""Learning curves of a history."""

import pytest

import finetune_tf as ft
from finetune_tf.errors import DataTypeError


def test_one_plot_per_metric_with_the_loss_first():
    history = {"accuracy": [0.5, 0.75], "loss": [1.0, 0.5], "val_loss": [1.25, 0.75]}
    loss, accuracy = ft.plot_history(history).axes
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
    assert [list(line.get_ydata()) for line in loss.lines] == [[1.0, 0.5], [1.25, 0.75]]


@pytest.mark.parametrize("history", [{}, 3, {"loss": 1.0}, {"loss": {"1": None}}, {"loss": "abc"}])
def test_other_arguments_raise_an_error(history):
    with pytest.raises(DataTypeError, match="plot_history expects what model.fit returns"):
        ft.plot_history(history)
