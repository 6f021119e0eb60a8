"""Writes src/data/tokenizer/unicode_tables.inc: character classes and lower-case mappings.

The tables are read out of the `tokenizers` package itself, one code point at a time, so that Fathom splits and
lower-cases as the reference does, whatever Unicode version its regular expressions and its standard library carry
(0.23.3: Unicode 16 classes, Unicode 17 lower-casing).

    python tests/golden/tokenizer_unicode.py > src/data/tokenizer/unicode_tables.inc
"""
import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
BLOCK = 256


def members(pattern):
    """Code points that `pattern`, a class of one character, matches."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for start in range(0, len(CODE_POINTS), 4096):
        text = "".join(map(chr, CODE_POINTS[start:start + 4096]))
        found.update(ord(piece) for piece, _ in splitter.pre_tokenize_str(text))
    return found


def class_tables():
    """Two bits a code point (0 other, 1 letter, 2 number, 3 space) in blocks of 256, equal blocks stored once."""
    value = {}
    for code, pattern in ((1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s")):
        value.update(dict.fromkeys(members(pattern), code))
    index, blocks = [], {}
    for start in range(0, 0x110000, BLOCK):
        words = tuple(
            sum(value.get(start + 32 * word + i, 0) << (2 * i) for i in range(32)) for word in range(BLOCK // 32))
        index.append(blocks.setdefault(words, len(blocks)))
    return index, list(blocks)


def lower_ranges():
    """Runs (first, last, stride, delta) of code points whose lower case is code point + delta."""
    lower = normalizers.Lowercase()
    pairs = []
    for code in CODE_POINTS:
        text = lower.normalize_str(chr(code))
        if text != chr(code) and len(text) == 1:  # U+0130 becomes two characters and stands in the code
            pairs.append((code, ord(text) - code))
    ranges = []
    for code, delta in pairs:
        if ranges and ranges[-1][3] == delta:
            first, last, stride, _ = ranges[-1]
            step = code - last
            if step <= 2 and (first == last or step == stride):
                ranges[-1] = (first, code, step, delta)
                continue
        ranges.append((code, code, 1, delta))
    return ranges


def rows(items, per_row):
    items = list(items)
    return "\n".join("    " + ", ".join(items[i:i + per_row]) + "," for i in range(0, len(items), per_row))


def main():
    index, blocks = class_tables()
    ranges = lower_ranges()
    print(f"// Made by tests/golden/tokenizer_unicode.py from tokenizers {tokenizers.__version__}. Do not edit.")
    print(f"constexpr uint8_t kClassBlock[{len(index)}] = {{\n{rows(map(str, index), 24)}\n}};")
    words = (f"0x{word:x}" for block in blocks for word in block)
    print(f"constexpr uint64_t kClassWords[{8 * len(blocks)}] = {{\n{rows(words, 6)}\n}};")
    entries = (f"{{0x{a:x}, 0x{b:x}, {stride}, {delta}}}" for a, b, stride, delta in ranges)
    print(f"constexpr LowerRange kLowerRanges[{len(ranges)}] = {{\n{rows(entries, 4)}\n}};")


if __name__ == "__main__":
    main()
