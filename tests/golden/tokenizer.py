"""Writes tests/golden/tokenizer/KIND.json: small tokenizers of every supported kind, texts, and the ids and decoded
texts that the `tokenizers` package gives. Made with tokenizers 0.23.3; no network, no other data.

    python tests/golden/tokenizer.py
"""
import json
import pathlib

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tokenizer_strings import strings

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CAMEL = r"\p{Lu}?\p{Ll}+|\p{Lu}+|\p{N}{1,3}|[^\s\p{L}\p{N}]+|\s+"  # no hand-written counterpart: goes to PCRE2
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def byte_level(use_regex=True, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def trained(pre_tokenizer, vocab_size=700, alphabet=ALPHABET, normalizer=None, decoder=None, special=("<|endoftext|>",),
            model=None, **trainer):
    tokenizer = Tokenizer(model or models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoder or decoders.ByteLevel()
    tokenizer.train_from_iterator(
        strings(1, 4000),
        trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=list(special),
                            show_progress=False, **trainer))
    return tokenizer


def edited(tokenizer, edit):
    data = json.loads(tokenizer.to_str())
    edit(data)
    return Tokenizer.from_str(json.dumps(data))


def gpt2():
    return trained(byte_level())


def gpt2_prefix_space():
    return trained(byte_level(prefix=True))


def llama3():
    tokenizer = trained(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level(False)]), special=())
    tokenizer = edited(tokenizer, lambda data: data["model"].update(ignore_merges=True))
    tokenizer.add_special_tokens(["<|begin_of_text|>", AddedToken("<|mask|>", lstrip=True, rstrip=True), "<|eot|>"])
    tokenizer.add_tokens([AddedToken("don't", single_word=True), "fooBar", "中文"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A <|eot|>",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("<|begin_of_text|>", "<|eot|>")])
    return tokenizer


def qwen2():
    return trained(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"), byte_level(False)]),
        normalizer=normalizers.NFC())


def clip():
    tokenizer = trained(
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), byte_level()]),
        normalizer=normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]),
        special=("<|startoftext|>", "<|endoftext|>"), vocab_size=900, end_of_word_suffix="</w>")
    return edited(tokenizer, lambda data: data["model"].update(unk_token="<|endoftext|>"))


def byte_fallback(normalizer=None, pre_tokenizer=None, replacement="▁"):
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=replacement) if pre_tokenizer is None else pre_tokenizer
    tokenizer.train_from_iterator(
        strings(1, 4000), trainers.BpeTrainer(vocab_size=900, special_tokens=["<unk>", "<s>", "</s>"] + bytes_,
                                              limit_alphabet=200, show_progress=False))

    def edit(data):
        data["added_tokens"] = data["added_tokens"][:3]
        data["model"].update(byte_fallback=True, fuse_unk=True, unk_token="<unk>")
        if pre_tokenizer is None and normalizer is not None:
            data["pre_tokenizer"] = None
    tokenizer = edited(tokenizer, edit)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(replacement, " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return tokenizer


def llama2():
    return byte_fallback(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def metaspace():
    return byte_fallback()


def digits():
    return trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()]))


def pattern():
    return trained(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CAMEL), "isolated"), byte_level(False)]),
                   normalizer=normalizers.NFKC())


def unknowns():
    """A byte-level vocabulary without most bytes, and unknown tokens that are not fused."""
    tokenizer = trained(byte_level(), alphabet=[], limit_alphabet=60, special=("[UNK]",),
                        model=models.BPE(unk_token="[UNK]"))
    return edited(tokenizer, lambda data: data["model"].update(unk_token="[UNK]"))


SPECIAL_TEXTS = ["a<|endoftext|>b", "x <|mask|> y", "<|begin_of_text|><|eot|>\n", "I don't, xdon't don'ty fooBarfoo 中文字",
                 "<|endoftext|><|endoftext|> <s>x</s>", "<|startoftext|>A  Photo <|endoftext|>", " \n<|mask|>\t\n <|mask|>", ""]


def main():
    folder = pathlib.Path(__file__).parent / "tokenizer"
    folder.mkdir(exist_ok=True)
    texts = strings(2, 110) + SPECIAL_TEXTS
    for make in (gpt2, gpt2_prefix_space, llama3, qwen2, clip, llama2, metaspace, digits, pattern, unknowns):
        tokenizer = make()
        samples = []
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            samples.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
        golden = {"made_with": f"tokenizers {tokenizers.__version__}", "tokenizer": json.loads(tokenizer.to_str()),
                  "samples": samples}
        path = folder / f"{make.__name__}.json"
        path.write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf8")
        print(path.name, path.stat().st_size, "bytes,", tokenizer.get_vocab_size(), "tokens")


if __name__ == "__main__":
    main()
