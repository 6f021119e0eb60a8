"""tiktoken's and tokenizers' side of bench_tokenizer.

    bench_tokenizer gpt2-vocab.bpe FILE… --peer "python bench/peers/tokenizer.py"

Needs tiktoken and tokenizers. Protocol: prints "ready"; then for the line "encode" encodes the joined files with
tiktoken on one thread and prints its CPU seconds; for "train" trains 8,192 ids with tokenizers on all cores and prints
its wall seconds.
"""
import sys
import time

import tiktoken
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SEPARATOR = "<|endoftext|>"


def bytes_of_symbols():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def gpt2(merges_path):
    symbols = bytes_of_symbols()
    ranks = {bytes([byte]): rank for rank, byte in enumerate(symbols.values())}
    with open(merges_path, encoding="utf8") as file:
        for line in file.read().splitlines()[1:]:
            if line:
                ranks[bytes(symbols[char] for char in line.replace(" ", ""))] = len(ranks)
    return tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={SEPARATOR: len(ranks)})


def encode_seconds(encoding, text):
    start = time.thread_time()
    encoding.encode_ordinary(text)
    return time.thread_time() - start


def train_seconds(texts):
    documents = [document for text in texts for document in text.split(SEPARATOR)]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=8192, min_frequency=2, special_tokens=[SEPARATOR, "<|pad|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    start = time.perf_counter()
    tokenizer.train_from_iterator(documents, trainer, length=len(documents))
    return time.perf_counter() - start


def main(merges_path, *paths):
    encoding = gpt2(merges_path)
    texts = [open(path, encoding="utf8", newline="").read() for path in paths]
    text = "".join(texts)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = encode_seconds(encoding, text) if line.strip() == "encode" else train_seconds(texts)
        print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
