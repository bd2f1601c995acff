"""What do 2.8 minutes of one person give? The shipped voice fine-tuned on LJSpeech-mini, beside the voice it came from.

    python bench/fewminutes.py [--work DIR] [--steps 240] [--n 40] [--out bench/fewminutes.json]

Prepares the 24 clips, fine-tunes toy-en (batch 8, a validation every 24 steps, the best free run is kept: about four minutes on one core; a finished DIR is used again), then says
held-out sentences of the toy grammar (words wrong, by pocketsphinx: what was lost) and the texts of the clips (MCD-DTW to the recordings: what was gained, seen clips and unseen ones apart).
"""
import argparse, json, subprocess, sys
from pathlib import Path

import numpy as np
import torch

from lewm_tts.core import atomic_path, cache_dir, recordings_dir
from lewm_tts.data import Corpus, generator_sentences
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, bootstrap_ci, mcd_dtw, wer

CLI = [sys.executable, '-c', 'from lewm_tts.cli import main; raise SystemExit(main())']


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--work', type=Path); ap.add_argument('--steps', type=int, default=240); ap.add_argument('--n', type=int, default=40); ap.add_argument('--out', default='bench/fewminutes.json')
    a = ap.parse_args(); torch.set_num_threads(1)
    rec = recordings_dir()
    if not rec or not (rec/'LJSpeech-mini').is_dir(): sys.exit('no LJSpeech-mini among the recordings; name their folder in LEWM_TTS_DATA')
    work = a.work or cache_dir()/'fewminutes'
    if not (work/'corpus'/'manifest.json').exists(): subprocess.run([*CLI, 'prepare', rec/'LJSpeech-mini', work/'corpus'], check=True)
    if not (work/'me'/'model.safetensors').exists():
        subprocess.run([*CLI, 'train', work/'corpus', work/'me', '--init', 'toy-en', '--set', f'steps={a.steps}', '--set', 'batch=8', '--set', 'lr=5e-4', '--every', '24', '--quiet'], check=True)
    texts = generator_sentences(a.n, 0, 'test'); ear = Recogniser(texts, generator_sentences(300, 1, 'test'))
    out = {}
    for name, voice in (('toy-en', Voice.load()), ('fine-tuned', Voice.load(work/'me'))):
        heard = ear.hear_all([x.wav for x in voice.batch(texts, check=False)])
        row = dict(words_wrong=wer(texts, heard).wer, interval=bootstrap_ci(texts, heard), sentences=len(texts))
        for part, c in (('seen', Corpus(work/'corpus')), ('unseen', Corpus(work/'corpus'/'test'))):
            d = [mcd_dtw(voice.speak(u.text, check=False).mel, u.mel).db for u in (c[i] for i in range(len(c)))]
            row[f'mcd_{part}'], row[f'clips_{part}'] = float(np.mean(d)), len(d)
        out[name] = row; print(name, row, flush=True)
    val = (work/'me'/'validation.csv').read_text().splitlines()
    out['validation'] = [dict(zip(val[0].split(','), map(float, l.split(',')), strict=True)) for l in val[1:]]
    with atomic_path(Path(a.out)) as p: p.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
