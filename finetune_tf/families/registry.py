"""The registry of all model families, by `model_type`."""

from collections.abc import Mapping
from typing import Any

from finetune_tf.base.arguments import shown
from finetune_tf.errors import CheckpointError
from finetune_tf.families.albert import ALBERT
from finetune_tf.families.bart import BART, MARIAN, MBART, PEGASUS
from finetune_tf.families.bert import BERT
from finetune_tf.families.clip import CLIP
from finetune_tf.families.convnext import CONVNEXT
from finetune_tf.families.deberta import DEBERTA
from finetune_tf.families.deberta_v2 import DEBERTA_V2
from finetune_tf.families.dinov2 import DINOV2
from finetune_tf.families.distilbert import DISTILBERT
from finetune_tf.families.dual_encoder import dual_encoder
from finetune_tf.families.electra import ELECTRA
from finetune_tf.families.eurobert import EUROBERT
from finetune_tf.families.family import Family
from finetune_tf.families.frames import with_frames
from finetune_tf.families.gpt2 import GPT2
from finetune_tf.families.gte import GTE
from finetune_tf.families.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from finetune_tf.families.mobilenet import MOBILENET_V1, MOBILENET_V2
from finetune_tf.families.modernbert import MODERNBERT
from finetune_tf.families.mpnet import MPNET
from finetune_tf.families.nomic_bert import NOMIC_BERT
from finetune_tf.families.resnet import RESNET
from finetune_tf.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA
from finetune_tf.families.siglip import SIGLIP
from finetune_tf.families.swin import SWIN
from finetune_tf.families.t5 import MT5, T5
from finetune_tf.families.videomae import VIDEOMAE
from finetune_tf.families.vit import DEIT, VIT

_IMAGES = (VIT, DEIT, DINOV2, RESNET, CONVNEXT, SWIN, MOBILENET_V1, MOBILENET_V2)

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        BERT,
        DISTILBERT,
        ROBERTA,
        XLM_ROBERTA,
        CAMEMBERT,
        ELECTRA,
        ALBERT,
        MPNET,
        DEBERTA,
        DEBERTA_V2,
        MODERNBERT,
        NOMIC_BERT,
        GTE,
        EUROBERT,
        GPT2,
        LLAMA,
        MISTRAL,
        QWEN2,
        QWEN3,
        T5,
        MT5,
        BART,
        MBART,
        PEGASUS,
        MARIAN,
        *map(with_frames, _IMAGES),
        VIDEOMAE,
        CLIP,
        SIGLIP,
    )
}
FAMILIES["vision-text-dual-encoder"] = dual_encoder(FAMILIES)


def family_of(config: Mapping[str, Any], where: object = "config.json") -> Family:
    """Returns the family of a config.

    Args:
        config: The content of config.json.
        where: Name of the config in error messages.

    Raises:
        CheckpointError: If the model type is missing or unknown.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"{where} has the model_type {shown(model_type)}, which finetune_tf does not "
            f"support; supported are: {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]
