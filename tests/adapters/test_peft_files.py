"""Folders of PEFT: what is written, and which files are refused."""

import json
import shutil

import numpy as np
import pytest
from helpers_models import token_batch, write_checkpoint
from safetensors.numpy import load_file, save_file

import finetune_tf as ft
from finetune_tf.adapters import IA3, LoRA
from finetune_tf.adapters.peft_config import target_modules
from finetune_tf.errors import ArgumentError, CheckpointError, ModelError

TOKENS, _ = token_batch(8)
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"


def shaken(model):
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(0, 0.2, variable.shape))
    return model


@pytest.fixture
def model(tiny_bert):
    model = ft.load(tiny_bert, labels=["no", "yes"])
    ft.adapters.add(model, LoRA(rank=2))
    return shaken(model)


@pytest.fixture
def base(tiny_bert):
    return ft.load(tiny_bert, labels=["no", "yes"])


def content(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, load_file(folder / "adapter_model.safetensors")


def changed(folder, config=None, tensors=None, without=()):
    """Changes some keys of the config and some tensors of a folder."""
    old, stored = content(folder)
    (folder / "adapter_config.json").write_text(json.dumps(old | (config or {})))
    stored = {k: v for k, v in stored.items() if k not in without} | (tensors or {})
    save_file(stored, folder / "adapter_model.safetensors")
    return folder


def test_what_is_written(model, tmp_path, capsys):
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    assert "Saved the adapter 'default' with classifier to " in capsys.readouterr().out
    config, tensors = content(folder)
    assert config["peft_type"] == "LORA" and config["task_type"] == "SEQ_CLS"
    assert config["target_modules"] == ["query", "value"]
    assert (config["r"], config["lora_alpha"]) == (2, 16)
    assert config["modules_to_save"] == ["classifier"]
    assert config["base_model_name_or_path"] == model.info.checkpoint
    assert tensors[f"{QUERY}.lora_A.weight"].shape == (2, 24)
    assert tensors[f"{QUERY}.lora_B.weight"].shape == (24, 2)
    assert sorted(set(tensors) - {k for k in tensors if "lora" in k}) == [
        "base_model.model.classifier.bias",
        "base_model.model.classifier.weight",
    ]


@pytest.mark.parametrize(
    ("adapter", "selector", "config"),
    [
        (LoRA(3), ft.select.blocks(-1), {"target_modules": ["query", "value"], "r": 3}
            | {"layers_to_transform": [1]}),
        (
            LoRA(3, alpha=5, rank_pattern={"value": 2}, use_rslora=True, dropout=0.1),
            ft.select.blocks(0, 1),
            {"rank_pattern": {"bert.encoder.layer.0.attention.self.value": 2}, "lora_alpha": 5}
            | {"use_rslora": True, "lora_dropout": 0.1},
        ),
        (
            LoRA(targets=["feed_forward/output"], use_dora=True),
            None,
            {"target_modules": [f"{i}.output.dense" for i in (0, 1)]}
            | {"use_dora": True},
        ),
        (LoRA(bias="lora_only"), None, {"bias": "lora_only"}),
        (LoRA(bias="all"), None, {"bias": "all"}),
        (
            IA3(),
            None,
            {"peft_type": "IA3", "feedforward_modules": [
                f"{i}.output.dense" for i in (0, 1)
            ]},
        ),
    ],
)  # fmt: skip
def test_round_trips(base, tiny_bert, adapter, selector, config, tmp_path):
    ft.adapters.add(base, adapter, selector)
    shaken(base)
    folder = ft.adapters.save_peft(base, tmp_path / "adapter")
    assert content(folder)[0].items() >= config.items()
    again = ft.load(tiny_bert, labels=["no", "yes"])
    ft.adapters.load_peft(again, folder, name="mine")
    np.testing.assert_allclose(again(TOKENS), base(TOKENS), atol=1e-6)
    assert len(again.trainable_variables) == len(base.trainable_variables)
    second = ft.adapters.save_peft(again, tmp_path / "second", "mine")
    (first_config, first), (last_config, last) = content(folder), content(second)
    assert first_config == last_config
    assert set(first) == set(last)
    for name in first:
        np.testing.assert_array_equal(last[name], first[name])


def test_biases_are_saved_while_they_are_frozen(base, tiny_bert, tmp_path):
    ft.adapters.add(base, LoRA(rank=2, bias="lora_only"))
    shaken(base)
    ft.train_only(base, ft.select.head())
    folder = ft.adapters.save_peft(base, tmp_path / "adapter")
    assert f"{QUERY}.base_layer.bias" in content(folder)[1]
    again = ft.load(tiny_bert, labels=["no", "yes"])
    ft.adapters.load_peft(again, folder)
    np.testing.assert_allclose(again(TOKENS), base(TOKENS), atol=1e-6)


def test_an_adapter_that_trains_biases_is_the_only_one(base, tiny_bert, tmp_path):
    ft.adapters.add(base, LoRA(rank=2, bias="all"), name="a")
    folder = ft.adapters.save_peft(base, tmp_path / "adapter", "a")
    message = (
        r"trains biases of the model \(.*\) has to be the only one, because all adapters share"
    )
    with pytest.raises(ArgumentError, match=message):
        ft.adapters.add(base, LoRA(), name="b")
    again = ft.load(tiny_bert, labels=["no", "yes"])
    ft.adapters.add(again, IA3(), name="c")
    for add in (
        lambda: ft.adapters.add(again, LoRA(bias="lora_only"), name="d"),
        lambda: ft.adapters.load_peft(again, folder, "d"),
    ):
        with pytest.raises(ArgumentError, match=message):
            add()


def test_thresholds_end_with_the_adapters_that_they_were_chosen_for(model, base, tmp_path, capsys):
    """Probabilities are others with other adapters; see `ft.calibration.choose_thresholds`."""
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")

    def ends(change):
        base.info.config["label_thresholds"] = {"yes": 0.3}
        capsys.readouterr()
        change()
        message = "The model got other adapters after its thresholds, which no longer apply"
        assert (message in capsys.readouterr().out) == ("label_thresholds" not in base.config)
        return "label_thresholds" not in base.config

    assert not ends(lambda: ft.adapters.add(base, LoRA(rank=2), name="a"))  # without effect yet
    assert ends(lambda: ft.adapters.load_peft(base, folder, "b"))
    assert not ends(lambda: ft.adapters.switch(base, "b"))  # as before
    assert not ends(lambda: ft.adapters.merge(base))
    assert not ends(lambda: ft.adapters.unmerge(base))
    assert ends(lambda: ft.adapters.switch(base, "a"))
    assert ends(lambda: ft.adapters.merge(base, "b"))  # which was not active
    ft.adapters.unmerge(base)
    assert not ends(lambda: ft.adapters.remove(base, "b"))
    assert ends(lambda: ft.adapters.remove(base, "a"))


def test_other_trained_modules_are_saved_completely(base, tiny_bert, tmp_path):
    ft.adapters.add(base, LoRA(rank=2))
    chosen = ft.select.adapters() | ft.select.head() | ft.select.matching("attention_norm|pooler")
    ft.train_only(base, chosen)
    shaken(base)
    folder = ft.adapters.save_peft(base, tmp_path / "adapter")
    config, tensors = content(folder)
    assert config["modules_to_save"] == [
        *(f"bert.encoder.layer.{i}.attention.output.LayerNorm" for i in (0, 1)),
        *("bert.pooler.dense", "classifier"),
    ]
    assert "base_model.model.bert.pooler.dense.weight" in tensors
    again = ft.load(tiny_bert, labels=["no", "yes"])
    ft.adapters.load_peft(again, folder)
    np.testing.assert_allclose(again(TOKENS), base(TOKENS), atol=1e-6)

    ft.train_only(base, chosen | ft.select.matching("block_0/attention/query/kernel"))
    with pytest.raises(ModelError, match="block_0/attention/query/kernel is trained besides the"):
        ft.adapters.save_peft(base, tmp_path / "adapter")


def test_names_without_the_prefix_of_the_class(model, base, tmp_path):
    """PEFT on an AutoModel has no "bert." in the names of modules."""
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    config, tensors = content(folder)
    short = {name.replace("model.bert.", "model."): value for name, value in tensors.items()}
    save_file(short, folder / "adapter_model.safetensors")
    ft.adapters.load_peft(base, folder)
    np.testing.assert_allclose(base(TOKENS), model(TOKENS), atol=1e-6)


def test_strays_of_peft_are_ignored(model, base, tmp_path):
    """With bias="all", PEFT also saves biases of its copies of modules that are trained."""
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    stray = {"base_model.model.classifier.original_module.bias": np.zeros(2, "float32")}
    bias = {f"{QUERY}.base_layer.bias": np.full(24, 0.5, "float32")}
    ft.adapters.load_peft(base, changed(folder, {"bias": "lora_only"}, stray | bias))
    np.testing.assert_array_equal(base.get_layer("block_0").attention.query.bias, np.full(24, 0.5))


def test_several_adapters_of_files(model, base, tmp_path, capsys):
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    for name in ("a", "b"):
        ft.adapters.load_peft(base, folder, name)
    np.testing.assert_allclose(base(TOKENS), model(TOKENS), atol=1e-6)
    ft.adapters.switch(base, "a")
    np.testing.assert_allclose(base(TOKENS), model(TOKENS), atol=1e-6)
    with pytest.raises(ArgumentError, match="has an adapter 'a' already"):
        ft.adapters.load_peft(base, folder, "a")


def test_a_changed_tied_matrix(tiny_decoder, tmp_path):
    model = ft.load(tiny_decoder)
    ft.adapters.add(model, LoRA(rank=2))
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    table = model.get_layer("embeddings").word.embeddings.numpy()
    base = ft.load(tiny_decoder)
    tied = {"base_model.model.lm_head.weight": table + 1}
    with pytest.raises(CheckpointError, match="a changed copy of a matrix that the model uses in"):
        ft.adapters.load_peft(base, changed(folder, tensors=tied))
    tied = {"base_model.model.lm_head.weight": table}
    ft.adapters.load_peft(base, changed(folder, tensors=tied))


def test_a_head_that_pytorch_does_not_have(tiny_bert, tmp_path, capsys):
    """transformers has no classifier on the mean of the tokens, but our own folder keeps it."""
    model = ft.load(tiny_bert, labels=["no", "yes"], pooling="mean")
    ft.adapters.add(model, LoRA(rank=2))
    shaken(model)
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    assert "; opens in peft without 2_Dense.linear.\n" in capsys.readouterr().out
    config, tensors = content(folder)
    assert config["modules_to_save"] is None
    assert "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight" in tensors
    again = ft.load(tiny_bert, labels=["no", "yes"], pooling="mean")
    ft.adapters.load_peft(again, folder)
    np.testing.assert_allclose(again(TOKENS), model(TOKENS), atol=1e-6)


def test_a_trained_tied_matrix_cannot_be_saved(tiny_decoder, tmp_path):
    model = ft.load(tiny_decoder)
    ft.adapters.add(model, LoRA(rank=2))
    ft.train_only(model, ft.select.adapters() | ft.select.embeddings())
    with pytest.raises(ModelError, match="embeddings/word/embeddings is trained besides the adapt"):
        ft.adapters.save_peft(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_another_base(model, tmp_path, capsys):
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    small = ft.load(write_checkpoint(tmp_path / "small", blocks=1), labels=["no", "yes"])
    before = small.get_weights()
    with pytest.raises(
        CheckpointError,
        match=r"is for another base model \(.*tiny-bert\): it has tensors for the module "
        r"bert.encoder.layer.1.attention.self.query, which .*small does not have. Modules that can",
    ):
        ft.adapters.load_peft(small, folder)
    labels = ft.load(tmp_path / "small", labels=3)
    fewer = shutil.copytree(folder, tmp_path / "fewer")
    config, tensors = content(fewer)
    upper = [name for name in tensors if "layer.1" in name]
    with pytest.raises(
        CheckpointError, match=r"\(2, 24\), but the model requires \(3, 24\). The a"
    ):
        ft.adapters.load_peft(labels, changed(fewer, without=upper))
    wrong = {f"{QUERY}.lora_A.weight": np.zeros((2, 23), "float32")}
    with pytest.raises(
        CheckpointError,
        match=r"lora_a of bert.encoder.layer.0.attention.self.query "
        r"has the shape \(2, 23\), but a module with 24 inputs and 24 outputs needs",
    ):
        ft.adapters.load_peft(small, changed(fewer, tensors=wrong))
    for old, new in zip(before, small.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    capsys.readouterr()
    good = {f"{QUERY}.lora_A.weight": np.zeros((2, 24), "float32")}
    ft.adapters.load_peft(small, changed(fewer, tensors=good))
    assert "'; this model is '" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "is of the type PREFIX_TUNING; supported are LORA and"),
        ({"lora_bias": True}, "The key 'lora_bias' of .* has the value True, which is not"),
        ({"layer_replication": [[0, 2]]}, "The key 'layer_replication' of "),
        ({"use_qalora": True}, "The key 'use_qalora' of "),
        ({"target_parameters": ["w"]}, "The key 'target_parameters' of "),
        ({"trainable_token_indices": [1]}, "The key 'trainable_token_indices' of "),
        ({"brand_new": 3}, "The key 'brand_new' of .* has the value 3, which is not"),
        ({"init_lora_weights": "pissa"}, "supported: such an adapter is initialized from the weig"),
        ({"bias": "some"}, "The key 'bias' of .* has the value 'some'"),
        ({"r": 4}, "self.query in .* have the rank 2, but adapter_config.json specifies 4"),
        ({"r": 0}, "The key 'r' of .* must be above 0, found 0"),
        ({"rank_pattern": {"(": 2}}, r"contains '\(', which is not a valid regular expression"),
        ({"use_dora": True}, "consists of lora_a, lora_b, but its config requires lora_a, lora"),
    ],
)  # fmt: skip
def test_configs_that_are_refused(model, base, config, message, tmp_path):
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        ft.adapters.load_peft(base, changed(folder, config))
    assert not ft.select.adapters().matches(base)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "other.lora_A.weight",
            "other.lora_A.weight of .* does not begin with 'base_model.model.'",
        ),
        (f"{QUERY}.lora_B.bias", "is a bias of the second matrix, which is not supported"),
        (
            "base_model.model.x.lora_embedding_A",
            "is an adapter of an embedding table, which is not",
        ),
        ("base_model.model.x.weight", r"the model has no place for its tensors \['x.weight'\]"),
        (f"{QUERY}.vera_lambda_d", "the model has no place for its tensors"),
    ],
)
def test_tensors_that_are_refused(model, base, name, message, tmp_path):
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        ft.adapters.load_peft(base, changed(folder, tensors={name: np.zeros(2, "float32")}))


def test_folders_that_are_refused(model, base, tmp_path):
    with pytest.raises(CheckpointError, match="There is no adapter_config.json in .* Expected a"):
        ft.adapters.load_peft(base, tmp_path)
    folder = ft.adapters.save_peft(model, tmp_path / "adapter")
    nan = {f"{QUERY}.lora_A.weight": np.full((2, 24), np.nan, "float32")}
    with pytest.raises(CheckpointError, match="contains NaN or infinity"):
        ft.adapters.load_peft(base, changed(folder, tensors=nan))
    (folder / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        ft.adapters.load_peft(base, folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match="There is neither adapter_model.safetensors nor adap"
    ):
        ft.adapters.load_peft(base, folder)


def test_short_names_of_modules():
    modules = [f"bert.encoder.layer.{i}.{name}" for i in range(3) for name in ("a.x", "b.x", "c")]
    every = [m for m in modules if m.endswith("a.x")]
    others = [m for m in modules if m not in every]
    assert target_modules(every, others) == (["a.x"], None)
    assert target_modules(every[:1], [*others, *every[1:]]) == (["a.x"], [0])
    assert target_modules(["h.0.c"], ["h.1.c"]) == (["0.c"], None)


def trains_everything_first(model, examples):
    ft.train_only(model, ft.select.everything())
    model.fit(examples.batches(model, 2), verbose=0)


def merges_another_adapter_first(model, examples):
    ft.adapters.add(model, ft.adapters.LoRA(rank=2), name="first")
    ft.adapters.merge(model)
    ft.adapters.remove(model, "first")


def resizes_the_vocabulary_first(model, examples):
    model.resize_token_embeddings(model.config.vocab_size + 1)


def trains_the_head_first(model, examples):
    ft.train_only(model, ft.select.head())
    model.fit(examples.batches(model, 2), verbose=0)


@pytest.mark.parametrize(
    ("first", "changed"),
    [
        (trains_everything_first, "39 variables, such as block_0/attention/key/bias"),
        (merges_another_adapter_first, "4 variables, such as block_0/attention/query/kernel"),
        (resizes_the_vocabulary_first, "1 variables, such as embeddings/word/embeddings"),
        (trains_the_head_first, None),
    ],
)
def test_an_adapter_on_other_weights_than_those_of_the_checkpoint(
    first, changed, tiny_bert, tmp_path, capsys
):
    examples = ft.data.from_arrays(["a good film", "a dull film"], ["yes", "no"])
    model = ft.load(tiny_bert, labels=["no", "yes"])
    first(model, examples)
    ft.adapters.add(model, ft.adapters.LoRA(rank=2))
    model.fit(examples.batches(model, 2), verbose=0)
    capsys.readouterr()
    ft.adapters.save_peft(model, tmp_path / "adapter")
    told = capsys.readouterr().out
    assert ("which it would compute something else" in told) == bool(changed)
    assert changed is None or changed in told


def test_what_the_config_of_the_model_has(tiny_bert, tmp_path, capsys):
    model = ft.load(tiny_bert, labels=["no", "yes"])
    ft.adapters.add(model, ft.adapters.LoRA(rank=2))
    ft.adapters.save_peft(model, tmp_path / "adapter")
    assert "no config of the model" not in capsys.readouterr().out
    model.config["label_thresholds"] = {"yes": 0.3}
    ft.adapters.save_peft(model, tmp_path / "adapter")
    told = capsys.readouterr().out
    assert "no config of the model, and so not thresholds ({'yes': 0.3}), which" in told
