"""Learning curves of a history."""

import math

import keras
import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.errors import DataError, DataTypeError
from finetune_tf.evaluation.curves import add_epochs


def test_one_plot_per_metric_with_the_loss_first():
    history = {"accuracy": [0.5, 0.75], "loss": [1.0, 0.5], "val_loss": [1.25, 0.75]}
    loss, accuracy = ft.plot_history(history).axes
    assert (loss.get_title(), accuracy.get_title()) == ("loss", "accuracy")
    assert [list(line.get_ydata()) for line in loss.lines] == [[1.0, 0.5], [1.25, 0.75]]


@pytest.mark.parametrize("history", [{}, 3, {"loss": 1.0}, {"loss": {"1": None}}, {"loss": "abc"}])
def test_other_arguments_raise_an_error(history):
    with pytest.raises(DataTypeError, match="plot_history expects what model.fit returns"):
        ft.plot_history(history)


def test_values_are_drawn_at_their_epochs():
    history = {"loss": [1.0, 0.5, 0.4], "val_loss": [math.nan, 0.75, math.nan]}
    (axes,) = ft.plot_history(history).axes
    training, validation = axes.lines
    assert list(training.get_xdata()) == list(validation.get_xdata()) == [1, 2, 3]
    np.testing.assert_array_equal(validation.get_ydata(), history["val_loss"])

    later = keras.callbacks.History()
    later.epoch, later.history = [4, 5], {"loss": [0.3, 0.2]}  # a fit with initial_epoch=4
    (line,) = ft.plot_history(later).axes[0].lines
    drawn = [
        x for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if not math.isnan(y)
    ]
    assert drawn == [5, 6]


def test_epochs_that_are_unknown_are_an_error():
    with pytest.raises(DataError, match="val_loss has 1, others have 3, as with validation_"):
        ft.plot_history({"loss": [1.0, 0.5, 0.4], "val_loss": [0.75]})


def test_added_epochs_keep_their_places():
    history = {}
    add_epochs(history, {"loss": [3.0, 2.0]})
    add_epochs(history, {"loss": [1.0], "val_loss": [1.5]})
    add_epochs(history, {"val_loss": [1.25]})
    np.testing.assert_array_equal(history["loss"], [3.0, 2.0, 1.0, math.nan])
    np.testing.assert_array_equal(history["val_loss"], [math.nan, math.nan, 1.5, 1.25])
