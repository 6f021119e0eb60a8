#!/usr/bin/env python3
"""Checks the arrows between folders and the three header zones of docs/design.md, section 3.

A file under src/X may include from X and from what src/CMakeLists.txt names (transitively) in X's DEPENDS. Files of a
`plain` folder include nothing of LibTorch; no header includes all of it.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH = re.compile(r'#include [<"](torch/|ATen/|c10/)')
WHOLE = re.compile(r'#include <(torch/torch|torch/all|ATen/ATen)\.h>')
OURS = re.compile(r'#include "([^"]+)"')


def read_folders():
    text = (ROOT / "src/CMakeLists.txt").read_text()
    folders = {}
    for name, zone, rest in re.findall(r"fathom_folder\((\w+)\s+ZONE\s+(\w+)([^)]*)\)", text):
        depends = re.search(r"DEPENDS\s+([\w\s]+?)(?:LIBRARIES|$)", rest.strip())
        folders[name] = (zone, depends.group(1).split() if depends else [])
    return folders


def closure(folders, name):
    reached = {name}
    for dependency in folders[name][1]:
        reached |= closure(folders, dependency)
    return reached


def problems(folders):
    for path in sorted((ROOT / "src").rglob("*")):
        if path.suffix not in (".h", ".cpp", ".cu", ".cuh"):
            continue
        folder = path.relative_to(ROOT / "src").parts[0]
        allowed = closure(folders, folder) if folder in folders else None
        plain = folder in folders and folders[folder][0] == "plain"
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f"{path.relative_to(ROOT)}:{number}"
            if plain and TORCH.match(line):
                yield f"{where}: {folder} is a plain folder, it includes nothing of LibTorch"
            if path.suffix == ".h" and WHOLE.match(line):
                yield f"{where}: a header must not include all of LibTorch"
            include = OURS.match(line)
            if include and allowed is not None:
                target = include.group(1).split("/")[0]
                if target in folders and target not in allowed:
                    yield f"{where}: {folder} must not see {target}"


if __name__ == "__main__":
    found = list(problems(read_folders()))
    print("\n".join(found) or "layers: every include follows the arrows")
    sys.exit(bool(found))
