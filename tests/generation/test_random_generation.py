"""Random models generate PyTorch's tokens, whatever the configuration and the options."""

from dataclasses import replace

import numpy as np
import pytest
from conformance.harness import Case
from conformance.test_conformance import SEEDS
from references.generation_options import ENDS, OPTIONS, PADDING, bad_words

from finetune_tf.families import FAMILIES
from finetune_tf.generation.generate import way_of
from finetune_tf.generation.loop import generate_ids
from finetune_tf.generation.search import search_ids
from finetune_tf.generation.settings import GenerationSettings

GENERATION = "text-generation"
TEXT_TO_TEXT = "text2text-generation"
DECODERS = [f for f, row in FAMILIES.items() if GENERATION in row.heads(row.complete({}))]
HEADS = {family: row.heads(row.complete({})) for family, row in FAMILIES.items()}
# A head with a backbone of its own is that of a prefix language model, which PyTorch has not.
ENCODER_DECODERS = [
    family
    for family, heads in HEADS.items()
    if TEXT_TO_TEXT in heads and heads[TEXT_TO_TEXT].backbone is None
]


def fitted(options, size):
    """Options whose tokens a small vocabulary has, of which few are suppressed."""

    def fit(key, value):
        if isinstance(value, list):
            return sorted({token % size for token in value} - set(ENDS))[:2]
        return value % size if "token_id" in key else value

    return {key: fit(key, value) for key, value in options.items()}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Unfeasible length constraints:UserWarning")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", DECODERS)
def test_any_configuration_with_any_options(family, seed, tmp_path):
    pytest.importorskip("torch")
    from references import pytorch
    from references.make_generation import generated

    random = np.random.default_rng(seed)
    config = pytorch.random_config(family, GENERATION, seed) | {"vocab_size": 23}
    torch_model = pytorch.make_model(family, GENERATION, config, seed)
    pytorch.save(torch_model, config, tmp_path)
    model = Case(tmp_path, GENERATION, {}).load()
    length = 4
    new = min(8, model._max_positions - length)
    mask = (np.arange(length) >= random.integers(0, length, (3, 1))).astype("int32")
    ids = np.where(mask, random.integers(8, 23, mask.shape), PADDING).astype("int32")
    for name in random.choice(list(OPTIONS), 2, replace=False):
        options = fitted(OPTIONS[name], 23)
        expected, scores = generated(torch_model, ids, mask, new, **options)
        if random.random() < 0.5:
            options["bad_words_ids"] = bad_words(expected)
            expected, scores = generated(torch_model, ids, mask, new, **options)
        settings = GenerationSettings(eos_token_id=ENDS, pad_token_id=PADDING).with_values(options)
        way = way_of(model, settings, has_scores=True)
        if settings.num_beams > 1:
            found, sums, _ = search_ids(model, ids, mask, new, way)
        else:
            found, sums, _ = generate_ids(model, ids, mask, new, way, (0, 0))
        found = np.asarray(found).reshape(len(expected), -1)
        np.testing.assert_array_equal(found, expected[:, : found.shape[1]], err_msg=str(options))
        assert (expected[:, found.shape[1] :] == PADDING).all()
        np.testing.assert_allclose(np.reshape(sums, -1), scores, rtol=1e-4, atol=1e-4)


def random_text_to_text(family, seed):
    """A random configuration that `generate` of transformers can run, with 136 positions."""
    from references import pytorch

    config = pytorch.random_config(family, TEXT_TO_TEXT, seed) | {"vocab_size": 41}
    # The cache of transformers fails if the sides have different numbers of blocks.
    if "num_layers" in config:
        config["num_decoder_layers"] = config["num_layers"]
    else:
        config["decoder_layers"] = config["encoder_layers"]
        config["max_position_embeddings"] = 136
    return config


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_long_texts_of_any_encoder_decoder(family, seed, tmp_path):
    pytest.importorskip("torch")
    from references import pytorch
    from references.make_generation import generated

    random = np.random.default_rng(seed)
    config = random_text_to_text(family, seed)
    torch_model = pytorch.make_model(family, TEXT_TO_TEXT, config, seed)
    pytorch.save(torch_model, config, tmp_path)
    model = Case(tmp_path, TEXT_TO_TEXT, {}).load()
    mask = (np.arange(9) < random.integers(1, 10, (2, 1))).astype("int32")
    ids = np.where(mask, random.integers(8, 41, mask.shape), PADDING).astype("int32")
    new, options = 128, {"num_beams": 4, "length_penalty": float(random.choice([-0.5, 0.7, 2.0]))}
    settings = GenerationSettings.of(model)
    settings = replace(settings, eos_token_id=ENDS, pad_token_id=PADDING).with_values(options)
    expected, scores = generated(torch_model, ids, mask, new, **options)
    way = way_of(model, settings, has_scores=True)
    found, sums, _ = search_ids(model, ids, mask, new, way)
    np.testing.assert_array_equal(np.asarray(found)[:, 0], expected)
    np.testing.assert_allclose(np.reshape(sums, -1), scores, rtol=1e-4, atol=1e-4)
