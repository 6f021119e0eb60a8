"""Checks that transformers loads the models we save, with every key used, and computes what we do.

Tried with torch 2.11.0, transformers 5.23.0.
  FATHOM_KEEP_MODELS=DIR build/tests/test_models --gtest_filter='*IsWrittenForTransformers'
  python tests/golden/models_check.py DIR
"""
import pathlib
import sys

import safetensors.torch
import torch
import transformers


def load(kind, folder):
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def compare(name, ours, theirs):
    error = (ours - theirs).abs().max().item()
    print(f"{name}: largest difference {error:.2e}")
    assert error < 1e-4, name


@torch.no_grad()
def main():
    folder = pathlib.Path(sys.argv[1])
    for name in ("llama", "qwen2"):
        expected = safetensors.torch.load_file(folder / name / "outputs.safetensors")
        model = load(transformers.AutoModelForCausalLM, folder / name)
        compare(f"{name} ({type(model).__name__})", expected["logits"], model(expected["tokens"]).logits)
    expected = safetensors.torch.load_file(folder / "dual_tower" / "outputs.safetensors")
    text = load(transformers.AutoModelForCausalLM, folder / "dual_tower" / "text")
    compare("dual_tower/text", expected["logits"], text(expected["tokens"]).logits)
    vision = load(transformers.AutoModel, folder / "dual_tower" / "vision")
    compare("dual_tower/vision", expected["features"], vision(expected["image"]).last_hidden_state)


if __name__ == "__main__":
    main()
