"""What the image processors of transformers assume for keys that a file leaves out."""

from typing import Any

_HALF = [0.5, 0.5, 0.5]
_BILINEAR, _BICUBIC = 2, 3
#: A usual size.
SQUARE = {"height": 224, "width": 224}
#: For all classes.
COMMON = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": False}
COMMON |= {"rescale_factor": 1 / 255, "image_mean": _HALF, "image_std": _HALF}
_MOBILENET = {"resample": _BILINEAR, "size": {"shortest_edge": 256}}
_MOBILENET |= {"do_center_crop": True, "crop_size": SQUARE}
_VIDEOMAE = {**_MOBILENET, "size": {"shortest_edge": 224}}
_CLIP = {"resample": _BICUBIC, "size": {"shortest_edge": 224}}
_CLIP |= {"do_center_crop": True, "crop_size": SQUARE}
_CLIP |= {"image_mean": [0.48145466, 0.4578275, 0.40821073]}
_CLIP |= {"image_std": [0.26862954, 0.26130258, 0.27577711]}
#: The same by class.
CLASSES: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {"resample": _BILINEAR, "size": SQUARE},
    "DeiTImageProcessor": {
        "resample": _BICUBIC,
        "size": {"height": 256, "width": 256},
        "do_center_crop": True,
        "crop_size": SQUARE,
    },
    "BitImageProcessor": _CLIP,
    "CLIPImageProcessor": _CLIP,
    "SiglipImageProcessor": {"resample": _BICUBIC, "size": SQUARE},
    "ConvNextImageProcessor": {
        "resample": _BICUBIC,
        "size": {"shortest_edge": 384},
        "crop_pct": 224 / 256,
    },
    "VideoMAEImageProcessor": _VIDEOMAE,
    "MobileNetV1ImageProcessor": _MOBILENET,
    "MobileNetV2ImageProcessor": _MOBILENET,
}
