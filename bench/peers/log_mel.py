"""torchaudio's side of bench_log_mel: Whisper's log-mel spectrograms of 64 clips of 30 seconds.

    bench_log_mel --peer "python bench/peers/log_mel.py"

Needs torch and torchaudio. Protocol: prints "ready"; then for every line "WAY BANDS" on standard input (batch: all
clips at once; clipwise: one after the other) does one round on as many threads as its argument says and prints its
wall-clock seconds.
"""

import sys
import time

import torch
import torchaudio

CLIPS, SAMPLES, RATE = 64, 480000, 16000


def front_end(bands):
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=400, hop_length=160, n_mels=bands, norm="slaney", mel_scale="slaney", power=2.0
    )

    def log_mel(samples):
        x = mel(samples)[..., :-1].clamp_min(1e-10).log10()
        return (torch.maximum(x, x.amax((1, 2), keepdim=True) - 8) + 4) / 4

    return log_mel


def main():
    torch.set_num_threads(int(sys.argv[1]))
    clips = torch.rand(CLIPS, SAMPLES) * 0.6 - 0.3
    front_ends = {}
    print("ready", flush=True)
    for line in sys.stdin:
        way, bands = line.split()
        log_mel = front_ends.setdefault(bands, front_end(int(bands)))
        start = time.perf_counter()
        parts = [log_mel(part) for part in (clips.split(1) if way == "clipwise" else [clips])]
        seconds = time.perf_counter() - start
        assert sum(part.shape[0] for part in parts) == CLIPS and parts[0].shape[1:] == (int(bands), 3000)
        print(seconds, flush=True)


with torch.inference_mode():
    main()
