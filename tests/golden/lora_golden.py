"""Writes tests/golden/lora/: what PyTorch and peft compute with low-rank adapters whose weights are formulas.

Made with torch 2.11.0, transformers 5.23.0, peft 0.18.0 (CPU).
Run: python tests/golden/lora_golden.py
`training.json`: ten AdamW steps of one adapted linear layer in float64, by the paper's formula in plain PyTorch.
CASE.adapter_config.json, CASE.weights.json (names and shapes as peft saves them) and logits in outputs.safetensors:
the Llama of models_golden.py with adapters on all its projections, or on query and value with a scale of their own.
Check what we save: python tests/golden/lora_golden.py check DIR (see models_check.py for how DIR is made).
"""
import json
import pathlib
import sys
import tempfile

import peft
import safetensors.torch
import torch
import transformers

import formula_weights as formula

HERE = pathlib.Path(__file__).parent
OUT = HERE / "lora"
ROWS, INPUTS, OUTPUTS, RANK, ALPHA, STEPS = 6, 5, 4, 2, 3.0, 10


def training():
    """h = W x + alpha / r * B A x; W is frozen. The loss is the mean square over fixed targets."""
    def fill(name, shape):
        return formula.weight(name, shape).double()

    weight, bias = fill("w.weight", (OUTPUTS, INPUTS)), fill("w.bias", (OUTPUTS,))
    a, b = fill("a.weight", (RANK, INPUTS)).requires_grad_(), torch.zeros(OUTPUTS, RANK).double().requires_grad_()
    x, target = fill("x.matrix", (ROWS, INPUTS)), fill("target.matrix", (ROWS, OUTPUTS))
    optimizer = torch.optim.AdamW([a, b], lr=0.05, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        y = torch.nn.functional.linear(x, weight, bias) + ALPHA / RANK * (x @ a.T) @ b.T
        loss = (y - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    merged = weight + ALPHA / RANK * (b @ a)
    return {"losses": losses, "merged": merged.detach().flatten().tolist()}


def llama():
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_json_file(HERE / "models/llama.config.json"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(formula.weight(name, parameter.shape))
    return model.eval()


def adapted(case, config):
    """The logits of the Llama under an adapter that has gone through its own files."""
    with tempfile.TemporaryDirectory() as folder:
        peft.get_peft_model(llama(), config).save_pretrained(folder)
        path = pathlib.Path(folder) / "adapter_model.safetensors"
        shapes = {name: list(t.shape) for name, t in sorted(safetensors.torch.load_file(path).items())}
        safetensors.torch.save_file({name: formula.weight(name, shape) for name, shape in shapes.items()}, path)
        lines = ",\n".join(f"{json.dumps(name)}: {shape}" for name, shape in shapes.items())
        (OUT / f"{case}.weights.json").write_text("{\n" + lines + "\n}\n")
        written = json.loads((pathlib.Path(folder) / "adapter_config.json").read_text())
        for key in ("target_modules", "exclude_modules"):
            if written.get(key):
                written[key] = sorted(written[key])
        (OUT / f"{case}.adapter_config.json").write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
        model = peft.PeftModel.from_pretrained(llama(), folder).eval()
        return model(formula.tokens((2, 17), 97)).logits


@torch.no_grad()
def outputs():
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return {
        "all": adapted("all", peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=2, target_modules=projections)),
        "query_value": adapted("query_value", peft.LoraConfig(
            task_type="CAUSAL_LM", r=4, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "v_proj"],
            alpha_pattern={"v_proj": 7})),
    }


@torch.no_grad()
def check(folder):
    """That peft loads the adapter that our test kept, with every tensor in its place, and computes what we do."""
    expected = safetensors.torch.load_file(folder / "outputs.safetensors")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    plain = model(expected["tokens"]).logits
    model = peft.PeftModel.from_pretrained(model, folder / "adapter").eval()
    saved = safetensors.torch.load_file(folder / "adapter/adapter_model.safetensors")
    loaded = peft.get_peft_model_state_dict(model)
    assert saved.keys() == loaded.keys() and all(torch.equal(saved[name], loaded[name]) for name in saved)
    error = (expected["logits"] - model(expected["tokens"]).logits).abs().max().item()
    moved = (expected["logits"] - plain).abs().max().item()
    print(f"adapter: largest difference {error:.2e}; the adapter changes logits by up to {moved:.2e}")
    assert error < 1e-4 < moved


if __name__ == "__main__":
    torch.manual_seed(0)
    if sys.argv[1:2] == ["check"]:
        check(pathlib.Path(sys.argv[2]))
    else:
        OUT.mkdir(exist_ok=True)
        (OUT / "training.json").write_text(json.dumps(training(), indent=1) + "\n")
        safetensors.torch.save_file({name: t.contiguous() for name, t in outputs().items()},
                                    OUT / "outputs.safetensors")
