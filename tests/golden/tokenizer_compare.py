"""Compares `fathom tokenizer encode` with the `tokenizers` package on generated strings, on demand (minutes).

    python tests/golden/tokenizer_compare.py --program "build/src/fathom tokenizer" [--count 100000] [TOKENIZER.json …]

For every tokenizer (by default those of tests/golden/tokenizer/) all strings must get the same ids. Strings with broken
UTF-8, which the package cannot be given, must come back from `decode` byte for byte where the tokenizer is lossless.
Prints one JSON line a tokenizer; the exit status is 1 if anything differed.
"""
import argparse
import hashlib
import json
import pathlib
import random
import shlex
import subprocess
import sys
import tempfile

import tokenizers

from tokenizer_strings import strings

LOSSLESS = {"gpt2", "llama3", "digits"}


def filtered(program, arguments, data):
    return subprocess.run([*shlex.split(program), *arguments], input=data, capture_output=True, check=True).stdout


def broken(texts, seed):
    """The texts as UTF-8 with bytes replaced, dropped and repeated; no line ends."""
    rng = random.Random(seed)
    out = []
    for text in texts:
        data = bytearray(text.encode())
        for _ in range(1 + len(data) // 10):
            at = rng.randrange(len(data) + 1)
            data[at:at + rng.randrange(2)] = bytes([rng.randrange(256)]) * rng.randrange(3)
        out.append(bytes(data).replace(b"\n", b"\xff"))
    return out


def compare_ids(program, path, reference, texts):
    lines = "".join(json.dumps(text) + "\n" for text in texts).encode()
    ours = filtered(program, ["encode", "--tokenizer", path, "--special", "--json-lines"], lines).decode().splitlines()
    theirs = [" ".join(map(str, e.ids)) for e in reference.encode_batch(texts, add_special_tokens=False)]
    different = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    return different, hashlib.sha256("\n".join(theirs).encode()).hexdigest()


def count_lost(program, path, lines):
    ids = filtered(program, ["encode", "--tokenizer", path, "--lines"], b"".join(line + b"\n" for line in lines))
    texts = filtered(program, ["decode", "--tokenizer", path, "--lines"], ids)
    return sum(a != b for a, b in zip(texts[:-1].split(b"\n"), lines, strict=True))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    folder = pathlib.Path(__file__).parent / "tokenizer"
    texts = strings(options.seed, options.count)
    failed = False
    for path in map(pathlib.Path, options.files or sorted(map(str, folder.glob("*.json")))):
        content = json.loads(path.read_text(encoding="utf8"))
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf8") as file:
            json.dump(content.get("tokenizer", content), file)
            file.flush()
            reference = tokenizers.Tokenizer.from_file(file.name)
            different, digest = compare_ids(options.program, file.name, reference, texts)
            lost = None
            if path.stem in LOSSLESS:
                lost = count_lost(options.program, file.name, broken(texts, options.seed))
        failed = failed or bool(different) or bool(lost)
        print(json.dumps({"tokenizer": path.stem, "reference": f"tokenizers {tokenizers.__version__}",
                          "strings": len(texts), "different": len(different), "broken_utf8_lost": lost,
                          "ids_sha256": digest, "examples": different[:3]}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
