"""Writes tests/golden/masked_image.json: SimMIM's loss and gradients as transformers computes them.

Made with torch 2.11.0, transformers 5.23.0 (CPU, float32). Run: python tests/golden/masked_image_golden.py
Weights are formulas by the names they have on disk (formula_weights.py), which "weights" lists with their shapes;
each gradient is given by its norm and its product with the formula vector of the name "direction".
"""
import json
import pathlib
import tempfile

import numpy as np
import safetensors.torch
import torch
import transformers

import formula_weights as formula

CONFIG = transformers.SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
                                 window_size=4, drop_path_rate=0.0, encoder_stride=8)
BATCH, PATCHES = 3, 16


def from_disk(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"
        shapes = {name: list(t.shape) for name, t in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file({name: formula.weight(name, shape) for name, shape in shapes.items()}, path,
                                    {"format": "pt"})
        return type(model).from_pretrained(folder).train(), shapes


def main():
    model, shapes = from_disk(transformers.SwinForMaskedImageModeling(CONFIG))
    image = formula.image((BATCH, 3, 64, 64))
    # Squares of 16 pixels: 4 x 4 a picture, of which those where the formula is positive are hidden.
    square = torch.from_numpy(formula.uniform("mask", BATCH * 16) > 0).reshape(BATCH, 4, 4)
    mask = square.repeat_interleave(4, 1).repeat_interleave(4, 2)
    output = model(image, bool_masked_pos=mask.flatten(1))
    output.loss.backward()
    parameters = dict(model.named_parameters())
    gradients = {}
    for name in ("swin.embeddings.mask_token", "swin.embeddings.patch_embeddings.projection.weight",
                 "swin.encoder.layers.1.blocks.1.mlp.fc2.weight", "decoder.0.weight", "decoder.0.bias"):
        gradient = parameters[name].grad.double().flatten()
        direction = torch.from_numpy(formula.uniform("direction", gradient.numel()))
        gradients[name] = {"norm": gradient.norm().item(), "product": (gradient @ direction).item()}
    reconstruction = output.reconstruction.double().flatten()
    result = {"weights": shapes, "hidden_squares": int(square.sum()), "loss": output.loss.item(),
              "reconstruction": (reconstruction @ torch.from_numpy(
                  formula.uniform("direction", reconstruction.numel()))).item(),
              "gradients": gradients}
    path = pathlib.Path(__file__).parent / "masked_image.json"
    path.write_text(json.dumps(result, indent=0) + "\n")


if __name__ == "__main__":
    main()
