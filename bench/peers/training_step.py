"""Eager PyTorch's side of bench_training_step: transformers' Llama and Swin under bf16 autocast, fused AdamW.

Needs torch with CUDA, transformers. Protocol: prints "ready"; then for every line "MODEL" on standard input trains 20
steps on one batch that lies on the device and prints the milliseconds of a step.
"""

import sys
import time

import torch
import torch.nn.functional as F
import transformers

STEPS = 20


def llama(**sizes):
    return transformers.LlamaConfig(use_cache=False, attn_implementation="sdpa", tie_word_embeddings=True, **sizes)


def language():
    model = transformers.LlamaForCausalLM(
        llama(vocab_size=8192, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8,
              intermediate_size=1376, max_position_embeddings=1024)).cuda()
    tokens = torch.randint(8192, (16, 1025), device="cuda")

    def loss():
        logits = model(tokens[:, :-1]).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return list(model.parameters()), loss


def dual_tower():
    vision = transformers.SwinModel(
        transformers.SwinConfig(image_size=160, window_size=5, drop_path_rate=0.2)).cuda()
    text = transformers.LlamaModel(
        llama(vocab_size=4096, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
              intermediate_size=704, max_position_embeddings=32)).cuda()
    heads = torch.nn.ModuleList(torch.nn.Linear(n, 256, bias=False) for n in (768, 256)).cuda()
    scale = torch.nn.Parameter(torch.tensor(2.66, device="cuda"))
    image = torch.randn(256, 3, 160, 160, device="cuda")
    tokens = torch.randint(1, 4096, (640, 24), device="cuda")
    length = torch.randint(8, 25, (640,), device="cuda")
    mask = (torch.arange(24, device="cuda") < length[:, None]).long()
    owner_image = torch.arange(128, device="cuda").repeat_interleave(2)
    owner_text = torch.arange(128, device="cuda").repeat_interleave(5)
    target = (owner_image[:, None] == owner_text).float()

    def loss():
        states = text(tokens, attention_mask=mask).last_hidden_state
        last = states[torch.arange(640, device="cuda"), length - 1]
        i = F.normalize(heads[0](vision(image).pooler_output).float(), dim=-1)
        t = F.normalize(heads[1](last).float(), dim=-1)
        logits = i @ t.T * scale.exp()
        return 0.5 * (F.cross_entropy(logits, target / 5) + F.cross_entropy(logits.T, target.T / 2))

    return [*vision.parameters(), *text.parameters(), *heads.parameters(), scale], loss


def trainer(make):
    parameters, loss_of = make()
    for module_parameter in parameters:
        module_parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def run(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                loss = loss_of()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start) / steps

    run(5)
    return run


def main():
    makers = {"language": language, "dual_tower": dual_tower}
    trainers = {}
    print("ready", flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name not in trainers:
            trainers[name] = trainer(makers[name])
        print(trainers[name](STEPS), flush=True)


if __name__ == "__main__":
    main()
