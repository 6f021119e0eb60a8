#!/usr/bin/env python3
"""Several sources of a folder are compiled at once (cmake/FathomTargets.cmake), so what one of them has in its unnamed namespace hides
from its neighbours what a header declares by that name, often without an error. Complains of such names. Test files, which share many
names, have a namespace each instead: fathom::NAME_test."""
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNNAMED = re.compile(r"^namespace \{$(.*?)^\}  // namespace$", re.S | re.M)
NAMED = re.compile(r"^namespace ([\w:]+) \{$", re.M)
DECLARED = re.compile(r"^(?:struct|class|enum class|enum) (\w+)|^using (\w+) =|^[a-zA-Z_][\w:<>,&*\[\]() ]*?[ &*>](\w+)(?:\(|\[[^\]]*\] =| =|\{)", re.M)
NOISE = re.compile(r'//[^\n]*|"(?:\\.|[^"\\\n])*"|R"\((?:.|\n)*?\)"')


def declared(text):
    return {"".join(found) for found in DECLARED.findall(NOISE.sub("", text))}


def main():
    folders, failures, public = defaultdict(dict), [], set()
    names = subprocess.run(["git", "ls-files", "src/*.h", "src/*.cpp", "tests/unit/*_test.cpp",
                            "tests/integration/*_test.cpp"], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True).stdout.split()
    for name in names:
        text = (ROOT / name).read_text()
        if name.endswith(".h"):
            public |= declared(text)
        elif name.startswith("tests/"):
            if "\nnamespace {" in text and f"::{Path(name).stem} {{" not in text:
                failures.append(f"{name}: its namespace should end in ::{Path(name).stem}")
        elif not name.startswith("src/cuda/"):
            private = {found for block in UNNAMED.findall(text) for found in declared(block)}
            within = NAMED.findall(text.split("\nnamespace {")[0])
            folders[name.split("/")[1], *within][name] = (private, NOISE.sub("", text))
    for sources in folders.values():
        for owner, (private, _) in sources.items():
            for user, (own, text) in sources.items():
                for hidden in sorted((private & public) - own) if user != owner else ():
                    if re.search(rf"(?<![\w.>:]){hidden}\b", text):
                        failures.append(f"{owner}: the unnamed namespace's {hidden} hides another from {user}")
    print("\n".join(failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
