"""Eager PyTorch's side of bench_model_step: transformers' Llama and timm's Swin, one thread.

Needs torch, transformers, timm. Protocol: prints "ready"; then for every line "MODEL DTYPE" on standard input does
one forward and backward pass and prints its CPU seconds.
"""

import sys
import time

import timm
import torch
import transformers


def decoder(dtype):
    config = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=704, max_position_embeddings=256, tie_word_embeddings=True, use_cache=False,
        attn_implementation="sdpa")
    model = transformers.LlamaForCausalLM(config).to(dtype).train()
    tokens = torch.randint(4096, (8, 256))

    def step():
        logits = model(tokens).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten()).backward()

    return model, step


def swin(dtype):
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=64, window_size=4, depths=(2, 2, 6), num_heads=(3, 6, 12), drop_path_rate=0.0, num_classes=0)
    model = model.to(dtype).train()
    image = torch.randn(8, 3, 64, 64).to(dtype)
    return model, lambda: model(image).float().square().mean().backward()


def main():
    torch.set_num_threads(1)
    cases = {}
    print("ready", flush=True)
    for line in sys.stdin:
        name, dtype = line.split()
        if (name, dtype) not in cases:
            kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
            cases[name, dtype] = {"decoder": decoder, "swin": swin}[name](kind)
        model, step = cases[name, dtype]
        model.zero_grad()
        start = time.process_time()
        step()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
