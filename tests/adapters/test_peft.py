"""PEFT opens our adapters and we open PEFT's, with equal logits and gradients."""

import json
from pathlib import Path

import numpy as np
import pytest

import finetune_tf as ft
from finetune_tf.adapters import IA3, LoRA

pytestmark = pytest.mark.slow
REFERENCES = Path(__file__).parents[1] / "references"
BERT, GPT2 = "bert/text-classification", "gpt2/text-generation"
DEBERTA, MODERNBERT = "deberta/text-classification", "modernbert/text-classification"
LLAMA, VIT = "llama/text-classification", "vit/image-classification"
T5 = "t5/text2text-generation"

#: Settings of peft's LoraConfig or IA3Config, by checkpoint and a name for the case.
CASES = {
    "bert query and value": (BERT, {"target_modules": ["query", "value"]}),
    "bert all linear layers": (BERT, {"target_modules": "all-linear", "bias": "lora_only"}),
    "bert rslora": (BERT, {"target_modules": ["query", "dense"], "use_rslora": True}),
    "bert dora": (BERT, {"target_modules": "all-linear", "use_dora": True}),
    "bert patterns": (
        BERT,
        {
            "target_modules": r".*\.(key|value)",
            "rank_pattern": {"layer.0.attention.self.key": 2, "self.key": 3},
            "alpha_pattern": {"value": 7},
        },
    ),
    "bert one layer": (
        BERT,
        {"target_modules": ["query"], "layers_to_transform": [0], "bias": "all"},
    ),
    "bert modules": (
        BERT,
        {"target_modules": ["query"], "modules_to_save": ["bert.pooler.dense", "classifier"]},
    ),
    "bert ia3": (
        BERT,
        {"target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]},
    ),
    "deberta": (DEBERTA, {"target_modules": ["in_proj", "dense"]}),
    "modernbert": (MODERNBERT, {"target_modules": ["Wqkv", "Wi"], "use_dora": True}),
    "gpt2": (GPT2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "gpt2 dora": (GPT2, {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True}),
    "gpt2 ia3": (
        GPT2,
        {
            "target_modules": ["c_attn", "mlp.c_proj"],
            "feedforward_modules": ["mlp.c_proj"],
            "fan_in_fan_out": True,
        },
    ),
    "llama": (LLAMA, {"target_modules": ["q_proj", "v_proj", "gate_proj"]}),
    "vit": (VIT, {"target_modules": ["q_proj", "fc1"], "modules_to_save": ["classifier"]}),
    "t5": (T5, {"target_modules": ["q", "v"]}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _packages():
    pytest.importorskip("peft")


def task_type(folder):
    return {
        "text-classification": "SEQ_CLS",
        "text-generation": "CAUSAL_LM",
        "text2text-generation": "SEQ_2_SEQ_LM",
    }.get(folder.name)


def base_of(folder):
    """PyTorch's model of a folder, without dropout."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_text())
    return getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()


def peft_config(folder, settings):
    import peft

    kind = peft.IA3Config if "feedforward_modules" in settings else peft.LoraConfig
    if kind is peft.LoraConfig:
        settings = {"r": 4, "lora_alpha": 10, **settings}
    return kind(task_type=task_type(folder), **settings)


def shaken(model):
    """The PEFT model with random values in all that it trains."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += 0.1 * noise.to(parameter.dtype)
    return model


def inputs_of(folder):
    arrays = np.load(folder / "expected.npz")
    names = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
    names += ("decoder_input_ids", "decoder_attention_mask")
    return {name: arrays[name] for name in names if name in arrays}


def torch_outputs(model, folder, inputs, weights=None):
    """Logits, and the gradients of what is trained of the sum of weighted logits."""
    import torch

    tensors = {name: torch.tensor(np.asarray(value)) for name, value in inputs.items()}
    if "pixel_values" in tensors:
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        mean, std = (torch.tensor(processor[key]) for key in ("image_mean", "image_std"))
        pixels = tensors["pixel_values"].float() * processor.get("rescale_factor", 1 / 255)
        tensors["pixel_values"] = ((pixels - mean) / std).permute(0, 3, 1, 2)
    logits = model(**tensors).logits
    if weights is None:
        return logits.detach().numpy(), {}
    (logits * torch.tensor(weights)).sum().backward()
    found = {
        name: parameter.grad.numpy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return logits.detach().numpy(), found


def our_gradients(model, inputs, weights):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(inputs) * weights)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    return {v.path: np.asarray(g) for v, g in zip(variables, gradients, strict=True)}


def compared_gradients(model, theirs, ours):
    """Pairs of gradients of the adapters: PyTorch's and ours."""
    from finetune_tf.adapters.torch_names import module_names

    names = {module: path for path, module in module_names(model).items()}
    ends = {
        "lora_A.default.weight": "lora_a",
        "lora_B.default.weight": "lora_b",
        "lora_magnitude_vector.default.weight": "magnitude",
        "ia3_l.default": "factors",
    }
    for name, gradient in theirs.items():
        for end, attribute in ends.items():
            if name.endswith(f".{end}"):
                module = name.removeprefix("base_model.model.").removesuffix(f".{end}")
                layer = names[module].removesuffix("/kernel")
                expected = gradient.T if attribute.startswith("lora") else gradient.reshape(-1)
                yield name, expected, ours[f"{layer}/adapter_default/{attribute}"]


def assert_equal(found, expected, inputs, tolerance=1e-5):
    """Compares logits; those of padding have no meaning."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.ndim == 3:
        mask = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
        if mask.shape == found.shape[:2]:
            found, expected = found[mask > 0], expected[mask > 0]
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_adapters_of_peft(case, tmp_path):
    import peft

    checkpoint, settings = CASES[case]
    folder = REFERENCES / checkpoint
    theirs = shaken(peft.get_peft_model(base_of(folder), peft_config(folder, settings)).eval())
    theirs.save_pretrained(tmp_path / "theirs")
    model = ft.load(folder)
    ft.adapters.load_peft(model, tmp_path / "theirs")

    inputs = inputs_of(folder)
    logits, _ = torch_outputs(theirs, folder, inputs)
    plain, _ = torch_outputs(base_of(folder), folder, inputs)
    assert np.abs(logits - plain).max() > 1e-3
    assert_equal(model(inputs), logits, inputs)

    weights = np.random.default_rng(0).normal(size=logits.shape).astype("float32")
    if logits.ndim == 3:
        mask = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
        if mask.shape == logits.shape[:2]:
            weights *= mask[:, :, None]
    _, gradients = torch_outputs(theirs, folder, inputs, weights)
    pairs = list(compared_gradients(model, gradients, our_gradients(model, inputs, weights)))
    assert len(pairs) == len([n for n in gradients if "lora" in n or "ia3" in n]) > 0
    for name, expected, found in pairs:
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=1e-4 * scale + 1e-9, err_msg=name)

    ft.adapters.save_peft(model, tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(base_of(folder), tmp_path / "ours").eval()
    assert_equal(torch_outputs(again, folder, inputs)[0], logits, inputs)
    # What PEFT saves of it is what PEFT has saved, so nothing is lost or added.
    again.save_pretrained(tmp_path / "again")
    first, last = (stored(tmp_path / name) for name in ("theirs", "again"))
    assert {k for k in first if "original_module" not in k} <= set(last)
    for name in set(first) & set(last):
        np.testing.assert_allclose(last[name], first[name], atol=1e-6, err_msg=name)

    merged = model.save_pretrained(tmp_path / "merged")
    assert_equal(torch_outputs(base_of(merged), folder, inputs)[0], logits, inputs)
    ft.adapters.merge(model)
    assert_equal(model(inputs), logits, inputs)


def stored(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("checkpoint", "adapter", "selector"),
    [
        (BERT, LoRA(rank=2), None),
        (BERT, LoRA(rank=2, targets="all", bias="all"), ft.select.blocks(0, 1)),
        (MODERNBERT, LoRA(rank=2), ft.select.blocks(1, 3)),
        (DEBERTA, IA3(), None),
        (GPT2, LoRA(rank=2, rank_pattern={"h.0.attn.c_attn": 3}), None),
        (GPT2, IA3(), None),
        (LLAMA, LoRA(rank=2, targets="all", use_dora=True), ft.select.blocks(-1)),
        (VIT, LoRA(rank=2, targets="all"), None),
        (T5, LoRA(rank=2), ft.select.chain("decoder")),
    ],
)
def test_adapters_of_ours(checkpoint, adapter, selector, tmp_path):
    import peft

    folder = REFERENCES / checkpoint
    model = ft.load(folder)
    ft.adapters.add(model, adapter, selector)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(0, 0.1, variable.shape))
    ft.adapters.save_peft(model, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(base_of(folder), tmp_path / "ours").eval()
    inputs = inputs_of(folder)
    assert_equal(torch_outputs(theirs, folder, inputs)[0], model(inputs), inputs)
    theirs.save_pretrained(tmp_path / "theirs")
    mine, other = stored(tmp_path / "ours"), stored(tmp_path / "theirs")
    copies = (".original_module.", ".modules_to_save.")  # further names of biases, with bias="all"
    assert {k for k in other if not any(copy in k for copy in copies)} == set(mine)
