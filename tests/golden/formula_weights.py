"""Weights as a formula, so that both languages have the same ones and none need be stored.

Element i of the tensor NAME is base + reach * u(NAME, i) with u uniform in [-1, 1): matrices have base 0 and
deviation 1 / sqrt(fan-in), norm weights base 1 and reach 0.1, biases base 0 and reach 0.1. Computed in float64,
rounded to float32. tests/formula_weights.h is the same in C++.
"""
import numpy as np
import torch


def fnv1a(text):
    state = 0x811C9DC5
    for byte in text.encode():
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return state


def mix(x):
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0xD35A2D97)
    return x ^ (x >> np.uint32(15))


def uniform(name, count):
    """float64 in [-1, 1)."""
    key = np.uint32(fnv1a(name))
    with np.errstate(over="ignore"):
        bits = mix(mix(np.arange(count, dtype=np.uint32) ^ key) + np.uint32(0x9E3779B9))
    return (bits >> np.uint32(8)).astype(np.float64) * 2.0**-23 - 1.0


def weight(name, shape):
    count = int(np.prod(shape))
    if len(shape) >= 2:
        base, reach = 0.0, np.sqrt(3.0 / (count / shape[0]))
    else:
        base, reach = (1.0 if name.endswith("weight") else 0.0), 0.1
    return torch.from_numpy((base + reach * uniform(name, count)).astype(np.float32).reshape(shape))


def tokens(shape, vocab):
    """int64 ids below `vocab`."""
    values = (uniform("tokens", int(np.prod(shape))) + 1.0) / 2.0
    return torch.from_numpy(np.floor(values * vocab).astype(np.int64).reshape(shape))


def image(shape):
    return weight("image.weight", (int(np.prod(shape)),)).reshape(shape) * 10.0 - 10.0
