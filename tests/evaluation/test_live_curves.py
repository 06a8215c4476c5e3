"""Curves that are redrawn in a notebook."""

import base64

import pytest
from helpers_models import small_model, token_batch

import finetune_tf as ft
from finetune_tf.callbacks import LiveCurves
from finetune_tf.messages import quiet

TOKENS, ANSWERS = token_batch(16)
CELL = """
import sys
sys.path[:0] = {path!r}
from helpers_models import small_model, token_batch
import finetune_tf as ft

tokens, answers = token_batch(16)
model = small_model()
with ft.messages.quiet():
    model.compile()
    history = model.fit(tokens, answers, epochs=3, validation_data=(tokens, answers),
                        callbacks=[ft.callbacks.LiveCurves()])
"""


def test_outside_of_a_notebook_nothing_is_drawn(capsys):
    model, curves = small_model(), LiveCurves()
    with quiet():
        model.compile()
    history = model.fit(TOKENS, ANSWERS, epochs=2, verbose=0, callbacks=[curves])
    assert "LiveCurves draws in notebooks only." in capsys.readouterr().out
    assert curves.history == history.history
    again = LiveCurves()
    again.load_state_dict(curves.state_dict())
    with quiet():
        model.fit(TOKENS, ANSWERS, epochs=3, initial_epoch=2, verbose=0, callbacks=[again])
    assert len(again.history["loss"]) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own packages
def test_a_notebook_has_one_figure_and_one_line_an_epoch(tmp_path):
    import sys

    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    cell = nbformat.v4.new_code_cell(CELL.format(path=[p for p in sys.path if p]))
    notebook = nbformat.v4.new_notebook(cells=[cell])

    nbclient.execute(notebook, cwd=tmp_path, timeout=300, kernel_name="python3")

    outputs = notebook.cells[0].outputs
    pictures = [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 1  # updated in its place
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")
    text = "".join(o.text for o in outputs if o.get("name") == "stdout")
    assert text.count("epoch 1/3: ") == text.count("epoch 3/3: ") == 1
    assert ft.callbacks.LiveCurves is LiveCurves
