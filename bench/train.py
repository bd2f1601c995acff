"""How fast does a training run, and how near is that to what this machine can do?

    python bench/train.py                                   presets mini, tiny and v3c on this machine: hours of sound learned per hour
    python bench/train.py --preset v3c --batch 128 --hours 17.9 --json bench/train.json

The corpus is made up (random mels of ordinary lengths, in memory): reading is not measured, arithmetic is. Beside each speed stands the
share of the machine's ceiling: the operations of a step (counted by torch) per second over those of a plain matrix product on the same
device, in the same precision, with the same threads. Times are the fastest half of the steps after a warm-up; on a CPU process time, so
that neighbours do not count. `--threads 1` is the default: one core, one ceiling. `--profile` prints where the time goes.
"""
import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from lewm_tts.core import Config, UserError, atomic_path, make_config, set_seed  # noqa: E402
from lewm_tts.data import Utt  # noqa: E402
from lewm_tts.text import text_to_ids
from lewm_tts.training import batch_at, begin, train_step  # noqa: E402

SR, HOP = Config().sr, Config().hop


class MadeUp:
    "As many hours of sound as asked for, in memory, between 1.5 and 10 seconds each; they share their frames."
    def __init__(self, hours, seed=0):
        r = np.random.default_rng(seed); n = max(64, round(hours * 3600 / 5.75))
        self.lengths = r.integers(int(1.5 * SR / HOP), int(10 * SR / HOP), n)
        self.mel = torch.randn(int(self.lengths.max()), 100, generator=torch.Generator().manual_seed(seed)) - 5

    @property
    def hours(self): return float(self.lengths.sum() * HOP / SR / 3600)
    def __len__(self): return len(self.lengths)

    def __getitem__(self, i):
        f = int(self.lengths[i]); ids = torch.tensor(text_to_ids('a text of some letters ' * (f // 130 + 1))[:max(3, f // 6)])    # some 15 letters a second
        return Utt('', ids, self.mel[:f], torch.full((len(ids),), f / len(ids)))


def clock(device):
    "Seconds of this process on a CPU, of the wall on a GPU once it has caught up."
    if device.type == 'cpu': return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize()
    return time.perf_counter()


def gemm_ceiling(device, dtype, seconds=1.5):
    "Operations per second of the best of several square matrix products."
    best, end = 0., time.perf_counter() + seconds
    for n in (512, 1024) if device.type == 'cpu' else (4096, 8192):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2)); a @ b
        while time.perf_counter() < end - (seconds / 2 if n in (512, 4096) else 0):
            t = clock(device)
            for _ in range(3): a @ b
            best = max(best, 3 * 2 * n**3 / max(1e-9, clock(device) - t))
    return best


def measure(preset, batch, steps, hours, precision, profile=False):
    "One preset: a dict of figures."
    from torch.utils.flop_counter import FlopCounterMode
    over = dict(batch=batch) if batch else {}
    cfg, corpus = make_config(preset, steps=10_000, **over), MadeUp(hours)
    with tempfile.TemporaryDirectory() as tmp:
        set_seed(0); run, _ = begin(cfg, corpus, Path(tmp), precision); cache, rows = {}, []
        dev, dtype = run.acc.device, torch.bfloat16 if run.acc.mixed_precision == 'bf16' else torch.float32
        ceiling = gemm_ceiling(dev, dtype)
        for k in range(steps + 2):
            b = batch_at(corpus, cfg, run.step, cache); sound = float(b.mel_mask.sum()) * HOP / SR
            if k == 1:                                                # count once; counting slows a step down, so it is not timed
                with FlopCounterMode(display=False) as count: train_step(run, b)
                per_second_of_sound = count.get_total_flops() / sound
                continue
            t = clock(dev); train_step(run, b); t = clock(dev) - t
            if k > 1: rows.append((sound, t))
        if profile: where(run, corpus, cfg, cache, dev)
    rows.sort(key=lambda r: r[1] / r[0]); fast = rows[:max(1, len(rows) // 2)]
    speed = sum(s for s, _ in fast) / sum(t for _, t in fast)
    return dict(preset=preset, parameters=sum(p.numel() for p in run.raw.parameters()), batch=cfg.batch, steps=steps, device=str(dev), precision=str(dtype).split('.')[1],
                hours_per_hour=round(speed, 1), seconds_per_step=round(float(np.median([t for _, t in rows])), 4), gflop_per_second_of_sound=round(per_second_of_sound / 1e9, 2),
                gflops=round(speed * per_second_of_sound / 1e9, 2), ceiling_gflops=round(ceiling / 1e9, 1), utilisation=round(speed * per_second_of_sound / ceiling, 3),
                corpus_hours=round(corpus.hours, 2), epoch_seconds=round(corpus.hours * 3600 / speed, 1))


def where(run, corpus, cfg, cache, dev):
    "The ten dearest operations of one step."
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if dev.type == 'cuda' else [])]) as p: train_step(run, batch_at(corpus, cfg, run.step, cache))
    print(p.key_averages().table(sort_by='self_cpu_time_total' if dev.type == 'cpu' else 'self_cuda_time_total', row_limit=10, max_name_column_width=40))


def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--preset', nargs='+', default=['mini', 'tiny', 'v3c']); ap.add_argument('--batch', type=int, help="default: the preset's")
    ap.add_argument('--steps', type=int, default=6); ap.add_argument('--hours', type=float, default=1., help='size of the made-up corpus')
    ap.add_argument('--precision', choices=['no', 'bf16'], help='default: bf16 on a GPU, float32 on a CPU'); ap.add_argument('--threads', type=int, default=1)
    ap.add_argument('--profile', action='store_true'); ap.add_argument('--json', metavar='FILE')
    a = ap.parse_args(argv)
    if a.steps < 1 or a.hours <= 0 or a.threads < 1: raise UserError('--steps, --hours and --threads must be positive')
    torch.set_num_threads(a.threads); rows = []
    for p in a.preset:
        r = measure(p, a.batch, a.steps, a.hours, a.precision, a.profile); rows.append(r)
        print(f"{p:>6}: {r['hours_per_hour']:8.1f} hours of sound per hour, {r['seconds_per_step']:.3f} s per step of {r['batch']}, {r['gflops']:.1f} of {r['ceiling_gflops']:.1f} GFLOP/s "
              f"({r['utilisation']:.0%} of the ceiling), an epoch of {r['corpus_hours']:g} h: {r['epoch_seconds']:g} s on {r['device']} in {r['precision']}", flush=True)
    out = dict(machine=platform.machine(), torch=torch.__version__, threads=a.threads, gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None, rows=rows)
    if a.json:
        with atomic_path(a.json) as p: p.write_text(json.dumps(out, indent=1) + '\n')
    return out


if __name__ == '__main__':
    try: main()
    except UserError as e: sys.exit(f'error: {e}')
