"""PyTorch's side of bench_step: the same model, batch and work, eager and compiled.

    python bench/peers/step.py [--modes default,reduce-overhead,max-autotune]

Needs torch alone; Swin is timm's where that is installed. Under bf16 two ways of keeping float32 weights are tried,
autocast over float32 parameters and bf16 parameters with a float32 master copy; the faster one is eager's figure, the
faster one under torch.compile goes through all `--modes`, and the fastest is the compiled figure. AdamW is the fused
one; gradients are clipped by their norm, as ours are. Protocol (../measure/peer_process.h): "prepare SPEC" (JSON)
chooses and answers with what it chose; "eager" and "compile" do one round and answer with its milliseconds a step.
What fails is "nan", and says why on standard error.
"""

import argparse
import contextlib
import gc
import json
import os
import sys
import time
import traceback

import torch

from step_models import MAKERS

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WARM_UP = 4


class Variant:
    """One way of running the work of a spec: `numerics` is "own" (the type of the parameters), "autocast" or "master";
    `mode` one of torch.compile's, or None."""

    def __init__(self, spec, numerics, mode):
        self.spec, self.numerics, self.mode = spec, numerics, mode
        self.device = spec["device"]
        torch.manual_seed(1)
        self.model, work_of = MAKERS[spec["model"]](spec, self.device)
        if numerics == "master" or spec["work"] == "forward":
            self.model.to(TYPES[spec["precision"]])
        run = lambda: work_of(self.model)  # noqa: E731
        self.work = torch.compile(run, mode=mode) if mode else run
        if spec["work"] == "step":
            self.make_optimizer()

    def make_optimizer(self):
        self.parameters = list(self.model.parameters())
        self.masters = self.parameters
        if self.numerics == "master":
            self.masters = [p.detach().float() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.masters, lr=1e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=True)

    def once(self):
        if self.mode and "cuda" in self.device:
            torch.compiler.cudagraph_mark_step_begin()
        if self.spec["work"] == "forward":
            with torch.inference_mode():
                self.work()
            return
        for parameter in self.parameters:
            parameter.grad = None
        with self.autocast():
            loss = self.work()
        loss.backward()
        self.update()

    def autocast(self):
        if self.numerics != "autocast":
            return contextlib.nullcontext()
        return torch.autocast(self.device.split(":")[0], TYPES[self.spec["precision"]])

    def update(self):
        if self.numerics == "master":
            for master, parameter in zip(self.masters, self.parameters):
                master.grad = parameter.grad.float()
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        if self.numerics == "master":
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.masters)

    def milliseconds(self, steps):
        """Of one step; on a CPU with one thread CPU time, as bench_step measures."""
        clock = time.perf_counter
        if self.device == "cpu" and torch.get_num_threads() == 1:
            clock = time.process_time
        self.synchronize()
        start = clock()
        for _ in range(steps):
            self.once()
        self.synchronize()
        return 1e3 * (clock() - start) / steps

    def synchronize(self):
        if "cuda" in self.device:
            torch.cuda.synchronize()

    def name(self):
        return " ".join(filter(None, (self.numerics, self.mode)))


def tried(spec, numerics, mode):
    """The variant after its warm-up and its milliseconds; (None, inf) where it cannot run."""
    try:
        start = time.perf_counter()
        variant = Variant(spec, numerics, mode)
        variant.milliseconds(WARM_UP)
        figure = variant.milliseconds(spec["steps"])
    except Exception:  # whatever a compiler or an allocator may throw
        traceback.print_exc()
        return None, float("inf")
    print(f"[peer] {variant.name()}: {figure:.3f} ms, ready in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return variant, figure


def give_memory_back():
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fastest(spec, choices):
    """Of (numerics, mode) pairs. One is alive at a time beside the best so far."""
    best, best_figure = None, float("inf")
    for numerics, mode in choices:
        variant, figure = tried(spec, numerics, mode)
        if figure < best_figure:
            best, best_figure = variant, figure
        variant = None
        give_memory_back()
    return best


def prepared(spec, modes):
    if spec["device"] == "cpu":
        torch.set_num_threads(spec["threads"])
        modes = modes[:1]  # they do not differ there
    mixed = spec["work"] == "step" and spec["precision"] != "fp32"
    all_numerics = ["autocast", "master"] if mixed else ["own"]
    chosen = {"eager": fastest(spec, [(numerics, None) for numerics in all_numerics]), "compile": None}
    if modes:
        first = fastest(spec, [(numerics, modes[0]) for numerics in all_numerics])
        numerics = first.numerics if first else all_numerics[0]
        rest = fastest(spec, [(numerics, mode) for mode in modes[1:]])
        pair = [v for v in (first, rest) if v]
        chosen["compile"] = min(pair, key=lambda v: v.milliseconds(spec["steps"]), default=None)
    return chosen


def answer_to(line, variants, modes):
    command, _, rest = line.strip().partition(" ")
    if command == "prepare":
        variants.clear()
        torch._dynamo.reset()
        give_memory_back()
        variants.update(prepared(json.loads(rest), modes))
        return json.dumps({key: variant.name() if variant else None for key, variant in variants.items()})
    variant = variants[command]
    figure = variant.milliseconds(variant.spec["steps"]) if variant else float("nan")
    give_memory_back()
    return str(figure)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--modes", default="default,reduce-overhead,max-autotune-no-cudagraphs")
    modes = [mode for mode in parser.parse_args().modes.split(",") if mode]
    answers = os.fdopen(os.dup(1), "w")  # compilers may print
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    variants = {}
    for line in sys.stdin:
        print(answer_to(line, variants, modes), file=answers, flush=True)


if __name__ == "__main__":
    main()
