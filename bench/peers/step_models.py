"""The models of bench_step in plain PyTorch: a Llama-like decoder, Swin-T (timm's where it is installed), a dual tower.

Each `make_*` returns (module, loss_of): `loss_of(module)` is the loss of one batch that lies on the device, or what a
forward pass gives. Products are packed (queries, keys and values in one, gate and up in one) and attention is PyTorch's
fused one, so that the peer is as fast as plain PyTorch gets. Shapes: B batch, T tokens, D width, H heads, E head size,
V vocabulary, N windows, P places of a window.
"""

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), 1e-5)


def rotary(tokens, head_size, device):
    frequency = 1e4 ** (-torch.arange(0, head_size, 2, device=device) / head_size)
    angle = torch.arange(tokens, device=device)[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class DecoderBlock(nn.Module):
    def __init__(self, dim, heads, inner):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = RMSNorm(dim), RMSNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.gate_up = nn.Linear(dim, 2 * inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x, cos, sin):
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    """Hidden states [B, T, D]; the head is the embedding."""

    def __init__(self, spec, device):
        super().__init__()
        dim, heads = spec["dim"], spec["heads"]
        self.embedding = nn.Embedding(spec["vocabulary"], dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(DecoderBlock(dim, heads, spec["mlp_dim"]) for _ in range(spec["layers"]))
        self.norm = RMSNorm(dim)
        cos, sin = rotary(spec["tokens"], dim // heads, device)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens_BT):
        x = self.embedding(tokens_BT)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.norm(x)


def make_decoder(spec, device):
    model = Decoder(spec, device).to(device)
    tokens = torch.randint(spec["vocabulary"], (spec["batch"], spec["tokens"] + 1), device=device)

    def loss_of(model):
        if spec["work"] == "forward":  # of the last place, as a prompt is read
            return F.linear(model(tokens[:, :-1])[:, -1], model.embedding.weight)
        logits = F.linear(model(tokens[:, :-1]), model.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return model, loss_of


def to_windows(x, side):
    b, height, width, dim = x.shape
    x = x.view(b, height // side, side, width // side, side, dim)
    return x.transpose(2, 3).reshape(-1, side * side, dim)


def to_map(windows, side, shape):
    b, height, width, dim = shape
    x = windows.view(b, height // side, width // side, side, side, dim)
    return x.transpose(2, 3).reshape(shape)


def shift_mask(height, width, side, shift):
    """0 within a window's own parts of the map, -inf between parts that the shift joined: [windows, P, P]."""
    region = torch.zeros(1, height, width, 1)
    cuts = (slice(0, -side), slice(-side, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((r, c) for r in cuts for c in cuts):
        region[:, rows, columns] = number
    region = to_windows(region, side).squeeze(-1)
    return torch.zeros(()).masked_fill(region[:, None] != region[:, :, None], -100.0)


class SwinBlock(nn.Module):
    def __init__(self, dim, heads, side, map_side, shifted):
        super().__init__()
        self.heads, self.side = heads, min(side, map_side)
        self.shift = self.side // 2 if shifted and map_side > side else 0
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.output = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.position_bias = nn.Parameter(0.02 * torch.randn((2 * self.side - 1) ** 2, heads))
        place = torch.stack(torch.meshgrid(*2 * [torch.arange(self.side)], indexing="ij")).flatten(1)
        offset = place[:, :, None] - place[:, None] + self.side - 1
        self.register_buffer("index", offset[0] * (2 * self.side - 1) + offset[1], persistent=False)
        mask = shift_mask(map_side, map_side, self.side, self.shift) if self.shift else None
        self.register_buffer("mask", mask, persistent=False)

    def attend(self, x):
        windows = to_windows(x, self.side)
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.position_bias[self.index].permute(2, 0, 1)[None]
        if self.mask is not None:
            bias = (bias + self.mask[:, None]).repeat(len(q) // len(self.mask), 1, 1, 1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return to_map(self.output(attended.transpose(1, 2).flatten(2)), self.side, x.shape)

    def forward(self, x):
        normed = self.attention_norm(x)
        if self.shift:
            normed = torch.roll(normed, (-self.shift, -self.shift), (1, 2))
        attended = self.attend(normed)
        if self.shift:
            attended = torch.roll(attended, (self.shift, self.shift), (1, 2))
        x = x + attended
        return x + self.mlp(self.mlp_norm(x))


class PatchMerging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        b, height, width, dim = x.shape
        x = x.view(b, height // 2, 2, width // 2, 2, dim).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(x))


class SwinT(nn.Module):
    """The mean of the last stage's regions: [B, 768]."""

    def __init__(self, image_side, side=7, dim=96, depths=(2, 2, 6, 2)):
        super().__init__()
        self.patch, self.patch_norm = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim)
        blocks, map_side = [], image_side // 4
        for stage, depth in enumerate(depths):
            width = dim << stage
            blocks += [SwinBlock(width, width // 32, side, map_side, i % 2 == 1) for i in range(depth)]
            if stage + 1 < len(depths):
                blocks.append(PatchMerging(width))
                map_side //= 2
        self.blocks, self.norm = nn.ModuleList(blocks), nn.LayerNorm(dim << len(depths) - 1)

    def forward(self, image_BCHW):
        x = self.patch_norm(self.patch(image_BCHW).permute(0, 2, 3, 1))
        for block in self.blocks:
            x = block(x)
        return self.norm(x).flatten(1, 2).mean(1)


def swin_tiny(spec):
    try:
        from timm.models.swin_transformer import SwinTransformer
    except ImportError:
        return SwinT(spec["image_side"], spec["window"])
    return SwinTransformer(img_size=spec["image_side"], window_size=spec["window"], drop_path_rate=0.0, num_classes=0)


def make_swin(spec, device):
    model = swin_tiny(spec).to(device)
    image = torch.randn(spec["batch"], 3, spec["image_side"], spec["image_side"], device=device)
    if spec["work"] == "forward":
        model.eval()

    def result_of(model):
        pooled = model(image.to(next(model.parameters()).dtype))
        return pooled if spec["work"] == "forward" else pooled.float().square().mean()

    return model, result_of


class DualTower(nn.Module):
    """Unit-length float32 embeddings of pictures and of texts, whose last token stands for them."""

    def __init__(self, spec, device):
        super().__init__()
        self.vision, self.text = swin_tiny(spec), Decoder(spec, device)
        self.image_head = nn.Linear(768, spec["embed_dim"], bias=False)
        self.text_head = nn.Linear(spec["dim"], spec["embed_dim"], bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.66))

    def forward(self, image_BCHW, tokens_BT, length_B):
        states = self.text(tokens_BT)
        last = states[torch.arange(len(states), device=states.device), length_B - 1]
        image = F.normalize(self.image_head(self.vision(image_BCHW)).float(), dim=-1)
        return image, F.normalize(self.text_head(last).float(), dim=-1)


def make_dual(spec, device):
    model = DualTower(spec, device).to(device)
    batch = spec["batch"]
    image = torch.randn(batch, 3, spec["image_side"], spec["image_side"], device=device)
    tokens = torch.randint(1, spec["vocabulary"], (batch, spec["tokens"]), device=device)
    length = torch.randint(spec["tokens"] // 2, spec["tokens"] + 1, (batch,), device=device)
    target = torch.arange(batch, device=device)

    def loss_of(model):
        pictures, texts = model(image.to(next(model.vision.parameters()).dtype), tokens, length)
        with torch.autocast(device.split(":")[0], enabled=False):
            logits = pictures @ texts.T * model.log_scale.float().exp()
            return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))

    return model, loss_of


MAKERS = {"decoder": make_decoder, "swin": make_swin, "dual": make_dual}
