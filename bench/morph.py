"""Arithmetic, walks and mending in the latents of the shipped voices, each beside the plain way: 40 sentences, intervals over sentences.

    python bench/morph.py [--only voices tempo middle gap] [--n 40] [--out bench/morph.json]

Needs espeak and pocketsphinx. Some fifteen minutes on one core. See nbs/13d_morph.ipynb.
"""
import argparse, json, random, re, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lewm_tts.core import atomic_path, voices_dir
from lewm_tts.data import LogMel, generator_sentences
from lewm_tts.decoder import load_vocoder
from lewm_tts.evaluate import Recogniser, cepstra, mcd_dtw, word_errors
from lewm_tts.latents import latents_of, phones_of_all
from lewm_tts.model import load_model
from lewm_tts.morph import FILLS, crowd, cycle_error, inpaint, moved, on_clock, reworded, slerp, straight, stretch, transported, word_steps
from lewm_tts.rollout import off_cloud
from lewm_tts.speakers import VOICES, SpeakerJudge, pitch
from lewm_tts.surprise import as_utt, startle, surprise, watch

ROOT = Path(__file__).resolve().parent.parent
LOGMEL, SIX = LogMel(), (0, 1, 3, 6, 9, 10)
PAIRS = ((0, 1), (1, 0), (0, 3), (6, 9), (9, 6), (3, 10))
PARTS = ('voices', 'tempo', 'middle', 'gap')


def interval(rows, stat=np.nanmean, draws=1000):
    "A statistic over sentences and its 95 % interval. `rows`: one entry, or one list of entries, per sentence."
    rows = [np.atleast_1d(np.asarray(r, float)) for r in rows]; r = np.random.default_rng(0)
    f = lambda pick: float(stat(np.concatenate([rows[i] for i in pick])))
    a, b = np.nanquantile([f(r.integers(len(rows), size=len(rows))) for _ in range(draws)], [.025, .975])
    return dict(value=round(f(range(len(rows))), 4), low=round(float(a), 4), high=round(float(b), 4), sentences=len(rows))


def wer_interval(texts, heard):
    "Word error rate with its interval over sentences."
    e = word_errors(texts, heard); r = np.random.default_rng(0); f = lambda x: float(x[:, :3].sum()/x[:, 3].sum())
    a, b = np.quantile([f(e[r.integers(len(e), size=len(e))]) for _ in range(1000)], [.025, .975])
    return dict(value=round(f(e), 4), low=round(float(a), 4), high=round(float(b), 4), sentences=len(e))


def voices_part(n, model, vocoder):
    "One voice minus another, in mels and in latents: who is heard, how high, which words."
    learn, texts = generator_sentences(40, 31), generator_sentences(n, 32, 'test')
    known = {i: phones_of_all(learn, VOICES[i][0]) for i in SIX}; said = {i: phones_of_all(texts, VOICES[i][0]) for i in SIX}
    judge = SpeakerJudge.fit([s.mel for v in known.values() for s in v], [k for k, v in enumerate(known.values()) for _ in v])
    zs = {i: latents_of(model.encode, [s.mel for s in v]) for i, v in said.items()}
    cz = {i: crowd(torch.cat(latents_of(model.encode, [s.mel for s in v]))) for i, v in known.items()}; cm = {i: crowd(torch.cat([s.mel for s in v]), 1e-2) for i, v in known.items()}
    own = {i: [pitch(s.wav) for s in v] for i, v in said.items()}; dec = lambda z: model.decode(z[None])[0]
    ways = {'round trip': lambda z, m, a, b: (z, None), 'mels moved': lambda z, m, a, b: (None, moved(m, cm[a], cm[b])), 'mels transported': lambda z, m, a, b: (None, transported(m, cm[a], cm[b])),
            'latents moved': lambda z, m, a, b: (moved(z, cz[a], cz[b]), None), 'latents moved twice': lambda z, m, a, b: (moved(z, cz[a], cz[b], 2.), None),
            'latents transported': lambda z, m, a, b: (transported(z, cz[a], cz[b]), None)}
    rec, out = Recogniser(texts, generator_sentences(1500, 7)), {}
    for name, f in ways.items():
        hit, share, cycle, far, wavs = ([[] for _ in texts] for _ in range(5))
        for a, b in PAIRS:
            for k, (z, s) in enumerate(zip(zs[a], said[a], strict=True)):
                z, mel = f(z, s.mel, a, b)
                if z is not None: cycle[k].append(float(cycle_error(model, z).mean())); mel = dec(z)
                w = vocoder(mel[None])[0]; hit[k].append(int(judge(LOGMEL(w)).argmax())==SIX.index(b))
                far[k].append(mcd_dtw(LOGMEL(w), said[b][k].mel).db); way = np.log(own[b][k]/own[a][k])
                if abs(way)>np.log(4/3): share[k].append(np.log(pitch(w)/own[a][k])/way)
                if (a, b)==PAIRS[0]: wavs[k] = w
        out[name] = dict(judge=interval(hit), pitch=interval(share, np.nanmedian), mcd=interval(far), cycle=interval(cycle) if cycle[0] else None, wer=wer_interval(texts, rec.hear_all(wavs)))
        print(name, {k: v and v['value'] for k, v in out[name].items()}, flush=True)
    out['the other voice itself'] = dict(judge=interval([[int(judge(said[b][k].mel).argmax())==SIX.index(b) for _, b in PAIRS] for k in range(n)]), pitch=None, cycle=None,
                                         wer=wer_interval(texts, rec.hear_all([s.wav for s in said[PAIRS[0][1]]])))
    return out


def tempo_part(n, toy, vocoder):
    "Slower and faster: a constant, the path resampled, the mel resampled, the model told so."
    texts = generator_sentences(n, 32, 'test'); said = {r: phones_of_all(texts, 'en-us', r) for r in (130, 175, 230)}
    zs = {r: latents_of(toy.encode, [s.mel for s in v]) for r, v in said.items()}; mean = {r: torch.cat(z).mean(0) for r, z in zs.items()}; dec = lambda z: toy.decode(z[None])[0]
    long = {r: sum(len(s.mel) for s in said[r])/sum(len(s.mel) for s in said[175]) for r in said}; utts = [as_utt(s) for s in said[175]]
    ways = {'left alone': lambda i, r: said[175][i].mel, 'mean moved': lambda i, r: dec(zs[175][i]+mean[r]-mean[175]), 'latents stretched': lambda i, r: dec(stretch(zs[175][i], long[r])),
            'mels stretched': lambda i, r: stretch(said[175][i].mel, long[r]), 'mels stretched, round trip': lambda i, r: dec(latents_of(toy.encode, [stretch(said[175][i].mel, long[r])])[0]),
            'model told to': lambda i, r: toy.rollout(utts[i].ids, utts[i].dur*long[r]).mel, 'round trip of the true one': lambda i, r: dec(zs[r][i])}
    rec, out = Recogniser(texts, generator_sentences(1500, 7)), {}
    for name, f in ways.items():
        mels = {r: [f(i, r) for i in range(n)] for r in (130, 230)}
        out[name] = {f'mcd{r}': interval([mcd_dtw(m, s.mel).db for m, s in zip(v, said[r], strict=True)]) for r, v in mels.items()}
        out[name] |= dict(wer=wer_interval(texts, rec.hear_all([vocoder(m[None])[0] for m in mels[130]])), ratio=round(float(np.mean([len(m)/len(s.mel) for m, s in zip(mels[130], said[130], strict=True)])), 3))
        print(name, {k: v if isinstance(v, float) else v['value'] for k, v in out[name].items()}, flush=True)
    out['arrow'] = dict(tempo=round(float((mean[130]-mean[230]).norm())/48**.5, 4))
    return out


def middle_part(n, model):
    "Half-way between two sentences, and between two voices that say the same at different speeds."
    texts, learn = generator_sentences(n, 34, 'test'), generator_sentences(40, 35)
    a, b = phones_of_all(texts, VOICES[0][0], 150), phones_of_all(texts, VOICES[1][0], 190); hz = model.cfg.latent_hz
    za, zb = (latents_of(model.encode, [s.mel for s in v]) for v in (a, b))
    cloud = torch.cat([z for i in (0, 1) for z in latents_of(model.encode, [s.mel for s in phones_of_all(learn, *VOICES[i])])])[::2]
    cut = lambda x, y: (x[:min(len(x), len(y))], y[:min(len(x), len(y))])
    pairs = {'two sentences': [cut(x, y) for x, y in zip(za, [*za[1:], za[0]], strict=True)], 'two voices, no clock': [cut(x, y) for x, y in zip(za, zb, strict=True)],
             'two voices, one clock': [(x, on_clock(y, t, s, len(x), hz)) for x, y, s, t in zip(za, zb, a, b, strict=True)]}
    out = {}
    def add(name, zs): out[name] = dict(length=interval([float(z.square().mean().sqrt()) for z in zs]), cycle=interval([float(cycle_error(model, z).mean()) for z in zs]), off=interval([float(off_cloud(z, cloud).median()) for z in zs]))
    add('an end (real speech)', za); add('the other end, put on the clock', [y for _, y in pairs['two voices, one clock']])
    for k, v in pairs.items():
        for name, f in (('line', straight), ('sphere', slerp)): add(f'{k}, {name}', [f(x, y, .5) for x, y in v])
    g = torch.Generator().manual_seed(0); add('noise N(0, I)', [torch.randn(z.shape, generator=g) for z in za])
    print(json.dumps({k: {c: x['value'] for c, x in r.items()} for k, r in out.items()}), flush=True)
    return out


def with_other_word(s, k, w):
    m = list(re.finditer(r"[^\s,.?!;:-]+", s.text))[k]
    return s.text[:m.start()]+w+s.text[m.end():]


def gap_part(n, toy, vocoder):
    "A hidden word. The recogniser's language model finds twenty words equally likely in its place."
    said = phones_of_all(generator_sentences(n, 33, 'test')); utts = [as_utt(s) for s in said]; r, lines, hidden, asked = random.Random(0), [], [], []
    pool = sorted({w for t in generator_sentences(300, 3) for w in re.findall('[a-z]{4,}', t)})
    for s in said:
        k = r.choice([k for k, (w, a, b) in enumerate(s.words) if k and .25<b-a<.6 and b<len(s.wav)/24000-.15]); others = r.sample([w for w in pool if w!=s.words[k][0]], 19)
        hidden.append(k); asked.append(others[0]); lines += [with_other_word(s, k, w) for w in [s.words[k][0], *others]]
    rec, out = Recogniser(lines), {}
    small = {k: load_model(ROOT/'data'/'ward'/w).requires_grad_(False) for k, w in (('small, with text', 'healthy'), ('small, learned without text', 'no-text'))}
    def trip(u, a, b): m = toy.decode(latents_of(toy.encode, [u.mel])[0][None])[0]; return torch.cat([u.mel[:4*a], m[4*a:4*b], u.mel[4*b:]])
    ways = {'true': lambda u, a, b: u.mel, 'round trip': trip} | {w: (lambda u, a, b, w=w: inpaint(toy, u, a, b, w)) for w in FILLS} | {k: (lambda u, a, b, m=m: inpaint(m, u, a, b)) for k, m in small.items()}
    def heard(w, word, text): h = rec.hear(w).split(); return word in h and h.count(word)>=re.findall('[a-z]+', text).count(word)
    def score(made, words):
        wavs = [vocoder(u.mel[None])[0] for u in made]
        return interval([heard(w, x, u.text) for w, x, u in zip(wavs, words, made, strict=True)]), interval([startle(surprise(x)).ratio for x in watch(toy, made)], np.median)
    for name, f in ways.items():
        spans = [word_steps(toy, u, k) for u, k in zip(utts, hidden, strict=True)]; mels = [f(u, *ab) for u, ab in zip(utts, spans, strict=True)]
        word, alarm = score([replace(u, mel=m) for u, m in zip(utts, mels, strict=True)], [s.words[k][0] for s, k in zip(said, hidden, strict=True)])
        parts = [(m[4*a:4*b], u.mel[4*a:4*b]) for m, u, (a, b) in zip(mels, utts, spans, strict=True)]
        db = lambda x, y: float(10/np.log(10)*np.sqrt(2*((cepstra(x)-cepstra(y))**2).sum(1)).mean())
        out[name] = dict(word=word, l1=interval([float((x-y).abs().mean()) for x, y in parts]), mcd=interval([db(x, y) for x, y in parts]), startle=alarm)
        print(name, {k: v['value'] for k, v in out[name].items()}, flush=True)
    made = [reworded(toy, u, k, w) for u, k, w in zip(utts, hidden, asked, strict=True)]
    word, alarm = score([replace(u, mel=inpaint(toy, u, a, b)) for u, a, b in made], asked); out['another word, written'] = dict(word=word, startle=alarm)
    print('another word', out['another word, written'])
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--only', nargs='+', default=list(PARTS), choices=PARTS); ap.add_argument('--n', type=int, default=40); ap.add_argument('--out', default=str(ROOT/'bench'/'morph.json'))
    a = ap.parse_args(); torch.set_num_threads(1); out, t0 = Path(a.out), time.process_time(); found = json.loads(out.read_text()) if out.exists() else {}
    (twelve, voc), (toy, toy_voc) = ((load_model(voices_dir()/v).requires_grad_(False), load_vocoder(voices_dir()/v)) for v in ('twelve', 'toy-en'))
    todo = dict(voices=lambda: voices_part(a.n, twelve, voc), tempo=lambda: tempo_part(a.n, toy, toy_voc), middle=lambda: middle_part(a.n, twelve), gap=lambda: gap_part(a.n, toy, toy_voc))
    for k in a.only:
        found[k] = todo[k](); found['made'] = dict(command='python bench/morph.py', torch=torch.__version__, threads=1, cpu_s=round(time.process_time()-t0), n=a.n)
        with atomic_path(out) as p: p.write_text(json.dumps(found, indent=1, ensure_ascii=False)+'\n')


if __name__ == '__main__': main()
