"""Writes tests/golden/models/: what transformers and timm compute with weights made by formula.

Made with torch 2.11.0, transformers 5.23.0, timm 1.0.31 (CPU, float32). Run: python tests/golden/models_golden.py
Each case CASE has CASE.config.json (as the library writes it), CASE.weights.json (names and shapes as it saves
them) and its outputs in outputs.safetensors. Weights are not stored: see formula_weights.py.
"""
import json
import pathlib
import tempfile

import safetensors.torch
import timm
import torch
import transformers

import formula_weights as formula

HERE = pathlib.Path(__file__).parent / "models"
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__, "timm": timm.__version__}
# What transformers 5 calls q_proj in memory is `query` on disk, so weights take their values from the disk names.


def save_names(case, shapes):
    lines = ",\n".join(f"{json.dumps(name)}: {shape}" for name, shape in shapes.items())
    (HERE / f"{case}.weights.json").write_text("{\n" + lines + "\n}\n")


def from_disk(case, model):
    """The model with formula weights by the names it saves, having gone through its own files."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = pathlib.Path(folder) / "model.safetensors"
        shapes = {name: list(t.shape) for name, t in safetensors.torch.load_file(path).items()}
        safetensors.torch.save_file({name: formula.weight(name, shape) for name, shape in shapes.items()},
                                    path, {"format": "pt"})
        save_names(case, shapes)
        (HERE / f"{case}.config.json").write_text((pathlib.Path(folder) / "config.json").read_text())
        return type(model).from_pretrained(folder).eval()


def language(case, config):
    kind = {"llama": transformers.LlamaForCausalLM, "qwen2": transformers.Qwen2ForCausalLM}[config.model_type]
    model = from_disk(case, kind(config))
    return model(formula.tokens((2, 17), config.vocab_size)).logits


def swin_transformers(case, config, kind=transformers.SwinModel):
    model = from_disk(case, kind(config))
    image = formula.image((1, 3, config.image_size, config.image_size))
    return getattr(model, "swin", model)(image).last_hidden_state


def swin_timm(case, size, **options):
    model = timm.models.swin_transformer.SwinTransformer(img_size=size, num_classes=0, **options).eval()
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    model.load_state_dict({name: formula.weight(name, shape) for name, shape in shapes.items()}, strict=False)
    save_names(case, shapes)
    return model.forward_features(formula.image((1, 3, size, size))).flatten(1, 2)


@torch.no_grad()
def main():
    HERE.mkdir(exist_ok=True)
    small = dict(vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
                 num_key_value_heads=2, max_position_embeddings=64)
    outputs = {
        "llama": language("llama", transformers.LlamaConfig(
            **small, head_dim=10, rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 5000.0})),
        "qwen2": language("qwen2", transformers.Qwen2Config(
            **small, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
        "swin_tiny": swin_transformers("swin_tiny", transformers.SwinConfig()),
        # 9 x 9 patches in windows of 4: padding, shift, and an odd side to merge.
        "swin_padded": swin_transformers("swin_padded", transformers.SwinConfig(
            image_size=36, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, mlp_ratio=2.0),
            transformers.SwinForImageClassification),
        "timm_tiny": swin_timm("timm_tiny", 224),
        "timm_small": swin_timm("timm_small", 64, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4)),
    }
    safetensors.torch.save_file({k: v.contiguous() for k, v in outputs.items()}, HERE / "outputs.safetensors",
                                metadata=VERSIONS)


if __name__ == "__main__":
    main()
