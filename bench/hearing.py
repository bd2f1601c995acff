"""Which mel error can be heard? Blur and white noise on true mels, swept, vocoded by the shipped vocoder and counted in words heard wrong.

    python bench/hearing.py [--n 96] [--out bench/hearing.json]

`blur` smears the log-mel with a Gaussian over `frequency` bins and `time` frames (standard deviations), either everywhere or only where the formants are
(`low` to `high`, mel bins). `noise` adds independent Gaussian noise to every bin. L1 is the mean |difference| from the true log-mel.
"""
import argparse, json, tempfile
from pathlib import Path

import numpy as np
import torch

from lewm_tts.autopsy import spoil
from lewm_tts.core import atomic_path, voices_dir
from lewm_tts.data import Corpus, build_corpus, generator_sentences
from lewm_tts.decoder import GriffinLim, load_vocoder
from lewm_tts.evaluate import Recogniser, bootstrap_ci, mcd_dtw, wer, wer_difference

FORMANTS = (8, 60)   # mel bins of about 180 to 3100 Hz
SWEEP = [dict(kind='clean'),
         *[dict(kind='noise', sigma=s) for s in (.3, .64, 1.05, 1.5)],
         *[dict(kind='blur', frequency=f, time=t) for f, t in ((4., 0.), (3., 1.), (2., 2.), (0., 2.), (0., 2.9), (0., 4.))],
         *[dict(kind='blur', frequency=f, time=t, low=FORMANTS[0], high=FORMANTS[1]) for f, t in ((0., 4.), (2., 4.), (4., 4.), (3., 5.), (3., 6.))]]


def spoiled(mel, generator, kind, sigma=0., **blur):
    "A spoiled copy of a mel (f, m)."
    return mel + sigma*torch.randn(mel.shape, generator=generator) if kind == 'noise' else spoil(mel, **blur)


def judge(utts, rec, vocoder, setting, clean=None):
    "One row of the table, and what was heard."
    g = torch.Generator().manual_seed(0)
    mels = [spoiled(u.mel, g, **setting) for u in utts]
    texts, heard = [u.text for u in utts], rec.hear_all([vocoder(m[None])[0] for m in mels])
    off = torch.cat([(m-u.mel).abs().mean(1) for m, u in zip(mels, utts, strict=True)])
    row = dict(setting, l1=float(off.mean()), wer=wer(texts, heard).wer, wer_ci=bootstrap_ci(texts, heard),
               mcd=float(np.median([mcd_dtw(m, u.mel).db for m, u in zip(mels, utts, strict=True)])), nothing_heard=sum(not h for h in heard))
    return row, heard


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--n', type=int, default=96); ap.add_argument('--out', default='bench/hearing.json')
    a = ap.parse_args()
    torch.set_num_threads(1)
    texts = generator_sentences(a.n, 20, 'test')
    with tempfile.TemporaryDirectory() as d, torch.no_grad():
        utts = list(Corpus(build_corpus(texts, Path(d)/'c', progress=False, workers=1)))
        rec, small = Recogniser([u.text for u in utts], generator_sentences(500, 7)), load_vocoder(voices_dir()/'toy-en')
        rows, heard = [], []
        for s in SWEEP:
            r, h = judge(utts, rec, small, s); rows.append(dict(r, vocoder='small')); heard.append(h); print(json.dumps(rows[-1]), flush=True)
        # the pair: formants blurred to an L1 of .51, against white noise of .84
        near = lambda want, ok: min((i for i, r in enumerate(rows) if ok(r)), key=lambda i: abs(rows[i]['l1']-want))
        blur, noise = near(.51, lambda r: r['kind'] == 'blur' and 'low' in r), near(.84, lambda r: r['kind'] == 'noise')
        pair = dict(blur=blur, noise=noise, difference=wer_difference([u.text for u in utts], heard[blur], heard[noise])._asdict())
        other = [dict(judge(utts[:48], rec, GriffinLim(), SWEEP[i])[0], vocoder='griffin-lim', utterances=min(48, len(utts))) for i in (0, blur, noise)]
        for r in other: print(json.dumps(r), flush=True)
    with atomic_path(a.out) as p: p.write_text(json.dumps(dict(command='python bench/hearing.py', utterances=a.n, rows=rows, pair=pair, other_vocoder=other), indent=1)+'\n')


if __name__ == '__main__': main()
