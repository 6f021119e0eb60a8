"""Writes tests/golden/tokenizer_trained.json: texts, and the vocabularies and merges that tokenizers 0.23.3 learns.

    python tests/golden/tokenizer_trained.py
"""
import json
import pathlib

import tokenizers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from tokenizer import GPT2, LLAMA3
from tokenizer_strings import strings


def learned(pattern, texts, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ])
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=2, show_progress=False,
                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                   special_tokens=["<|endoftext|>", "<|pad|>"]))
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": dict(sorted(model["vocab"].items(), key=lambda item: item[1])), "merges": model["merges"]}


def main():
    texts = strings(3, 400) + ["----- ........ aaaaaaaaa aaaaaaa          \n\n\n\n\n\n"] * 5
    golden = {"made_with": f"tokenizers {tokenizers.__version__}", "texts": texts, "gpt2": learned(GPT2, texts, 800),
              "llama3": learned(LLAMA3, texts, 800)}
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf8")
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
