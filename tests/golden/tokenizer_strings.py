"""Random strings for comparing tokenizers: many scripts, odd spaces, marks, digits, emoji, code, contractions."""
import random

WORDS = """the a of and to in is that it was he she they we you I don't can't won't it's we're they've I'll he'd I'm
DON'T IT'S WE'RE Café naïve résumé coöperate façade straße ſoft ﬁne İstanbul ISTANBUL ıss ΑΒΓΣ Σίσυφος ΌΔΟΣ ὈΔΥΣΣΕΎΣ
Привет мир Ёлка йод Україна ҐҒ Ђорђе שלום עולם مرحبا بالعالم العَرَبِيَّة فارسی हिन्दी नमस्ते दुनिया বাংলা ਪੰਜਾਬੀ தமிழ் తెలుగు
ಕನ್ನಡ മലയാളം සිංහල ไทยแลนด์ ກ ພາສາລາວ မြန်မာ ខ្មែរ 한국어 안녕 ㄱㅏ 日本語 こんにちは カタカナ 漢字 中文测试 繁體字 龘 𠀀𠮷 ქართული Հայերեն
አማርኛ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ᚠᚢᚦ 𐌰𐌱 𝒜𝔅 𝟙𝟚 Ⅷ ⅷ ½ ² ₃ ٣٤ ०१२ ๑๒ 〇 一二三 3.14 1,000 2024-11-24 007 1e-9 0x1F
print() foo_bar() x+=1; <tag/> {"k":1} // --- ... !!! ??? "quoted" 'single' `code` (a) [b] #1 @me a@b.c 50% $5 €9 £ ¥ ©
a\u0301 e\u0301\u0323 o\u0308 A\u030a n\u0303 \u1112\u1161\u11ab q\u0323\u0307 \u0958 \u2126 \u212b \ufb01 ｆｕｌｌ １２３ ｶﾞ
🙂 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 1️⃣ ❤️ ✨ → ∑ ∞ ≠ √ ° • – — “ ” ‘ ’ … « » ′s 's 'S 't 'LL 'Re 'ſ ' '' 'll've""".split()
SPACES = [" "] * 12 + ["  ", "   ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\t", " \t ", "\n  ", "  \n", " \n \n ", "\u00a0",
                       "\u3000", "\u2028", "\u2029", "\u200b", "\u200d", "\u2003", "\u202f", "\u205f", "\u1680", "\u0085",
                       "\v", "\f", "\u180e", "\ufeff", "\x1c", "\x1f", ""]
RANGES = [(0x20, 0x7F), (0xA0, 0x250), (0x250, 0x370), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00),
          (0xE00, 0x1200), (0x1E00, 0x2100), (0x2000, 0x2070), (0x2100, 0x2C00), (0x3000, 0x3200), (0x4E00, 0x9FFF),
          (0xA640, 0xA800), (0xAC00, 0xD7A4), (0xF900, 0xFE00), (0xFE00, 0x10000), (0x10000, 0x10FFFF),
          (0x1D400, 0x1D800), (0x1F300, 0x1FA00), (0, 0x20), (0xE000, 0xE100), (0x1000, 0x1200), (0x1A00, 0x1B00)]


def random_points(rng, count):
    low, high = rng.choice(RANGES)
    return "".join(chr(rng.randrange(low, high)) for _ in range(count))


def random_string(rng):
    parts = []
    for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 21))):
        kind = rng.random()
        if kind < 0.70:
            word = rng.choice(WORDS)
            parts.append(word.upper() if rng.random() < 0.05 else word)
        elif kind < 0.85:
            parts.append(random_points(rng, rng.choice((1, 1, 2, 3, 6))))
        elif kind < 0.92:
            parts.append(rng.choice("a !.-\n\t'=09é中🙂\u0301") * rng.choice((2, 3, 4, 7, 16, 40)))
        else:
            parts.append(str(rng.randrange(10 ** rng.choice((1, 3, 4, 9, 18)))))
        parts.append(rng.choice(SPACES))
    return "".join(parts)


def strings(seed, count):
    """`count` strings; a pure function of the seed."""
    rng = random.Random(seed)
    return [random_string(rng) for _ in range(count)]
