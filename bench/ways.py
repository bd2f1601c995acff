"""Does a way of speaking change the words? The same texts with `carry`, with fewer bits, in a batch, and plain; by a recogniser.

    python bench/ways.py [--n 30] [--lw 2] [--out bench/ways.json]

Held-out clauses and everyday sentences, two of them make a text. For each way: words wrong (pocketsphinx with a weak language model, `--lw`, so that sound decides), the paired difference
to plain speaking with its 95 % interval, and how far loudness and mel colour jump from the last second of a piece to the first second of the next.
"""
import argparse, json
from pathlib import Path

import numpy as np
import torch

from lewm_tts.autopsy import test_sentences
from lewm_tts.core import atomic_path
from lewm_tts.text import normalise_text
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, wer, wer_difference

SECOND = 94   # mel frames


def jumps(audio):
    "Change of the mean log-mel of voiced frames where pieces meet: (loudness, colour), means over the joins."
    voiced = lambda m: m[m.mean(-1) >= m.mean()].mean(0)
    d = [voiced(q.mel[:SECOND])-voiced(p.mel[-SECOND:]) for p, q in zip(audio.parts, audio.parts[1:], strict=False)]
    return [float(np.mean([abs(float(x.mean())) for x in d])), float(np.mean([float((x-x.mean()).abs().mean()) for x in d]))] if d else None


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--n', type=int, default=30, help='texts'); ap.add_argument('--lw', type=float, default=2., help='weight of the language model')
    ap.add_argument('--out', default='bench/ways.json'); ap.add_argument('--voice')
    a = ap.parse_args(); torch.set_num_threads(1)
    kinds = test_sentences(200)
    said = [s for pair in zip(*(t for k, t in kinds.items() if k != 'generator'), strict=False) for s in pair][:2*a.n]
    texts = [' '.join(s.strip(' .,;:')+'.' for s in said[i:i+2]) for i in range(0, len(said)-1, 2)]
    rec = Recogniser([normalise_text(t) for t in texts], [normalise_text(s) for t in kinds.values() for s in t], lw=a.lw)
    few = {d: Voice.load(a.voice, dtype=d) for d in ('float32', 'float16', 'int8')}
    ways = dict(plain=lambda: [few['float32'].speak(t, check=False) for t in texts], carry=lambda: [few['float32'].speak(t, check=False, carry=True) for t in texts],
                float16=lambda: [few['float16'].speak(t, check=False) for t in texts], int8=lambda: [few['int8'].speak(t, check=False) for t in texts],
                batch=lambda: few['float32'].batch(texts, check=False))
    out, heard = {}, {}
    for name, speak in ways.items():
        audio = speak(); refs = [x.text for x in audio]
        heard[name] = rec.hear_all([x.wav for x in audio])
        j = np.mean([x for x in map(jumps, audio) if x], 0)
        d = wer_difference(refs, heard[name], heard['plain'])
        out[name] = dict(wer=wer(refs, heard[name]).wer, difference=d.value, low=d.low, high=d.high, loudness_jump=float(j[0]), colour_jump=float(j[1]), texts=len(texts), lw=a.lw)
        print(f"{name:8} words wrong {out[name]['wer']:.1%}, against plain {100*d.value:+.1f} points ({100*d.low:+.1f} to {100*d.high:+.1f}); jumps: loudness {j[0]:.3f}, colour {j[1]:.3f}", flush=True)
    with atomic_path(Path(a.out)) as p: p.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
