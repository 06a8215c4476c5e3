"""Trained networks compute PyTorch's logits on photographs, and recognize what is on them.

The weights and the data are not part of the project: `FINETUNE_TF_WEIGHTS` and `FINETUNE_TF_DATA`
name their folders. The batch normalisation of both MobileNets is folded into the convolutions; the
ResNet for CIFAR-10 has the names and the layers of the scripts that train such networks.
"""

import functools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import finetune_tf as ft
from finetune_tf.architectures import BatchNorm
from finetune_tf.errors import ModelError
from finetune_tf.messages import quiet

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path(os.environ.get("FINETUNE_TF_WEIGHTS", ROOT / "shared" / "weights"))
DATA = Path(os.environ.get("FINETUNE_TF_DATA", ROOT / "shared" / "data"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"FINETUNE_TF_WEIGHTS: no folder {WEIGHTS}"),
]
CLASSES = {"mobilenet_v1_025": "MobileNetV1", "mobilenet_v2_100": "MobileNetV2"}
LOGITS = 1e-5  # largest difference of logits, as a share of the largest logit


@pytest.fixture(params=CLASSES)
def name(request):
    if not (WEIGHTS / request.param).is_dir():
        pytest.skip(f"FINETUNE_TF_WEIGHTS: {WEIGHTS} has no folder {request.param}")
    return request.param


@functools.cache
def photographs():
    """Scenes of everyday life, and hands."""
    if not (DATA / "captions").is_dir() or not (DATA / "sign_digits").is_dir():
        pytest.skip(f"FINETUNE_TF_DATA: {DATA} has no folders captions and sign_digits")
    scenes = sorted((DATA / "captions" / "images").glob("*.jpg"))[:12]
    return [*scenes, *sorted((DATA / "sign_digits" / "test").glob("*/*.jpg"))[::75]]


def model_of(name):
    with quiet():
        return ft.load(WEIGHTS / name, dropout=0.0)


def pixels_of(model, paths=None):
    return np.stack([model.image_processor(path) for path in paths or photographs()])


def logits_of_pytorch(name, folder):
    torch = pytest.importorskip("torch")
    import transformers
    from PIL import Image

    kind = getattr(transformers, f"{CLASSES[name]}ForImageClassification")
    torch_model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    # Its processor on Pillow, which is the same as the one that torchvision replaces.
    processor = getattr(transformers, f"{CLASSES[name]}ImageProcessorPil")
    images = [Image.open(path).convert("RGB") for path in photographs()]
    inputs = processor.from_pretrained(WEIGHTS / name)(images, return_tensors="pt")
    with torch.inference_mode():
        return torch_model(**inputs).logits.numpy()


def assert_close(found, expected):
    found = np.asarray(found)
    np.testing.assert_allclose(found, expected, rtol=0, atol=LOGITS * np.abs(expected).max())


def test_logits_are_pytorchs(name):
    model = model_of(name)
    assert_close(model(pixels_of(model)), logits_of_pytorch(name, WEIGHTS / name))


def test_saved_again_they_open_in_pytorch(name, tmp_path):
    model = model_of(name)
    with quiet():
        saved = model.save_pretrained(tmp_path / "saved")
    assert_close(model(pixels_of(model)), logits_of_pytorch(name, saved))
    before, after = (load_file(folder / "model.safetensors") for folder in (WEIGHTS / name, saved))
    assert after.keys() == before.keys()
    for tensor, values in before.items():
        assert after[tensor].dtype == values.dtype
        np.testing.assert_array_equal(after[tensor], values)


def test_top_classes_are_pytorchs(name):
    model = model_of(name)
    with quiet():
        found = ft.predict(model, image=[str(path) for path in photographs()])
    expected = logits_of_pytorch(name, WEIGHTS / name).argmax(1)
    assert [model.labels.index_of(each.label) for each in found] == list(expected)


def test_measured_statistics_keep_the_outputs():
    """Of MobileNet v2, most training outputs have the right class then, instead of a few."""
    if not (WEIGHTS / "mobilenet_v2_100").is_dir():
        pytest.skip(f"FINETUNE_TF_WEIGHTS: {WEIGHTS} has no folder mobilenet_v2_100")
    photographs()
    model = model_of("mobilenet_v2_100")
    with pytest.raises(ModelError, match="measure_batch_statistics"):
        ft.train_batch_statistics(model)
    pixels = pixels_of(model, sorted((DATA / "captions" / "images").glob("*.jpg"))[:192])
    batches = np.split(pixels, 6)
    expected = [np.asarray(model(batch)) for batch in batches]

    def share_of_same_classes_in_training():
        norms = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNorm)]
        state = model.get_weights()
        for norm in norms:
            norm.learns_statistics = True
        found = np.asarray(model(batches[0], training=True))
        for norm in norms:
            norm.learns_statistics = False
        model.set_weights(state)
        return (found.argmax(1) == expected[0].argmax(1)).mean()

    assert share_of_same_classes_in_training() < 0.2
    with quiet():
        ft.measure_batch_statistics(model, batches)
    for batch, logits in zip(batches, expected, strict=True):
        assert_close(model(batch), logits)
    assert share_of_same_classes_in_training() > 0.5
    with quiet():
        ft.train_batch_statistics(model)


CIFAR_LABELS = ["airplane", "automobile", "bird", "cat", "deer"]
CIFAR_LABELS += ["dog", "frog", "horse", "ship", "truck"]
CIFAR_CONFIG = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64],
    "depths": [3, 3, 3],
    "layer_type": "basic",
    "small_stem": True,
    "padded_shortcuts": True,
    "id2label": {str(i): label for i, label in enumerate(CIFAR_LABELS)},
}
CIFAR_MEAN, CIFAR_STDDEV = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "image_mean": CIFAR_MEAN,
    "image_std": CIFAR_STDDEV,
}


@pytest.fixture
def resnet20(tmp_path):
    if not (WEIGHTS / "cifar_resnet20").is_dir():
        pytest.skip(f"FINETUNE_TF_WEIGHTS: {WEIGHTS} has no folder cifar_resnet20")
    weights = WEIGHTS / "cifar_resnet20" / "resnet20.safetensors"
    shutil.copyfile(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CIFAR_CONFIG))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CIFAR_PROCESSOR))
    return tmp_path


@functools.cache
def cifar():
    path = DATA / "cifar10" / "cifar10_subset.npz"
    if not path.is_file():
        pytest.skip(f"FINETUNE_TF_DATA: {DATA} has no file cifar10/cifar10_subset.npz")
    with np.load(path) as arrays:
        return arrays["x_test"], arrays["y_test"].reshape(-1)


def logits_of_cifar_script(tensors, pixels):
    """The network of section 4.2 of He et al. 2016, written with PyTorch's functions."""
    torch = pytest.importorskip("torch")
    from torch.nn import functional

    tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}

    def convolve(x, number, block="", stride=1):
        x = functional.conv2d(x, tensors[f"{block}conv{number}.weight"], None, stride, 1)
        norm = f"{block}bn{number}."
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(tensors[norm + name] for name in names))

    normal = (pixels / np.float32(255) - np.float32(CIFAR_MEAN)) / np.float32(CIFAR_STDDEV)
    x = torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))
    x = torch.relu(convolve(x, 1))
    for group in range(1, 4):
        for i in range(3):
            is_smaller = group > 1 and i == 0
            block, stride = f"layer{group}.{i}.", 2 if is_smaller else 1
            shortcut = x
            if is_smaller:
                zeros = (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2)
                shortcut = functional.pad(x[:, :, ::2, ::2], zeros)
            x = torch.relu(convolve(x, 1, block, stride))
            x = torch.relu(convolve(x, 2, block) + shortcut)
    x = functional.linear(x.mean((2, 3)), tensors["linear.weight"], tensors["linear.bias"])
    return x.numpy()


def test_resnet_of_a_cifar_script(resnet20):
    model = model_of(resnet20)
    pixels, classes = cifar()
    tensors = load_file(resnet20 / "model.safetensors")
    found = model.predict(pixels, batch_size=250, verbose=0)
    assert_close(found, logits_of_cifar_script(tensors, pixels))
    assert (found.argmax(1) == classes).mean() > 0.8


def test_resnet_of_a_cifar_script_is_saved(resnet20, tmp_path):
    model = model_of(resnet20)
    pixels = cifar()[0][:20]
    with quiet():
        saved = model.save_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(np.asarray(model_of(saved)(pixels)), np.asarray(model(pixels)))
    # transformers has no such network, and rejects it.
    assert "It opens in `finetune_tf.load`" in (saved / "README.md").read_text()
    pytest.importorskip("torch")
    import transformers

    with pytest.raises(RuntimeError, match="[Mm]ismatch"):
        transformers.ResNetForImageClassification.from_pretrained(saved)
