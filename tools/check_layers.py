#!/usr/bin/env python3
"""Checks the arrows between folders and the three header zones of docs/design.md, section 3.

A file under src/X may include from X and from what src/CMakeLists.txt names (transitively) in X's DEPENDS; the plug-in
and the program, which are no folders of the library, stand in BESIDE, and nothing includes from them. Of LibTorch a
`plain` folder includes nothing, a `tensor` folder the headers in TENSOR_ZONE, a header of a `full` folder those and
torch/nn; a .cu file nothing.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH = re.compile(r'#include [<"]((?:torch|ATen|c10)/[^">]+)')
TENSOR_ZONE = re.compile(r"""(ATen/core/(Tensor|dispatch/Dispatcher)\.h|ATen/ops/\w+\.h|ATen/(BlasBackend|Context|Parallel|TensorOperators)\.h
    |c10/.+|torch/(library|version)\.h|torch/csrc/autograd/custom_function\.h)$""", re.X)
MODULES = re.compile(r"torch/nn/(module|pimpl|modules/.+)\.h$")
BESIDE = {"cuda": ["kernels", "tensor", "distributed"], "cli": ["train", "runtime", "report"]}
OURS = re.compile(r'#include "([^"]+)"')


def read_folders():
    text = (ROOT / "src/CMakeLists.txt").read_text()
    folders = {}
    for name, zone, rest in re.findall(r"fathom_folder\((\w+)\s+ZONE\s+(\w+)([^)]*)\)", text):
        depends = re.search(r"DEPENDS\s+([\w\s]+?)(?:LIBRARIES|$)", rest.strip())
        folders[name] = (zone, depends.group(1).split() if depends else [])
    folders |= {name: ("full", depends) for name, depends in BESIDE.items()}
    return folders


def closure(folders, name):
    reached = {name}
    for dependency in folders[name][1]:
        reached |= closure(folders, dependency)
    return reached


def zone_problem(path, zone, header):
    if path.suffix in (".cu", ".cuh"):
        return "a kernel sees raw pointers, and nothing of LibTorch"
    if zone == "plain":
        return "a plain folder includes nothing of LibTorch"
    if TENSOR_ZONE.match(header) or (zone == "full" and (path.suffix == ".cpp" or MODULES.match(header))):
        return None
    return f"a {'file of the tensor zone' if zone == 'tensor' else 'header'} must not include {header}"


def problems(folders):
    for path in sorted((ROOT / "src").rglob("*")):
        if path.suffix not in (".h", ".cpp", ".cu", ".cuh"):
            continue
        folder = path.relative_to(ROOT / "src").parts[0]
        if folder not in folders:
            yield f"{path.relative_to(ROOT)}: {folder} is no folder of src/CMakeLists.txt"
            continue
        allowed = closure(folders, folder)
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}"
            torch, ours = TORCH.match(line), OURS.match(line)
            problem = zone_problem(path, folders[folder][0], torch.group(1)) if torch else None
            if problem:
                yield f"{where}: {problem}"
            target = ours.group(1).split("/")[0] if ours else None
            if target in folders and target not in allowed:
                yield f"{where}: {folder} must not see {target}"


if __name__ == "__main__":
    found = list(problems(read_folders()))
    print("\n".join(found) or "layers: every include follows the arrows")
    sys.exit(bool(found))
