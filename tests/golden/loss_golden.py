"""Writes tests/golden/losses.json: open_clip's losses and a reversed gradient in PyTorch, with their gradients.

Made with torch 2.11.0, open_clip_torch 3.3.0 (CPU, float64). Run: python tests/golden/loss_golden.py
Embeddings are formulas (formula_weights.py), brought to unit length. `reversal` is what a discriminator's loss, the
mean of softplus(-tanh(x w)), gives w and, turned round with strength 0.3, the encoder's x.
"""
import json
import pathlib

import torch
from open_clip.loss import ClipLoss, SigLipLoss

import formula_weights as formula

PAIRS, WIDTH = 5, 6


def numbers(name, *shape):
    return torch.from_numpy(formula.uniform(name, int(torch.Size(shape).numel())).reshape(shape))


def record(loss, **leaves):
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return {"loss": loss.item(), **{name: g.flatten().tolist() for name, g in zip(leaves, gradients)}}


def embeddings():
    unit = torch.nn.functional.normalize
    return [unit(numbers(name, PAIRS, WIDTH), dim=1).requires_grad_() for name in ("image", "text")]


def clip():
    (image, text), scale = embeddings(), torch.tensor(14.3, dtype=torch.float64, requires_grad=True)
    return record(ClipLoss()(image, text, scale), image=image, text=text, scale=scale)


def siglip():
    image, text = embeddings()
    scale, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (10.0, -9.5))
    return record(SigLipLoss()(image, text, scale, bias), image=image, text=text, scale=scale, bias=bias)


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


def reversal():
    x, w = numbers("x", PAIRS, WIDTH).requires_grad_(), numbers("w", WIDTH, 1).requires_grad_()
    loss = torch.nn.functional.softplus(-torch.tanh(Reverse.apply(x, 0.3) @ w)).mean()
    return record(loss, x=x, w=w)


if __name__ == "__main__":
    path = pathlib.Path(__file__).parent / "losses.json"
    path.write_text(json.dumps({"clip": clip(), "siglip": siglip(), "reversal": reversal()}, indent=1) + "\n")
