"""Writes tests/golden/train_losses.json: losses of 20 AdamW steps in PyTorch.

Made with torch 2.11.0, transformers 5.23.0, timm 1.0.31, open_clip_torch 3.3.0 (CPU, float32).
Run: python tests/golden/train_golden.py
`language` is a transformers Llama; `contrastive` a timm Swin and a transformers Llama without head (last token,
projections without bias) under open_clip's ClipLoss; `attention` and `late` add ClipLoss over region scores, written
out here for all pairs at once. Weights and batches are formulas: see formula_weights.py.
"""
import json
import math
import pathlib

import numpy as np
import timm
import torch
import transformers
from open_clip.loss import ClipLoss

import formula_weights as formula

STEPS, BATCH, TOKENS, WARMUP, PEAK = 20, 8, 16, 5, 3e-3
LLAMA = transformers.LlamaConfig(
    vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
    num_key_value_heads=2, head_dim=10, max_position_embeddings=64, rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def fill(module, prefix=""):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(formula.weight(prefix + name, parameter.shape))
    return module.train()


def uniform_tokens(step, length):
    unit = (formula.uniform(f"tokens{step}", BATCH * length) + 1) / 2
    return torch.from_numpy(np.floor(unit * LLAMA.vocab_size).astype(np.int64).reshape(BATCH, length))


def images(step, size):
    pixels = np.floor((formula.uniform(f"image{step}", BATCH * size * size * 3) + 1) * 128)
    unit = torch.from_numpy(pixels.astype(np.float32).reshape(BATCH, size, size, 3)) / 255
    return ((unit - MEAN) / DEVIATION).permute(0, 3, 1, 2).contiguous()


def scale(step):
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def train(parameters, loss_of):
    plain = [p for name, p in parameters if p.ndim <= 1 or "bias" in name]
    decayed = [p for name, p in parameters if p.ndim > 1 and "bias" not in name]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
                                  lr=PEAK, betas=(0.9, 0.98), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in parameters], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def language():
    model = fill(transformers.LlamaForCausalLM(LLAMA))

    def loss_of(step):
        tokens = uniform_tokens(step, TOKENS + 1)
        return model(tokens, labels=tokens).loss

    return train(list(model.named_parameters()), loss_of)


class DualTower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vision = fill(timm.models.swin_transformer.SwinTransformer(
            img_size=64, num_classes=0, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4),
            drop_path_rate=0.0))
        self.text = fill(transformers.LlamaModel(LLAMA), prefix="model.")
        self.image_projection = torch.nn.Linear(32, 24, bias=False)
        self.text_projection = torch.nn.Linear(48, 24, bias=False)
        for name in ("image_projection", "text_projection"):
            fill(getattr(self, name), prefix=name + ".")
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, image, tokens):
        pooled = self.vision.forward_features(image).flatten(1, 2).mean(1)
        last = self.text(tokens).last_hidden_state[:, -1]
        unit = torch.nn.functional.normalize
        return unit(self.image_projection(pooled)), unit(self.text_projection(last)), self.log_scale.exp()


def contrastive():
    model, objective = DualTower(), ClipLoss()
    return train(list(model.named_parameters()),
                 lambda step: objective(*model(images(step, 64), uniform_tokens(step, TOKENS))))


class RegionTower(DualTower):
    """M texts of T tokens, N pictures of P regions, D the width that both share."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.region = torch.nn.Module()
        self.region.query, self.region.key = torch.nn.Linear(48, 24, bias=False), torch.nn.Linear(32, 24, bias=False)
        if kind == "attention":
            self.region.token_value = torch.nn.Linear(48, 24, bias=False)
            self.region.region_value = torch.nn.Linear(32, 24, bias=False)
        fill(self.region, prefix="region.")
        self.region.log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def scores(self, regions, states, image, text):
        query, key = self.region.query(states), self.region.key(regions)
        cosine = torch.nn.functional.cosine_similarity
        if self.kind == "late":
            return cosine(query[:, None, :, None], key[None, :, None, :], dim=-1).max(3).values.mean(2)
        attention = torch.einsum("mtd,npd->mntp", query, key) / math.sqrt(query.shape[-1])
        of_region, of_token = attention.mean(2).softmax(-1), attention.mean(3).softmax(-1)
        pooled_regions = torch.einsum("mnp,npd->mnd", of_region, self.region.region_value(regions))
        pooled_tokens = torch.einsum("mnt,mtd->mnd", of_token, self.region.token_value(states))
        return 0.5 * (cosine(pooled_regions, text[:, None], dim=-1) + cosine(pooled_tokens, image[None], dim=-1))

    def loss(self, step):
        regions = self.vision.forward_features(images(step, 64)).flatten(1, 2)
        states = self.text(uniform_tokens(step, TOKENS)).last_hidden_state
        unit, entropy = torch.nn.functional.normalize, torch.nn.functional.cross_entropy
        image = unit(self.image_projection(regions.mean(1)))
        text = unit(self.text_projection(states[:, -1]))
        logits = self.region.log_scale.exp() * self.scores(regions, states, image, text)
        target = torch.arange(BATCH)
        region = (entropy(logits, target) + entropy(logits.T, target)) / 2
        return ClipLoss()(image, text, self.log_scale.exp()) + 0.5 * region


def with_regions(kind):
    model = RegionTower(kind)
    return train(list(model.named_parameters()), model.loss)


if __name__ == "__main__":
    torch.manual_seed(0)
    path = pathlib.Path(__file__).parent / "train_losses.json"
    path.write_text(json.dumps({"language": language(), "contrastive": contrastive(),
                                "attention": with_regions("attention"), "late": with_regions("late")}, indent=1) + "\n")
