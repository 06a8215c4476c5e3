"""Checkpoints with timm's names compute what the same weights do with those of transformers."""

import json
import re

import numpy as np
import pytest
from conformance.harness import REFERENCES
from helpers_checkpoints import copy_checkpoint
from helpers_images import levels
from safetensors.numpy import load_file, save_file

import finetune_tf as ft
from finetune_tf.errors import CheckpointError
from finetune_tf.messages import quiet

# What timm's models always have.
SAME = {
    "resnet": {"hidden_act": "relu"},
    "vit": {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 20},
}
ARCHITECTURES = {"resnet": "resnet50", "vit": "vit_tiny_patch5_20"}
SIZES = {"resnet": 37, "vit": 20}
PRETRAINED = {"interpolation": "bicubic", "crop_pct": 0.8, "mean": [0.5, 0.4, 0.3]}
PRETRAINED |= {"std": [0.2, 0.3, 0.4]}
TO_TIMM = {
    "resnet": (
        (r"^resnet\.embedder\.embedder\.convolution", "conv1"),
        (r"^resnet\.embedder\.embedder\.normalization", "bn1"),
        (r"^resnet\.encoder\.stages\.0\.layers", "layer1"),
        (r"^resnet\.encoder\.stages\.1\.layers", "layer2"),
        (r"layer\.0\.convolution", "conv1"),
        (r"layer\.1\.convolution", "conv2"),
        (r"layer\.2\.convolution", "conv3"),
        (r"layer\.0\.normalization", "bn1"),
        (r"layer\.1\.normalization", "bn2"),
        (r"layer\.2\.normalization", "bn3"),
        (r"shortcut\.convolution", "downsample.0"),
        (r"shortcut\.normalization", "downsample.1"),
        (r"^classifier\.1", "fc"),
    ),
    "vit": (
        (r"^vit\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"^vit\.embeddings\.position_embeddings", "pos_embed"),
        (r"^vit\.embeddings\.cls_token", "cls_token"),
        (r"^vit\.encoder\.layer", "blocks"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"(\d)\.output\.dense", r"\1.mlp.fc2"),
        (r"^vit\.layernorm", "norm"),
        (r"^classifier", "head"),
    ),
}


def named_by_timm(kind, tensors):
    renamed, parts = {}, {}
    for name, value in tensors.items():
        if match := re.fullmatch(r"vit(.*)attention\.attention\.(\w+)(.*)", name):
            block = match[1].replace(".encoder.layer.", "blocks.")
            parts.setdefault(f"{block}attn.qkv{match[3]}", {})[match[2]] = value
            continue
        for pattern, ours in TO_TIMM[kind]:
            name = re.sub(pattern, ours, name)
        renamed[name] = value
    for name, values in parts.items():
        renamed[name] = np.concatenate([values[part] for part in ("query", "key", "value")])
    return renamed


@pytest.fixture(params=ARCHITECTURES)
def kind(request):
    return request.param


@pytest.fixture
def folders(kind, tmp_path):
    """The same weights in a folder of transformers and in one of timm."""
    source = REFERENCES / kind / "image-classification"
    plain = copy_checkpoint(source, tmp_path / "plain", **SAME[kind])
    size = {"height": SIZES[kind], "width": SIZES[kind]}
    processor = json.loads((source / "preprocessor_config.json").read_text())
    (plain / "preprocessor_config.json").write_text(json.dumps(processor | {"size": size}))
    folder = tmp_path / "timm"
    folder.mkdir()
    tensors = load_file(source / "model.safetensors")
    save_file(named_by_timm(kind, tensors), folder / "model.safetensors")
    write_config(folder, kind)
    return plain, folder


def write_config(folder, kind, **changes):
    config = {"architecture": ARCHITECTURES[kind], "num_classes": 3, "label_names": ["a", "b", "c"]}
    config["pretrained_cfg"] = PRETRAINED | {"input_size": [3, SIZES[kind], SIZES[kind]]}
    (folder / "config.json").write_text(json.dumps(config | changes))


def load(folder, *arguments):
    with quiet():
        return ft.load(folder, *arguments)


def test_outputs_are_those_of_transformers_names(kind, folders):
    plain, folder = folders
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZES[kind], SIZES[kind], 3), "uint8")
    model, expected = load(folder), load(plain)
    assert tuple(model.labels) == ("a", "b", "c")
    np.testing.assert_array_equal(np.asarray(model(pixels)), np.asarray(expected(pixels)))


def test_images_are_prepared_as_timm_does(kind, folders):
    processor = load(folders[1]).image_processor
    assert processor.output_size == (SIZES[kind], SIZES[kind])
    values = processor.values
    assert values["size"] == {"shortest_edge": int(SIZES[kind] / 0.8)}
    assert (values["image_mean"], values["image_std"]) == (PRETRAINED["mean"], PRETRAINED["std"])
    assert values["resample"] == 3  # bicubic


def test_saved_again_it_has_the_names_of_transformers(kind, folders, tmp_path):
    plain, folder = folders
    model = load(folder)
    with quiet():
        saved = model.save_pretrained(tmp_path / "saved")
    before, after = (load_file(each / "model.safetensors") for each in (plain, saved))
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    pixels = model.image_processor(levels(size=(50, 40)))[None]
    np.testing.assert_array_equal(np.asarray(load(saved)(pixels)), np.asarray(model(pixels)))


def test_names_of_timm_with_a_config_of_transformers(kind, folders):
    """As torchvision and many scripts name the parts of a ResNet."""
    plain, folder = folders
    expected = load(plain)
    (folder / "config.json").write_text((plain / "config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        (plain / "preprocessor_config.json").read_text()
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZES[kind], SIZES[kind], 3), "uint8")
    np.testing.assert_array_equal(np.asarray(load(folder)(pixels)), np.asarray(expected(pixels)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet50d"}, "for the architecture 'resnet50d', which"),
        ({"global_pool": "max"}, r"model arguments \{'global_pool': 'max'\}, with which"),
        ({"model_args": {"in_chans": 1}}, r"model arguments \{'in_chans': 1\}, with which"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "the crop_mode 'border'"),
        ({"pretrained_cfg": {"input_size": 224}}, "the input_size 224"),
        ({"pretrained_cfg": {"crop_pct": "1"}}, "the crop_pct '1'"),
        ({"num_classes": "3"}, "num_classes '3'"),
    ],
)
def test_variants_are_an_error(changes, message, folders, kind):
    write_config(folders[1], kind, **changes)
    with pytest.raises(CheckpointError, match=message):
        ft.load(folders[1])


def test_tensors_of_variants_are_an_error(folders):
    path = folders[1] / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"norm_pre.weight": np.ones(3, "float32")}, path)
    with pytest.raises(CheckpointError, match=r"lacks: \['norm_pre.weight'\] \(1 in all\)"):
        ft.load(folders[1])


def test_tensors_of_wrong_shapes_are_an_error(kind, folders):
    path = folders[1] / "model.safetensors"
    tensors = load_file(path)
    first = {"resnet": "conv1.weight", "vit": "patch_embed.proj.weight"}[kind]
    save_file(tensors | {first: tensors[first].ravel()}, path)
    with pytest.raises(CheckpointError, match="must have a tensor with 4 axes that becomes embed"):
        ft.load(folders[1])
    del tensors[first]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="of transformers, found none. Download it again"):
        ft.load(folders[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_tiny_patch16_224"])
def test_timm_computes_the_same(name, tmp_path):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    torch_model = timm.create_model(name).eval()
    for tensor, value in torch_model.named_buffers():
        if tensor.endswith("running_var"):
            value.uniform_(0.5, 2)
    timm.models.save_for_hf(torch_model, tmp_path)
    model = load(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), "uint8")
    means = (np.float32(torch_model.pretrained_cfg[key]) for key in ("mean", "std"))
    mean, stddev = means
    normal = ((pixels / np.float32(255) - mean) / stddev).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        expected = torch_model(torch.from_numpy(np.ascontiguousarray(normal))).numpy()
    found = np.asarray(model(pixels))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
