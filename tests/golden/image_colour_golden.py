"""Writes tests/golden/image/colour.json: what torchvision's colour operations make of a small picture.

Made with torch 2.11.0 and torchvision 0.26.0:  python tests/golden/image_colour_golden.py
The operations run on float tensors, so nothing is rounded between them; values are 0 to 255, planes of red,
green and blue.
"""

import json
import pathlib

import torch
from torchvision.transforms.v2 import functional as F

OUT = pathlib.Path(__file__).parent / "image" / "colour.json"
HEIGHT, WIDTH = 9, 13  # 117 pixels: no multiple of a vector

OPERATIONS = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}
PLANS = [
    [("brightness", 1.4)],
    [("brightness", 0.55)],
    [("contrast", 1.7)],
    [("contrast", 0.3)],
    [("saturation", 1.9)],
    [("saturation", 0.0)],
    [("hue", 0.13)],
    [("hue", -0.37)],
    [("hue", 0.5)],
    [("hue", -0.1), ("brightness", 1.2), ("contrast", 0.8), ("saturation", 1.3)],
    [("contrast", 1.4), ("saturation", 0.6), ("hue", 0.2), ("brightness", 0.7)],
    [("saturation", 1.5), ("brightness", 1.3), ("hue", 0.4), ("contrast", 1.2), ("saturation", 0.0)],
]


def main():
    pixels = torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(5))
    pixels[:, 0, :4] = torch.tensor([0, 255, 128, 77])  # greys: no hue
    cases = []
    for plan in PLANS:
        image = pixels.float() / 255
        for name, amount in plan:
            image = OPERATIONS[name](image, amount)
        values = [round(v, 3) for v in (image * 255).flatten().tolist()]
        cases.append({"steps": [{"op": name, "amount": amount} for name, amount in plan], "values": values})
    record = {"height": HEIGHT, "width": WIDTH, "pixels": pixels.flatten().tolist(), "cases": cases}
    OUT.write_text(json.dumps(record) + "\n")


main()
