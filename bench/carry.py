"""Should a piece remember how the one before ended? Texts of several sentences, spoken with and without `carry`.

    python bench/carry.py [--n 24] [--out bench/carry.json]

Held-out clauses and everyday sentences, three in a row make a text. Reported for both ways: words wrong (pocketsphinx), with the paired difference and its 95 % interval, and how far
loudness and mel colour jump from the last second of a piece to the first second of the next, beside the same jump in one rollout cut at the same place.
"""
import argparse, json
from pathlib import Path

import numpy as np
import torch

from lewm_tts.autopsy import test_sentences
from lewm_tts.core import atomic_path
from lewm_tts.data import normalise_text
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, wer, wer_difference

FRAMES = 94   # a second of mel


def jumps(audio):
    "Change of mean log-mel from the end of each piece to the beginning of the next: (loudness, colour), each a mean over joins."
    ends = [(p.mel[-FRAMES:], q.mel[:FRAMES]) for p, q in zip(audio.parts, audio.parts[1:], strict=False)]
    voiced = lambda m: m[m.mean(-1) > m.mean()].mean(0)
    d = [voiced(b)-voiced(a) for a, b in ends]
    return [float(np.mean([abs(float(x.mean())) for x in d])), float(np.mean([float((x-x.mean()).abs().mean()) for x in d]))]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--n', type=int, default=24); ap.add_argument('--out', default='bench/carry.json'); ap.add_argument('--voice')
    a = ap.parse_args(); torch.set_num_threads(1)
    voice, kinds = Voice.load(a.voice), test_sentences(200)
    said = [s for pair in zip(*(t for k, t in kinds.items() if k != 'generator'), strict=False) for s in pair][:3*a.n]
    texts = [' '.join(s.strip(' .,;:')+'.' for s in said[i:i+3]) for i in range(0, len(said)-2, 3)]
    rec = Recogniser([normalise_text(t) for t in texts], [normalise_text(s) for t in kinds.values() for s in t])
    heard, out = {}, dict(texts=len(texts))
    for carry in (False, True):
        audio = [voice.speak(t, carry=carry, check=False) for t in texts]
        heard[carry] = rec.hear_all([x.wav for x in audio])
        j = np.mean([jumps(x) for x in audio], 0)
        out['carry' if carry else 'fresh'] = dict(wer=wer([x.text for x in audio], heard[carry]).wer, loudness_jump=float(j[0]), colour_jump=float(j[1]))
    d = wer_difference([x.text for x in audio], heard[True], heard[False])
    out['difference'] = [float(v) for v in d]
    print(json.dumps(out, indent=1))
    with atomic_path(Path(a.out)) as p: p.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
