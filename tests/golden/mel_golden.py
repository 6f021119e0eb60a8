"""Writes tests/golden/audio/mel.safetensors: what Whisper's front end makes of a second of sound.

    python tests/golden/mel_golden.py [mel_filters.npz]

Made with numpy 2.4.6 and safetensors 0.8.0, in float64 throughout. With the filters that Whisper ships, first checks
that those made here are the same. The steps are those of whisper/audio.py: reflected by 200 samples at both ends,
frames of 400 under a periodic Hann window, 160 apart, without the last; power; mel; log10; the range of 8.
"""

import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).parent / "audio" / "mel.safetensors"
RATE, WINDOW, HOP = 16000, 400, 160


def mel_of(hz):
    return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1000) / 1000) * 27 / np.log(6.4))


def hz_of(mel):
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def filters(bands):
    edges = hz_of(np.linspace(0, mel_of(np.array(RATE / 2.0)), bands + 2))
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def log_mel(samples, bands):
    padded = np.pad(samples.astype(np.float64), WINDOW // 2, mode="reflect")
    starts = np.arange(len(samples) // HOP) * HOP
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frames = np.stack([padded[s : s + WINDOW] * window for s in starts])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    x = np.log10(np.maximum(filters(bands) @ power.T, 1e-10))
    return (np.maximum(x, x.max() - 8) + 4) / 4


def sound():
    """A chirp over hum, clicks and noise, with a silent part; no whole number of hops."""
    rng = np.random.default_rng(7)
    t = np.arange(RATE + 57) / RATE
    x = 0.3 * np.sin(2 * np.pi * (200 * t + 3500 * t**2)) + 0.05 * np.sin(2 * np.pi * 50 * t)
    x += 0.01 * rng.standard_normal(len(t))
    x[::1777] += 0.5
    x[9000:11000] = 0
    return x.astype(np.float32)


if len(sys.argv) > 1:
    theirs = np.load(sys.argv[1])
    for bands in (80, 128):
        gap = np.abs(filters(bands) - theirs[f"mel_{bands}"]).max()
        print(f"{bands} bands: largest difference from Whisper's filters {gap:.2e}")
        assert gap < 1e-8
OUT.parent.mkdir(exist_ok=True)
samples = sound()
save_file(
    {"samples": samples} | {f"mel_{b}": log_mel(samples, b).astype(np.float32) for b in (80, 128)}, OUT
)
