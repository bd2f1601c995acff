"""What packing costs: bytes of the file, cosines, words, distance, speed and memory of every scheme, for each shipped voice and for the reference size v3c.

    python bench/quantize.py [--n 30] [--voices toy-en twelve v3c] [--v3c FOLDER] [--out bench/quantize.json]

Three sets of --n sentences that no voice was trained on (held-out clauses, everyday sentences and grammar, drawn with seeds 0, 1, 2). Every scheme speaks them all; a recogniser (pocketsphinx, as in lesson 09)
listens; word errors are compared with the unpacked voice on the same sentences. Figures are the mean over the sets, and the sets. `control` is the
unpacked voice against itself under noise of -70 dB that nobody would hear: how far the recogniser wavers by itself. `v3c` is a voice folder of that preset; without one, an untrained model of that size stands in:
bytes, cosines and speed say something, words do not and are left out. `--again memory control` measures only that anew. Each voice's result is written as soon as it is there, and a voice already in the file is kept unless named.
"""
import argparse, json, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import torch

from lewm_tts.autopsy import distractors, test_sentences
from lewm_tts.core import atomic_path, make_config, set_seed
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, mcd_dtw, wer_difference, word_errors
from lewm_tts.lq40 import load_lq40, save_lq40
from lewm_tts.model import LeWMTTS
from lewm_tts.quantize import SCHEMES, calibrate, compare, quantize
from lewm_tts.text import normalise_text


def text_sets(n):
    "Three lists of n sentences."
    pool = [s for k, v in test_sentences(200).items() for s in (v if k != 'generator' else v[:60])]
    return [[pool[i] for i in np.random.default_rng(seed).permutation(len(pool))[:n]] for seed in range(3)]


def untrained():
    "A v3c nobody trained, with the vocoder of the shipped voice."
    set_seed(0)
    return Voice(LeWMTTS(make_config('v3c')), Voice.load().vocoder)


def speakers_of(voice): return [i for i, lang in enumerate(voice.card.get('languages', ['en'])) if lang == 'en']


def say(voice, texts):
    "Each text by the next English speaker; a sentence that does not end is cut at 10 s of latents."
    who = speakers_of(voice)
    return [voice.speak(t, speaker=who[i % len(who)], check=False) for i, t in enumerate(texts)]


def peak_mb(path):
    "Memory of a fresh process that loads the file and speaks: its peak above what stood there after the imports."
    code = ("import re, sys, torch; torch.set_num_threads(1); from lewm_tts.lq40 import load_lq40\n"
            "mb = lambda key: int(re.search(key+r':\\s+(\\d+)', open('/proc/self/status').read())[1])/1024\n"
            "base = mb('VmRSS'); open('/proc/self/clear_refs', 'w').write('5'); load_lq40(sys.argv[1]).voice().speak('Good morning.', check=False); print(mb('VmHWM')-base)")
    return float(subprocess.run([sys.executable, '-c', code, str(path)], capture_output=True, text=True, check=True).stdout)


def rtf(voices, rounds=4):
    "CPU seconds for a second of sound, one thread, the smallest of interleaved rounds."
    best = dict.fromkeys(voices, 1e9)
    for _ in range(rounds):
        for k, v in voices.items():
            t = time.process_time(); a = v.speak('The committee examined the proposal before the meeting.', check=False)
            best[k] = min(best[k], (time.process_time()-t)/a.seconds)
    return best


def spread(x): return dict(mean=float(np.mean(x)), sets=[float(v) for v in x])


def heard_by(rec, audio): return [r.hear_all([a.wav for a in au]) for r, au in zip(rec, audio, strict=True)]


def first(voice, sets):
    "What is said in each set, who listens, the unpacked voice saying it, and what is heard then."
    refs = [[normalise_text(t) for t in s] for s in sets]
    rec, said = [Recogniser(r, distractors(1000)) for r in refs], [say(voice, s) for s in sets]
    return refs, rec, said, heard_by(rec, said)


def measure(voice, name, sets, words, tmp):
    "One voice, all schemes."
    who, grams = speakers_of(voice), calibrate(voice, None if words else ['good morning.', 'are you sure?'])
    refs, rec, plain, heard0 = first(voice, sets) if words else (None,)*4
    hear, voices, out = lambda audio: heard_by(rec, audio), {'float32': voice}, {}
    for scheme in SCHEMES:
        path = tmp/f'{name}-{scheme}.lq40'
        save_lq40(quantize(voice, scheme, grams), path); v = voices[scheme] = load_lq40(path).voice()
        r = out[scheme] = dict(bytes=path.stat().st_size, memory_mb=round(peak_mb(path), 1))
        some = [compare(voice, v, s[:6] if words else s[:1], who[i % len(who)]) for i, s in enumerate(sets)]
        r |= {k: spread([c[k] for c in some]) for k in some[0]}
        if words:
            audio = [say(v, s) for s in sets]; heard = hear(audio)
            r['wer'] = spread([word_errors(a, h)[:, :3].sum()/word_errors(a, h)[:, 3].sum() for a, h in zip(refs, heard, strict=True)])
            d = [wer_difference(a, h, h0) for a, h, h0 in zip(refs, heard, heard0, strict=True)]
            both = wer_difference(sum(refs, []), sum(heard, []), sum(heard0, []))
            r['wer_difference'] = spread([x.value for x in d]) | dict(low=both.low, high=both.high)
        else: audio = [say(v, s[:1]) for s in sets]
        base = plain or [say(voice, s[:1]) for s in sets]
        r['mcd'] = spread([np.median([mcd_dtw(a.mel, b.mel).db for a, b in zip(x, y, strict=True)]) for x, y in zip(audio, base, strict=True)])
        r['ended'] = float(np.mean([a.ended for x in audio for a in x]))
        print(f"{name:8} {scheme:16} {r['bytes']/1e6:6.2f} MB  latents {r['latents']['mean']:.4f}  mel {r['mel']['mean']:.4f}  MCD {r['mcd']['mean']:.2f} dB"
              + (f"  words {100*r['wer_difference']['mean']:+.1f} ({', '.join(f'{100*x:+.1f}' for x in r['wer_difference']['sets'])}) points" if words else ''), flush=True)
    for k, x in rtf(voices).items(): out[k]['rtf'] = x
    for r in out.values(): r['share'] = r['bytes']/out['float32']['bytes']
    return dict(parameters=sum(p.numel() for p in voice.model.state_dict().values()), vocoder_parameters=sum(p.numel() for p in voice.vocoder.parameters()), trained=words, speakers=len(who), schemes=out) | (dict(control=spread(controls(refs, rec, plain, heard0))) if words else {})


def again(voice, name, old, sets, what, tmp):
    "Measure some figures of a finished voice anew."
    if 'memory' in what:
        grams = calibrate(voice)
        for scheme, r in old['schemes'].items():
            path = tmp/f'{name}-{scheme}.lq40'; save_lq40(quantize(voice, scheme, grams), path); r['memory_mb'] = round(peak_mb(path), 1)
            print(name, scheme, r['memory_mb'], 'MB', flush=True)
    if 'control' in what and old['trained']:
        old['control'] = spread(controls(*first(voice, sets))); print(name, 'control', old['control'], flush=True)


def controls(refs, rec, said, heard):
    "Words of the voice against its own under noise that nobody hears, one difference a set."
    noise = lambda w: w+3e-4*torch.randn(len(w), generator=torch.Generator().manual_seed(7))
    again = [r.hear_all([noise(a.wav) for a in au]) for r, au in zip(rec, said, strict=True)]
    return [wer_difference(a, h, h0).value for a, h, h0 in zip(refs, again, heard, strict=True)]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--n', type=int, default=30, help='sentences in a set'); ap.add_argument('--voices', nargs='*', default=['toy-en', 'twelve', 'v3c'])
    ap.add_argument('--v3c', help='voice folder of that preset'); ap.add_argument('--out', default='bench/quantize.json')
    ap.add_argument('--again', nargs='*', choices=['memory', 'control'], default=[])
    a = ap.parse_args(); torch.set_num_threads(1)
    out, sets = Path(a.out), text_sets(a.n)
    res = json.loads(out.read_text()) if out.exists() else dict(voices={})
    with tempfile.TemporaryDirectory() as tmp:
        for name in a.voices:
            voice = Voice.load(a.v3c) if name == 'v3c' and a.v3c else untrained() if name == 'v3c' else Voice.load(name)
            if a.again: again(voice, name, res['voices'][name], text_sets(res['voices'][name]['n']), a.again, Path(tmp))
            else: res['voices'][name] = dict(n=a.n, sets=3) | measure(voice, name, sets, name != 'v3c' or bool(a.v3c), Path(tmp))
            res['torch'] = torch.__version__
            with atomic_path(out) as p: p.write_text(json.dumps(res, indent=1)+'\n')


if __name__ == '__main__': main()
