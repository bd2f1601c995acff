"""How small can a voice be that speaks as well? Slim voices of bench/slim.py, packed, against the shipped voice in float32, on the same sentences.

    python bench/smallest.py VOICE [VOICE ...] [--schemes float16 pocket coin] [--n 40] [--out bench/smallest.json]

VOICE is a folder (out/slim/mini); its vocoder is packed with it. Rows of other voices in the file are kept. Three sets of --n sentences as in bench/quantize.py; differences in word errors to toy-en, with their 95 % interval over all sentences.
"""
import argparse, json, tempfile
from pathlib import Path

import torch
from quantize import first, heard_by, say, spread, text_sets

from lewm_tts.core import atomic_path
from lewm_tts.engine import Voice
from lewm_tts.evaluate import wer, wer_difference
from lewm_tts.lq40 import load_lq40, save_lq40
from lewm_tts.quantize import calibrate, quantize


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('voices', nargs='+'); ap.add_argument('--schemes', nargs='*', default=['float16', 'pocket', 'coin']); ap.add_argument('--n', type=int, default=40); ap.add_argument('--out', default='bench/smallest.json')
    a = ap.parse_args(); torch.set_num_threads(1)
    sets = text_sets(a.n); refs, rec, _, base = first(Voice.load(), sets)
    out = dict(n=a.n, sets=3, base=dict(voice='toy-en', wer=spread([wer(r, h).wer for r, h in zip(refs, base, strict=True)])), voices=[r for r in (json.loads(Path(a.out).read_text())['voices'] if Path(a.out).exists() else []) if r['voice'] not in {Path(v).name for v in a.voices}])
    with tempfile.TemporaryDirectory() as tmp:
        for folder in a.voices:
            v = Voice.load(folder); grams = calibrate(v)
            for scheme in a.schemes:
                path = save_lq40(quantize(v, scheme, grams), Path(tmp)/'v.lq40'); small = load_lq40(path).voice(); h = heard_by(rec, [say(small, s) for s in sets])
                d = wer_difference(sum(refs, []), sum(h, []), sum(base, []))
                r = dict(voice=Path(folder).name, scheme=scheme, bytes=path.stat().st_size, parameters=sum(p.numel() for k, p in v.model.state_dict().items() if not k.startswith('enc.')),
                         wer=spread([wer(x, y).wer for x, y in zip(refs, h, strict=True)]), difference=dict(value=float(d.value), low=float(d.low), high=float(d.high), sets=[float(wer_difference(x, y, z).value) for x, y, z in zip(refs, h, base, strict=True)]))
                out['voices'].append(r)
                print(f"{r['voice']:10} {scheme:8} {r['bytes']/1e6:5.2f} MB  words wrong {r['wer']['mean']:.1%}, against toy-en {100*d.value:+.1f} points ({100*d.low:+.1f} to {100*d.high:+.1f})", flush=True)
                with atomic_path(Path(a.out)) as p: p.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
