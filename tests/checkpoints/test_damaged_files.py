"""Damaged files and files with unexpected content raise a CheckpointError."""

import json
import random
import struct

import h5py
import numpy as np
import pytest
from helpers_checkpoints import TESTS, copy_checkpoint, read_weights, reference

import finetune_tf as ft
from finetune_tf.errors import CheckpointError

FOLDER, _ = reference("relu")
TF4 = TESTS / "fixtures" / "tf4" / "bert" / "text-classification"
SCOPE = "bert/tf_bert_for_sequence_classification/bert/encoder/layer_._0/attention/self/query"
KERNEL = f"{SCOPE}/kernel:0"
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.fixture
def copied(tmp_path):
    return copy_checkpoint(FOLDER, tmp_path / "copied")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"[" * 100_000,
        b"\xff{}",
        json.dumps({"a": {**TENSOR, "dtype": "Q9"}}).encode(),
        json.dumps({"a": {**TENSOR, "shape": [-1]}}).encode(),
        json.dumps({"a": {**TENSOR, "shape": [2**62, 8]}}).encode(),
        json.dumps({"a": TENSOR, "b": TENSOR}).encode(),
        json.dumps({"a": {"dtype": "F32", "shape": [1]}}).encode(),
    ],
)
def test_damaged_safetensors_headers(copied, header):
    weights = copied / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        ft.load(copied)
    weights.write_bytes(struct.pack("<Q", 2**60) + header)
    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        ft.load(copied)


@pytest.mark.parametrize("name", ["", "n" * 100_000, "\n\0\x1b[31m", "bert."])
def test_odd_tensor_names(copied, name):
    header = json.dumps({name: TENSOR}).encode()
    weights = copied / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match="lacks 37 tensors that its config requires") as error:
        ft.load(copied)
    assert len(str(error.value)) < 1000
    assert "\x1b" not in str(error.value)


def with_kernel(tmp_path, change):
    """Copies the checkpoint of transformers 4 and replaces one of its arrays."""
    folder = copy_checkpoint(TF4, tmp_path / "h5")
    with h5py.File(folder / "tf_model.h5", "a") as file:
        del file[KERNEL]
        change(file)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: None, "lacks 1 tensors .* block_0/attention/query/kernel"),
        (lambda file: file.create_group(KERNEL), "lacks 1 tensors .* block_0/attention/query/ker"),
        (lambda file: file.update({KERNEL: "text"}), "has the dtype object"),
        (lambda file: file.update({KERNEL: 3.0}), r"has the shape \(\), but the config requires"),
        (lambda file: file.update({KERNEL: h5py.Empty("f4")}), r"has the shape \(\), but"),
        (
            lambda file: file.create_dataset(
                KERNEL, (24, 24), "f4", external=[("/etc/hostname", 0, 2304)]
            ),
            "query/kernel:0 of .* is stored in another file. .* do not trust this checkpoint",
        ),
        (
            lambda file: file.update({KERNEL: h5py.ExternalLink("/tmp/other.h5", "/x")}),
            "lacks 1 tensors .* block_0/attention/query/kernel",
        ),
        (lambda file: [file.pop(name) for name in list(file)], "tf_model.h5 contains no tensors"),
    ],
)
def test_hdf5_with_unexpected_content(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        ft.load(with_kernel(tmp_path, change))


def test_hdf5_without_attributes_of_layers(tmp_path):
    folder = copy_checkpoint(TF4, tmp_path / "h5")
    with h5py.File(folder / "tf_model.h5", "a") as file:
        for group in file.values():
            for name in list(group.attrs):
                del group.attrs[name]
    with pytest.raises(CheckpointError, match="lacks 37 tensors that its config requires"):
        ft.load(folder)


@pytest.mark.parametrize("file", ["tf_model.h5", "model.safetensors"])
def test_randomly_overwritten_bytes(tmp_path, file):
    """Damage within the values cannot be detected, but must not crash either."""
    source = TF4 if file == "tf_model.h5" else FOLDER
    folder = copy_checkpoint(source, tmp_path / "damaged")
    whole = (folder / file).read_bytes()
    refused = 0
    for seed in range(12):
        chance, damaged = random.Random(seed), bytearray(whole)
        for _ in range(chance.choice((1, 50, 1000))):
            damaged[chance.randrange(len(whole) if seed % 2 else 4000)] = chance.randrange(256)
        (folder / file).write_bytes(damaged)
        try:
            ft.load(folder)
        except CheckpointError:
            refused += 1
    assert refused >= 6


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[]", "config.json must be a JSON object, found an array"),
        (
            "config.json",
            '{"model_type": "bert", "x": NaN}',
            "not valid JSON: it contains NaN, which",
        ),
        ("config.json", '{"vocab_size": ' + "9" * 5000 + "}", "config.json is not valid JSON: Exc"),
        ("config.json", "[" * 100_000, "not valid JSON: its values are nested too deeply"),
        ("config.json", '{"model_type": "bert", "vocab_size": 1e400}', "'vocab_size' has the va"),
        ("modules.json", "{}", "modules.json must be a JSON array, found an object"),
        ("modules.json", "[1]", "An entry of .*modules.json must be a JSON object, found a number"),
        (
            "modules.json",
            '[{"path": 1}]',
            "'path' of .*modules.json must be a JSON string, found a number",
        ),
        (
            "modules.json",
            '[{"type": []}]',
            "'type' of .*modules.json must be a JSON string, found an array",
        ),
        (
            "modules.json",
            '[{"path": "../x"}]',
            "modules.json refers to the file '../x', which may be outside of",
        ),
        (
            "modules.json",
            '[{"path": "/etc"}]',
            "modules.json refers to the file '/etc', which may be outside of",
        ),
        (
            "1_Pooling/config.json",
            "[]",
            "1_Pooling/config.json must be a JSON object, found an array",
        ),
        (
            "1_Pooling/config.json",
            '{"pooling_mode": 3}',
            "must be a JSON string or array, found a number",
        ),
        ("1_Pooling/config.json", '{"pooling_mode": [3]}', "A pooling mode of .* found a number"),
        (
            "2_Dense/config.json",
            '{"activation_function": 3}',
            "must be a JSON string, found a number",
        ),
        ("sentence_bert_config.json", '{"max_seq_length": "x"}', "'max_seq_length' has the value"),
        ("sentence_bert_config.json", '{"max_seq_length": -3}', "'max_seq_length' has the value"),
        ("sentence_bert_config.json", '{"do_lower_case": "no"}', "'do_lower_case' has the value"),
        ("config_sentence_transformers.json", '{"prompts": []}', "'prompts' of .* found an array"),
        ("config_sentence_transformers.json", '{"default_prompt_name": []}', "found an array"),
    ],
)
def test_json_files_with_unexpected_content(copied, file, content, message):
    (copied / file).parent.mkdir(exist_ok=True)
    (copied / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        ft.load(copied)


def test_a_pooling_folder_with_another_name(copied):
    (copied / "9_Pooling").mkdir()
    (copied / "9_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "9_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (copied / "modules.json").write_text(json.dumps(modules))
    assert ft.load(copied, labels=["a", "b"]).info.pooling == "mean"


@pytest.mark.slow
def test_content_of_a_pickle(copied):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in read_weights(copied).items()}
    query = "bert.encoder.layer.0.attention.self.query.weight"
    (copied / "model.safetensors").unlink()
    file = copied / "pytorch_model.bin"
    for content in (
        {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
        {"state_dict": tensors, "epoch": 3, "optimizer": {"state": {}, "groups": []}},
        {**tensors, query: tensors[query].double()},
    ):
        torch.save(content, file)
        assert ft.load(copied).labels == ("no", "maybe", "yes")
    wanted = "not a state dict, .* Save the model with torch.save.model.state_dict.., path.[.]"
    for content, message in [
        ([1], f"contains a list that is {wanted}"),
        ({"model": tensors, "ema": tensors}, f"contains a dict that is {wanted}"),
        ({"a": {"b": tensors}}, f"contains a dict that is {wanted}"),
        ({**tensors, "epoch": 3}, f"contains a dict that is {wanted}"),
        ({1: torch.ones(2)}, f"contains a dict that is {wanted}"),
        ({}, "pytorch_model.bin contains no tensors"),
        (torch.nn.Linear(2, 2), "by PyTorch: Weights only load failed. It is damaged, or con"),
        ({**tensors, query: tensors[query] * np.nan}, "too large for the model's dtype: .*query"),
        ({**tensors, query: tensors[query].double() + 1e300}, "too large for the model's dtype"),
        ({**tensors, query: tensors[query].to(torch.int8)}, "has the dtype int8"),
        ({**tensors, query: tensors[query].to(torch.float8_e4m3fn)}, "has the dtype float8_e4m3fn"),
        ({**tensors, query: tensors[query] > 0}, "has the dtype bool"),
    ]:
        torch.save(content, file)
        with pytest.raises(CheckpointError, match=message):
            ft.load(copied)
    whole = file.read_bytes()
    for damaged in (b"", b"junk", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(
            CheckpointError, match="cannot be opened by PyTorch: .*Download it again"
        ):
            ft.load(copied)
