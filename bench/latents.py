"""What do speech latents know? Trains small encoders (`latents.ARMS`), probes them and the shipped voices, measures straightness and shape.

    python bench/latents.py train      what is missing of 13 arms x 3 seeds, about a minute each on one core (stop and start as you like)
    python bench/latents.py probe      every encoder, every question, both probes; writes bench/latents.json (half an hour)
    python bench/latents.py real       the recordings in `core.recordings_dir()`, where there are any
    python bench/latents.py straight   paths and shapes
    python bench/latents.py ship       data/latents/: what the lessons need of it

Everything that is expensive lies in `core.cache_dir()`/latents and is not made twice.
"""
import argparse, json, pickle, platform, time
from pathlib import Path

import numpy as np
import torch

from lewm_tts.core import atomic_path, cache_dir, recordings_dir, voices_dir
from lewm_tts.data import Corpus, build_corpus, generator_sentences
from lewm_tts.latents import ARMS, SIX, TARGETS, Probe, Reading, answers_of, arm_encoder, ask, difference, latents_of, majority, mel_windows, phones_of_all, shrink, target_rows, train_arm
from lewm_tts.model import load_model

ROOT = Path(__file__).resolve().parent.parent
WORK = cache_dir()/'latents'
OUT = ROOT/'bench'/'latents.json'
KEEP = (0, 12, 25, 50, 100, 200)
MAIN = ('recon', 'kl', 'none', 'sigreg', 'told', 'jepa', 'bare', 'jepa_calm', 'sub', 'jepa_sub')      # these are probed
PAIRS = [(a, b) for a, b in (('sigreg', 'untrained'), ('told', 'untrained'), ('jepa', 'untrained'), ('recon', 'untrained'), ('kl', 'untrained'), ('jepa', 'recon'), ('jepa', 'mel, 20 frames in 32 numbers'),
         ('sigreg', 'recon'), ('sigreg', 'kl'), ('sigreg', 'none'), ('told', 'jepa'), ('sigreg', 'told'), ('jepa', 'bare'), ('jepa_calm', 'jepa'), ('sub', 'sigreg'), ('jepa_sub', 'jepa'), ('recon', 'mel, 20 frames in 32 numbers'))]


def sound(): return [v for v, _ in SIX], [r for _, r in SIX]
def training_texts(each=100): return generator_sentences(6*each, 13)


def training_corpus(each=100):
    "Six voices, no two say the same sentence."
    texts = training_texts(each)
    return Corpus([build_corpus(texts[i::6], WORK/f'corpus-{i}-{v}', v, r, workers=1, progress=False, speaker=i) for i, (v, r) in enumerate(SIX)])


def probe_sentences(each=30, held=15):
    "(spoken to learn from, spoken to be judged): other sentences than the encoders learnt from, and no (subject, verb, object) in common."
    if (keep := WORK/f'spoken-{each}-{held}.pkl').exists(): return pickle.loads(keep.read_bytes())
    heard = set(training_texts()); vs, rs = sound()
    tr = [t for t in generator_sentences(8*each, 21) if t not in heard][:6*each]; te = generator_sentences(6*held, 22, 'test')
    spoken = phones_of_all(tr+te, (vs*(each+held)), (rs*(each+held)))
    with atomic_path(keep) as p: p.write_bytes(pickle.dumps(out := (spoken[:len(tr)], spoken[len(tr):])))
    return out


def train(seeds, arms):
    "Missing runs, seeds outermost so that a half-finished table is a fair one."
    corpus = training_corpus()
    for seed in range(seeds):
        for name in arms:
            path = WORK/f'{name}-{seed}.pt'
            if path.exists(): continue
            t = time.process_time(); out = train_arm(name, corpus, seed, keep=KEEP)
            with atomic_path(path) as p: torch.save(dict(out, seconds=time.process_time()-t), p)
            print(f'{name:12} seed {seed}  {time.process_time()-t:.0f} s', flush=True)


def encoder(name, seed, step=400):
    s = torch.load(WORK/f'{name}-{seed}.pt')
    return arm_encoder(name, s[step], s['mel_mean'], s['mel_std'])


def views():
    "(name, seed, function from spoken sentences to vectors, width or None) of everything that can be probed."
    yield 'mel, 4 frames', 0, lambda spoken: mel_windows([s.mel for s in spoken]), None
    yield 'mel, 20 frames in 32 numbers', 0, lambda spoken: mel_windows([s.mel for s in spoken], 20), 32
    for seed in range(3):
        if (WORK/f'sigreg-{seed}.pt').exists(): yield 'untrained', seed, through(encoder('sigreg', seed, 0)), None
        for name in MAIN:
            if (WORK/f'{name}-{seed}.pt').exists(): yield name, seed, through(encoder(name, seed)), None
    for name in ('toy-en', 'twelve'): yield name, 0, through(load_model(voices_dir()/name).encode), None


def through(encode): return lambda spoken: latents_of(encode, [s.mel for s in spoken])


def say(r): return dict(value=round(r.value, 4), low=round(r.low, 4), high=round(r.high, 4), kind=r.kind)


def merge(**new):
    "Put new parts into the JSON, by temp file and rename."
    old = json.loads(OUT.read_text()) if OUT.exists() else {}
    with atomic_path(OUT) as p: p.write_text(json.dumps({**old, 'torch': torch.__version__, 'machine': platform.machine(), **new}, indent=1) + '\n')


def probe():
    "Probe what was not probed yet, then all tables."
    spoken = None; rows = {}
    for name, seed, f, d in views():
        path = WORK/f'probe-{name}-{seed}.json'
        if path.exists(): rows[name, seed] = json.loads(path.read_text()); continue
        if spoken is None:
            tr, te = spoken = probe_sentences(); ka, kb = [answers_of(s) for s in tr], [answers_of(s) for s in te]
            ask_of = {t: (target_rows(t, ka, [s.voice for s in tr]), target_rows(t, kb, [s.voice for s in te])) for t in TARGETS}
            base = {t: say(majority(*q)) for t, q in ask_of.items()}
            merge(data=dict(encoder_sentences=len(training_texts()), probe_train=len(tr), probe_test=len(te), seconds=round(sum(len(s.wav) for s in tr+te)/24000),
                            rows={t: [int(sum(len(v) for _, v in q)) for q in both] for t, both in ask_of.items()}), majority=base)
        t0 = time.process_time(); a, b = f(spoken[0]), f(spoken[1])
        if d: a, b = shrink(a, b, d)
        got = {}
        for t, (know, truth) in ask_of.items():
            for kind, hidden in (('linear', 0), ('mlp', 128)): got[f'{t} {kind}'] = ask(Probe(hidden), a, b, know, truth)._asdict()
            if seed==0 and name in ('sigreg', 'jepa', 'untrained'): got[f'{t} shuffled'] = ask(Probe(), a, b, know, truth, shuffled=True)._asdict()
        rows[name, seed] = {k: dict(v, sums=np.asarray(v['sums']).tolist()) for k, v in got.items()}
        with atomic_path(path) as p: p.write_text(json.dumps(rows[name, seed]))
        print(f'{name:30} seed {seed}  phone {got["phone linear"]["value"]:.3f} {got["phone mlp"]["value"]:.3f}  {time.process_time()-t0:.0f} s', flush=True)
    tables(rows)


def read(d): return Reading(d['value'], d['low'], d['high'], d['kind'], np.array(d['sums']))


def tables(rows):
    "Mean over seeds with an interval over utterances, the seeds' range, and paired differences."
    names = list(dict.fromkeys(n for n, _ in rows)); table, diffs = [], []
    for n in names:
        seeds = [r for (m, _), r in rows.items() if m==n]
        for key in seeds[0]:
            t, kind = key.split(); rs = [read(r[key]) for r in seeds if key in r]; zero = Reading(0, 0, 0, '', np.zeros_like(rs[0].sums))
            v, lo, hi = difference(rs, [zero])
            table.append(dict(view=n, target=t, probe=kind, value=round(v, 4), low=round(lo, 4), high=round(hi, 4), kind=rs[0].kind, seeds=[round(r.value, 4) for r in rs]))
    for a, b in PAIRS:
        if a not in names or b not in names: continue
        for key in [f'{t} {k}' for t in TARGETS for k in ('linear', 'mlp')]:
            ra, rb = ([read(r[key]) for (m, _), r in rows.items() if m==n] for n in (a, b)); v, lo, hi = difference(ra, rb)
            t, kind = key.split(); diffs.append(dict(a=a, b=b, target=t, probe=kind, value=round(v, 4), low=round(lo, 4), high=round(hi, 4), seeds_a=[round(r.value, 4) for r in ra], seeds_b=[round(r.value, 4) for r in rb]))
    merge(probes=table, differences=diffs)


def real():
    "Recordings: LJSpeech for what a wave tells (four folds over the clips), spoken digits for who and what (takes 0 to 4 are never learnt from)."
    from lewm_tts.cloud import ljspeech_clips
    from lewm_tts.data import LogMel
    from lewm_tts.speakers import digit_takes, read_digit
    if recordings_dir() is None: print('no recordings: nothing to do'); return
    clips = ljspeech_clips(24); takes = [t for t in digit_takes() if t.number<15]; logmel = LogMel()
    digits = [type('Digit', (), dict(mel=logmel(torch.from_numpy(w)), wav=w)) for w in map(read_digit, [t.path for t in takes])]
    old = [i for i, t in enumerate(takes) if not t.held_out]; new = [i for i, t in enumerate(takes) if t.held_out]
    know = [answers_of(c) for c in clips]; table = []
    for name, seed, f, d in views():
        if name not in ('recon', 'sigreg', 'jepa', 'untrained', 'toy-en', 'twelve') and d is None and 'mel' not in name: continue
        z = f(clips); fold = np.arange(len(clips))%4
        for t in ('energy', 'voiced', 'melody', 'position'):
            rows = target_rows(t, know, ['LJ']*len(clips))
            for kind, hidden in (('linear', 0),):
                sums = np.zeros((len(clips), 2 if t=='voiced' else 6))
                for k in range(4):
                    tr, te = np.flatnonzero(fold!=k), np.flatnonzero(fold==k); pick = lambda x, i: [x[j] for j in i]
                    a, b = (shrink(pick(z, tr), pick(z, te), d) if d else (pick(z, tr), pick(z, te)))
                    sums[te] = ask(Probe(hidden), a, b, pick(rows, tr), pick(rows, te)).sums
                table.append((name, seed, 'LJSpeech', t, kind, Reading(0, 0, 0, 'accuracy' if t=='voiced' else 'r', sums)))
        z = [x.mean(0, keepdim=True) for x in f(digits)]
        a, b = [z[i] for i in old], [z[i] for i in new]
        if d: a, b = shrink(a, b, d)
        for t, label in (('speaker', lambda x: x.speaker), ('digit', lambda x: str(x.digit))):
            rows = [(np.array([0]), np.array([label(x)])) for x in takes]
            for kind, hidden in (('linear', 0),):
                table.append((name, seed, 'digits', t, kind, ask(Probe(hidden), a, b, [rows[i] for i in old], [rows[i] for i in new])))
        print(name, seed, flush=True)
    out = []
    for key in dict.fromkeys((n, *k) for n, _, *k, _ in table):
        rs = [r for n, _, *k, r in table if (n, *k)==key]; v, lo, hi = difference(rs, [Reading(0, 0, 0, '', np.zeros_like(rs[0].sums))])
        out.append(dict(view=key[0], data=key[1], target=key[2], probe=key[3], kind=rs[0].kind, value=round(v, 4), low=round(lo, 4), high=round(hi, 4), seeds=len(rs)))
    merge(real=out, real_data=dict(clips=len(clips), digits_train=len(old), digits_test=len(new), speakers=len({t.speaker for t in takes})))


def straight():
    "Straightness at every checkpoint, by memory alone, at several rates; dimensions and ranks of the finished clouds."
    from lewm_tts.sigreg import effective_rank
    from lewm_tts.straight import by_memory, mle_dimension, straightness, two_nn
    _, te = probe_sentences(); mels = [s.mel for s in te]; paths, shapes, sums = [], [], {}
    thin = np.random.default_rng(0)
    def shape(name, seed, z):
        cloud = torch.cat(z); who = np.concatenate([np.full(len(x), i) for i, x in enumerate(z)]); i = thin.permutation(len(cloud))[:1500]; c, w = cloud[i], who[i]
        unit = (c-c.mean(0))/c.std(0).clamp(min=1e-6)
        shapes.append(dict(view=name, seed=seed, d=int(c.shape[1]), rank=round(effective_rank(cloud), 2), two_nn=round(two_nn(c, w), 2), two_nn_same=round(two_nn(c), 2), mle=round(mle_dimension(c, 12, w), 2), two_nn_unit=round(two_nn(unit, w), 2)))
    def path(name, seed, step, z):
        s = straightness(z); sums[name, seed, step] = s.sums
        paths.append(dict(view=name, seed=seed, step=step, value=round(s.value, 4), low=round(s.low, 4), high=round(s.high, 4), memory=round(by_memory(z), 4), rank=round(effective_rank(torch.cat(z)), 2)))
    for k in (1, 2, 4, 8): z = mel_windows([(m-m.mean(0)) for m in mels], k, k); path(f'mel, {k} frames a step', 0, 0, z)
    for name in ('toy-en', 'twelve'): z = latents_of(load_model(voices_dir()/name).encode, mels); path(name, 0, 'end', z); shape(name, 0, z)
    z, _ = shrink(mel_windows(mels, 20), mel_windows(mels[:1], 20), 32); shape('mel, 20 frames in 32 numbers', 0, z); path('mel, 20 frames in 32 numbers', 0, 0, z)
    for name in ARMS:
        for seed in range(3):
            if not (WORK/f'{name}-{seed}.pt').exists(): continue
            for step in (*KEEP, 400): z = latents_of(encoder(name, seed, step), mels); path(name, seed, step, z)
            shape(name, seed, z); print(name, seed, paths[-1]['value'], shapes[-1], flush=True)
            if name=='sigreg': shape('untrained', seed, latents_of(encoder(name, seed, 0), mels))
    diffs = []
    for a, b in (('sigreg', 'none'), ('sigreg', 'kl'), ('kl', 'none'), ('jepa', 'bare'), ('jepa', 'sigreg'), ('told', 'jepa'), ('recon', 'none'), ('sub', 'sigreg'), ('jepa_sub', 'jepa'), ('sigreg_calm', 'sigreg'), ('kl_calm', 'kl'), ('none_calm', 'none'), ('jepa_calm', 'jepa')):
        ra, rb = ([r for (n, _, s), r in sums.items() if n==m and s==400] for m in (a, b))
        if ra and rb: diffs.append(dict(a=a, b=b, **dict(zip(('value', 'low', 'high'), (round(x, 4) for x in ratio_difference(ra, rb)), strict=True))))
    for a in ARMS:
        ra, rb = ([r for (n, _, s), r in sums.items() if n==a and s==t] for t in (400, 0))
        if ra: diffs.append(dict(a=f'{a} trained', b=f'{a} untrained', **dict(zip(('value', 'low', 'high'), (round(x, 4) for x in ratio_difference(ra, rb)), strict=True))))
    merge(paths=paths, shapes=shapes, path_differences=diffs)


def ratio_difference(a, b, n=1000):
    "Mean over seeds of sum/count in a minus the same in b, with an interval over the utterances."
    w = np.random.default_rng(0).multinomial(len(a[0]), np.full(len(a[0]), 1/len(a[0])), n); f = lambda rs, w: np.mean([(w@r)[..., 0]/(w@r)[..., 1] for r in rs], 0)
    one = np.ones(len(a[0])); return float(f(a, one)-f(b, one)), *map(float, np.quantile(f(a, w)-f(b, w), [.025, .975]))


def ship():
    "Encoders of seed 0 and a few paths, in half precision."
    from safetensors.torch import save_file
    to = ROOT/'data'/'latents'; first = torch.load(WORK/'sigreg-0.pt'); out = dict(mel_mean=first['mel_mean'], mel_std=first['mel_std'])
    for name in ('recon', 'kl', 'none', 'sigreg', 'told', 'jepa', 'sub', 'jepa_sub'):
        if not (WORK/f'{name}-0.pt').exists(): continue
        s = torch.load(WORK/f'{name}-0.pt'); assert torch.equal(s['mel_mean'], out['mel_mean'])
        out |= {f'{name}.{k}': v.half() if v.is_floating_point() else v for k, v in s[400].items()}
    out |= {f'untrained.{k}': v.half() for k, v in first[0].items()}
    with atomic_path(to/'encoders.safetensors') as p: save_file({k: v.contiguous() for k, v in out.items()}, p)
    _, te = probe_sentences(); te = te[:3]; paths = {}
    for name in ('bare', 'jepa', 'recon', 'kl', 'none', 'sigreg'):
        if not (WORK/f'{name}-0.pt').exists(): continue
        for step in (*KEEP, 400):
            for i, z in enumerate(latents_of(encoder(name, 0, step), [s.mel for s in te])): paths[f'{name}.{step}.{i}'] = z.half()
    with atomic_path(to/'paths.safetensors') as p: save_file({k: v.contiguous() for k, v in paths.items()}, p)
    seconds = {n: [round(torch.load(WORK/f'{n}-{s}.pt')['seconds']) for s in range(3) if (WORK/f'{n}-{s}.pt').exists()] for n in ARMS}
    card = dict(what='encoders of latents.ARMS, seed 0, after 400 steps, float16; and latents of three sentences at every checkpoint', command='python bench/latents.py train; ... ship',
                sentences=[dict(text=s.text, voice=s.voice) for s in te], steps=[*KEEP, 400], arms=list(dict.fromkeys(k.split('.')[0] for k in paths)), seconds_of_training=seconds, torch=torch.__version__)
    with atomic_path(to/'card.json') as p: p.write_text(json.dumps(card, indent=1) + '\n')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['train', 'probe', 'real', 'straight', 'ship']); p.add_argument('--seeds', type=int, default=3); p.add_argument('--arms', nargs='*', default=list(ARMS))
    a = p.parse_args(); torch.set_num_threads(1)
    train(a.seeds, a.arms) if a.what=='train' else dict(probe=probe, real=real, straight=straight, ship=ship)[a.what]()


if __name__ == '__main__': main()
