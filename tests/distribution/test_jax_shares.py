"""Several processes share the reading of batches: each opens the files of its own rows only."""

import numpy as np
import pytest
from helpers_images import TINY_VIT, write_image
from helpers_models import write_checkpoint
from helpers_processes import ended, result, start, start_two

from finetune_tf.distribution.jax_shares import places_of


@pytest.mark.parametrize("count", range(1, 14))
@pytest.mark.parametrize(("processes", "devices"), [(2, 2), (2, 4), (3, 3), (4, 16)])
def test_every_row_is_read_by_one_process(count, processes, devices):
    places = places_of(count, processes, devices)
    own = [set(row) for row in places.tolist()]
    assert set().union(*own) == set(range(count))
    assert places.shape[1] % (devices // processes) == 0  # its devices get equally many
    if count >= processes:
        assert sum(map(len, own)) == count
        assert max(map(len, own)) - min(map(len, own)) <= 1
    else:  # the others read the last row
        assert own == [{min(number, count - 1)} for number in range(processes)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """14 images: three batches of 4, and one of 2."""
    made = tmp_path_factory.mktemp("images")
    for number in range(14):
        color = ("red", "blue", "green")[number % 3]
        write_image(made / f"{number:02}-{color}-.png", color, number)
    return made


def numbers(names):
    return [int(name[:2]) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_process_opens_its_own_images_only(devices, folder):
    job = {"images": str(folder)}
    with ended(start_two(TINY_VIT, devices=devices, **job)) as processes:
        first, second = map(result, processes)
    alone = result(start(TINY_VIT, 1, **job))
    assert sorted({*numbers(alone["opened"])}) == list(range(14))
    # The second epoch and the evaluation read what is stored.
    assert set(numbers(first["opened"])) == {0, 1, 4, 5, 8, 9, 12}
    assert set(numbers(second["opened"])) == {2, 3, 6, 7, 10, 11, 13}
    assert first["opened again"] == second["opened again"] == []
    assert set(numbers(first["opened by predict"])) == {0, 1, 2}
    assert set(numbers(second["opened by predict"])) == {3, 4}
    for found in (first, second):
        np.testing.assert_allclose(found["losses"], alone["losses"], atol=1e-5, rtol=0)
        np.testing.assert_allclose(found["evaluated"], alone["evaluated"], atol=1e-5)
        np.testing.assert_allclose(found["predicted"], alone["predicted"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "batches",
    [
        {"batch_size": 7, "shuffle": True},  # three lengths; 43 rows leave one over
        {"batch_size": 3, "shuffle": True, "packing": 24},
        {"batch_size": 2, "shuffle": True, "balance": True, "buckets": 1},
    ],
    ids=["uneven", "packed", "fewer rows than devices"],
)
def test_batches_that_processes_do_not_divide(batches, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "bert", blocks=1, hidden_dropout_prob=0.1)
    job = {"batches": batches, "epochs": 2}
    with ended(start_two(checkpoint, **job)) as processes:
        found, _ = map(result, processes)
    alone = result(start(checkpoint, 1, **job))
    assert len(alone["losses"]) == len(found["losses"]) > 10
    np.testing.assert_allclose(found["losses"], alone["losses"], atol=1e-5, rtol=0)
    for one, other in zip(found["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(one, other, atol=5e-5, rtol=0)
    for name, values in alone["history"].items():
        np.testing.assert_allclose(found["history"][name], values, atol=2e-5)
