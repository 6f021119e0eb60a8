"""torchvision's side of bench_image_pipeline; also makes the photographs.

    python bench/peers/image_pipeline.py --make .cache/photos
    bench_image_pipeline .cache/photos --peer "python bench/peers/image_pipeline.py"

Needs torch, torchvision, Pillow, numpy, and scikit-learn and scikit-image for their photographs.
Protocol: prints "ready"; then for every line "BACKEND MIN_SCALE" on standard input does one round over the
photographs on one thread and prints its CPU seconds.
"""

import importlib.util
import io
import pathlib
import sys
import time

SIZE = (500, 375)
QUALITY = 90
PHOTOGRAPHS = {
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
    "skimage": [
        f"data/{name}"
        for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
    ],
}


def make(folder):
    from PIL import Image, ImageOps

    folder.mkdir(parents=True, exist_ok=True)
    for package, names in PHOTOGRAPHS.items():
        root = pathlib.Path(importlib.util.find_spec(package).origin).parent
        for name in names:
            photo = ImageOps.fit(Image.open(root / name).convert("RGB"), SIZE, Image.Resampling.LANCZOS)
            photo.save(folder / f"{pathlib.Path(name).stem}.jpg", quality=QUALITY)


def augmentations(scale):
    from torchvision.transforms import v2

    return [
        v2.RandomResizedCrop(224, scale=(scale, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ]


def finish():
    import torch
    from torchvision.transforms import v2

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


def tensor_backend(scale):
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    transform = v2.Compose(augmentations(scale) + finish())
    return lambda data: transform(decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), mode=ImageReadMode.RGB))


def pil_backend(scale):
    from PIL import Image
    from torchvision.transforms import v2

    transform = v2.Compose(augmentations(scale) + [v2.PILToTensor()] + finish())
    return lambda data: transform(Image.open(io.BytesIO(data)).convert("RGB"))


def serve(folder):
    import torch

    torch.set_num_threads(1)
    photos = [bytearray(path.read_bytes()) for path in sorted(folder.glob("*.jpg"))]
    pipelines = {}
    print("ready", flush=True)
    for line in sys.stdin:
        backend, scale = line.split()
        if line not in pipelines:
            pipelines[line] = {"tensor": tensor_backend, "pil": pil_backend}[backend](float(scale))
        start = time.process_time()
        for photo in photos:
            result = pipelines[line](photo)
        seconds = time.process_time() - start
        assert result.shape == (3, 224, 224) and result.dtype == torch.float32
        print(seconds, flush=True)


if sys.argv[1] == "--make":
    make(pathlib.Path(sys.argv[2]))
else:
    serve(pathlib.Path(sys.argv[1]))
