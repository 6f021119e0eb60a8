"""Writes tests/golden/image/: small files in every format and what Pillow makes of them.

Made with Pillow 12.0.0 (from 13 on, tall images shrink in the other order of passes, a level apart) and
numpy 2.4.6:  python tests/golden/image_golden.py
Layout: NAME.{jpg,png,webp} is the input, NAME.rgb its upright RGB pixels as raw bytes, index.json holds sizes.
Resizes: SOURCE is resized as index.json says; the result is another .rgb file.
"""

import io
import json
import pathlib

import numpy as np
from PIL import Image, ImageOps

OUT = pathlib.Path(__file__).parent / "image"
HEIGHT, WIDTH = 22, 37


def picture(height, width, seed=0):
    """Smooth colours, an edge and some noise, so that filters and chroma matter."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    red = 127 + 120 * np.sin(x / 5.0)
    green = 255 * y / (height - 1)
    blue = np.where(x + 2 * y > width, 220, 30)
    rgb = np.stack([red, green, blue], -1) + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def on_white(image):
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def with_alpha():
    image = picture(HEIGHT, WIDTH).convert("RGBA")
    ramp = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    image.putalpha(Image.fromarray(ramp))
    return image


def sixteen_bits():
    """A 16-bit RGB PNG (which Pillow reads but does not write), rows unfiltered."""
    import struct
    import zlib

    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def interlaced():
    """A PNG with Adam7 interlacing: seven passes, rows unfiltered."""
    import struct
    import zlib

    pixels = np.asarray(picture(HEIGHT, WIDTH, 9))
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b"".join(
        b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx] if row.size
    )

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def decode_cases():
    rgb = picture(HEIGHT, WIDTH)
    for orientation in range(1, 9):
        yield f"exif_{orientation}.jpg", encoded(rgb, "JPEG", quality=90, exif=exif(orientation))
    yield "exif_6.png", encoded(rgb, "PNG", exif=exif(6))
    yield "exif_8.webp", encoded(rgb, "WEBP", lossless=True, exif=exif(8))
    yield "progressive.jpg", encoded(rgb, "JPEG", quality=85, progressive=True)
    yield "chroma_420.jpg", encoded(rgb, "JPEG", quality=85, subsampling=2)
    yield "chroma_422.jpg", encoded(rgb, "JPEG", quality=85, subsampling=1)
    yield "grey.jpg", encoded(rgb.convert("L"), "JPEG", quality=90)
    yield "cmyk.jpg", encoded(rgb.convert("CMYK"), "JPEG", quality=90)
    yield "grey.png", encoded(rgb.convert("L"), "PNG")
    yield "bilevel.png", encoded(rgb.convert("1"), "PNG")
    yield "palette.png", encoded(rgb.quantize(16), "PNG")
    yield "palette_transparent.png", encoded(rgb.quantize(16), "PNG", transparency=3)
    yield "grey_alpha.png", encoded(with_alpha().convert("LA"), "PNG")
    yield "alpha.png", encoded(with_alpha(), "PNG")
    yield "sixteen_bits.png", sixteen_bits()
    yield "interlaced.png", interlaced()
    yield "lossy.webp", encoded(rgb, "WEBP", quality=80)
    yield "alpha.webp", encoded(with_alpha(), "WEBP", lossless=True, exact=True)


def upright(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    transparent = image.mode in ("RGBA", "LA") or "transparency" in image.info
    return on_white(image) if transparent else image.convert("RGB")


def resize_cases():
    """source, (width, height), filter, box or None"""
    for name in ("bilinear", "bicubic"):
        yield "photo", (40, 30), name, None
        yield "photo", (130, 121), name, None
        yield "photo", (96, 17), name, None
        yield "photo", (33, 33), name, (10.25, 5.5, 77.75, 70.125)
        yield "photo", (64, 64), name, (3, 7, 67, 71)
        yield "photo", (1, 1), name, None
        yield "sliver", (5, 40), name, None
        yield "noise", (31, 29), name, None


def main():
    OUT.mkdir(exist_ok=True)
    index = {"decode": [], "resize": [], "sources": {}}
    for name, data in decode_cases():
        (OUT / name).write_bytes(data)
        image = upright(data)
        (OUT / f"{name}.rgb").write_bytes(image.tobytes())
        index["decode"].append({"file": name, "width": image.width, "height": image.height})

    noise = np.random.default_rng(7).integers(0, 256, (61, 67, 3)).astype(np.uint8)
    sources = {"photo": picture(72, 96, 1), "sliver": picture(90, 2, 2), "noise": Image.fromarray(noise)}
    for name, image in sources.items():
        (OUT / f"{name}.rgb").write_bytes(image.tobytes())
        index["sources"][name] = {"width": image.width, "height": image.height}
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    for number, (source, size, name, box) in enumerate(resize_cases()):
        result = sources[source].resize(size, filters[name], box)
        (OUT / f"resize_{number}.rgb").write_bytes(result.tobytes())
        case = {"file": f"resize_{number}.rgb", "source": source, "filter": name}
        case |= {"width": size[0], "height": size[1], "box": list(box) if box else None}
        index["resize"].append(case)
    (OUT / "index.json").write_text(json.dumps(index, indent=1) + "\n")


main()
