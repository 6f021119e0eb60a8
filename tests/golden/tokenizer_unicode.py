"""Writes the tables of src/data/tokenizer: unicode_tables.inc (character classes and lower-case mappings) and
unicode_normal_tables.inc (what utf8proc would normalize and the reference does not know yet).

The tables are read out of the `tokenizers` package itself, one code point at a time, so that Fathom splits, lower-cases
and normalizes as the reference does, whatever Unicode versions its parts carry (0.23.3: Unicode 16 in its regular
expressions, 17 in lower-casing, 9 in normalization).

    python tests/golden/tokenizer_unicode.py src/data/tokenizer
"""
import ctypes
import pathlib
import sys

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


class Utf8proc:
    """The library that Fathom links."""
    DECOMPOSE, COMPATIBLE = 1 << 4, 1 << 2

    def __init__(self):
        self.library = ctypes.CDLL("libutf8proc.so.2")
        self.library.utf8proc_get_property.restype = ctypes.POINTER(ctypes.c_int16)

    def combining_class(self, code):
        return self.library.utf8proc_get_property(code)[1]

    def decomposition(self, code, options):
        buffer = (ctypes.c_int32 * 64)()
        count = self.library.utf8proc_decompose_char(code, buffer, 64, options, ctypes.byref(ctypes.c_int()))
        return buffer[:count]


def newer_points():
    """Code points that utf8proc orders, decomposes or composes with what precedes, and the reference leaves alone."""
    library = Utf8proc()
    nfd, nfkd = normalizers.NFD(), normalizers.NFKD()
    below, over = "\u0323", "\u0334"  # combining classes 220 and 1
    newer = {0x11A7}  # utf8proc 2.8 takes it for a trailing consonant of Hangul, which begin one later
    for code in CODE_POINTS:
        char = chr(code)
        ordered = nfd.normalize_str("a" + char + over) != "a" + char + over or \
            nfd.normalize_str("a" + below + char) != "a" + below + char
        if library.combining_class(code) > 0 and not ordered:
            newer.add(code)
        parts = library.decomposition(code, library.DECOMPOSE | library.COMPATIBLE)
        if parts != [code] and nfkd.normalize_str(char) == char:
            newer.add(code)
            canonical = library.decomposition(code, library.DECOMPOSE)
            if len(canonical) > 1:
                newer.add(canonical[-1])
    return newer


def runs(points):
    """Runs (first, last) of neighbouring code points."""
    ranges = []
    for code in sorted(points):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return ranges


def rows(items, per_row):
    items = list(items)
    return "\n".join("    " + ", ".join(items[i:i + per_row]) + "," for i in range(0, len(items), per_row))


HEADER = f"// Made by tests/golden/tokenizer_unicode.py from tokenizers {tokenizers.__version__}. Do not edit.\n"


def main(folder):
    index, blocks = class_tables()
    ranges = lower_ranges()
    words = (f"0x{word:x}" for block in blocks for word in block)
    entries = (f"{{0x{a:x}, 0x{b:x}, {stride}, {delta}}}" for a, b, stride, delta in ranges)
    (folder / "unicode_tables.inc").write_text(
        HEADER + f"constexpr uint8_t kClassBlock[{len(index)}] = {{\n{rows(map(str, index), 24)}\n}};\n"
        f"constexpr uint64_t kClassWords[{8 * len(blocks)}] = {{\n{rows(words, 6)}\n}};\n"
        f"constexpr LowerRange kLowerRanges[{len(ranges)}] = {{\n{rows(entries, 4)}\n}};\n")
    newer = runs(newer_points())
    entries = (f"{{0x{a:x}, 0x{b:x}}}" for a, b in newer)
    (folder / "unicode_normal_tables.inc").write_text(
        HEADER + f"constexpr CodePointRange kNewerRanges[{len(newer)}] = {{\n{rows(entries, 6)}\n}};\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
