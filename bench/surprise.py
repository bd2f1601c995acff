"""When does the predictor startle? Teleports in speech against harmless changes: 200 sentences, two voices, rivals, and where it fails.

    python bench/surprise.py [--n 200] [--out bench/surprise.json]

Needs espeak. Some six minutes on one core. See nbs/13b_surprise.ipynb.
"""
import argparse, json, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr, wilcoxon

from lewm_tts.core import atomic_path, voices_dir
from lewm_tts.data import LogMel, generator_sentences
from lewm_tts.latents import phones_of_all
from lewm_tts.model import load_model
from lewm_tts.rollout import fit_linear, lagged
from lewm_tts.speakers import VOICES
from lewm_tts.surprise import CONTROL, EVENTS, IMPOSSIBLE, Splicer, as_utt, auc, flux, splice, startle, surprise, velocity, watch

ROOT = Path(__file__).resolve().parent.parent
STEP, LOGMEL = 4*256/24000, LogMel()
SECOND = (1, 3, 4, 6, 9)          # speakers to splice in
peak = lambda c: startle(c).ratio


def interval(high, low, hi_ids, lo_ids, draws=400):
    "AUC and its 95 % interval; sentences are drawn again, each with all that was made from it."
    high, low = np.asarray(high), np.asarray(low); n = 1+max(*hi_ids, *lo_ids); r, out = np.random.default_rng(0), []
    hi, lo = ([np.flatnonzero(np.asarray(ids)==i) for i in range(n)] for ids in (hi_ids, lo_ids))
    for _ in range(draws):
        d = r.integers(n, size=n); out.append(auc(high[np.concatenate([hi[i] for i in d])], low[np.concatenate([lo[i] for i in d])]))
    a, b = np.quantile(out, [.025, .975])
    return dict(auc=round(auc(high, low), 4), low=round(float(a), 4), high=round(float(b), 4), n=len(high))


class Trial:
    "Edits of one set of sentences, and every score of them."
    def __init__(self, clean, edits, ids): self.clean, self.edits, self.ids = clean, edits, ids

    def curves(self, model, text=True, center=False, keep=surprise):
        out = {'untouched': [keep(w) for w in watch(model, self.clean, text, center)]}
        return out | {k: [keep(w) for w in watch(model, [e.utt for e in v], text, center)] for k, v in self.edits.items()}

    def table(self, curves, score, base='untouched', kinds=None):
        "AUC of each kind against `base`; and the paired p of its rise over its own originals."
        s, ids = {k: np.array([score(c) for c in v]) for k, v in curves.items()}, self.ids | {'untouched': list(range(len(self.clean)))}
        out = {}
        for k in kinds or self.edits:
            own = s['untouched'][ids[k]]; p = 1. if (own==s[k]).all() else float(wilcoxon(s[k], own, alternative='greater').pvalue)
            out[k] = interval(s[k], s[base], ids[k], ids[base]) | dict(p=p, median=round(float(np.median(s[k])), 3))
        return out


def whitened(calm):
    "Surprise in the metric of the errors on clean speech (Mahalanobis)."
    e = torch.cat([w.z[3:]-w.guess[3:] for w in calm]); mean = e.mean(0); inv = torch.linalg.inv(torch.cov(e.T)+1e-4*torch.eye(e.shape[1]))
    return lambda w: (((w.z-w.guess-mean)@inv)*(w.z-w.guess-mean)).mean(-1).numpy()


def found(t, curves, kinds):
    "Share of clips whose peak lies in the touched stretch or up to five steps behind it."
    at = lambda c: (startle(c).step+.5)*STEP
    return {k: round(float(np.mean([e.start-STEP<=at(c)<=e.stop+5*STEP for e, c in zip(t.edits[k], curves[k], strict=True)])), 4) for k in kinds}


def rates(curves, kinds):
    "Share of clips above the level that one untouched clip in twenty reaches."
    alarm = np.quantile([peak(c) for c in curves['untouched']], .95)
    return dict(alarm=round(float(alarm), 3)) | {k: round(float(np.mean([peak(c)>alarm for c in curves[k]])), 4) for k in kinds}


def window(t, model, center):
    "Mean surprise inside the touched stretch and five steps behind it, over that of the untouched clip there: share of clips in which it rose, and the median factor."
    c, out = t.curves(model, center=center), {}
    for k in (*IMPOSSIBLE, *CONTROL):
        span = [slice(max(3, int(e.start/STEP)), int(e.stop/STEP)+6) for e in t.edits[k]]
        f = np.array([x[s].mean()/c['untouched'][i][s].mean() for x, s, i in zip(c[k], span, t.ids[k], strict=True)])
        out[k] = dict(rose=round(float((f>1).mean()), 4), factor=round(float(np.median(f)), 2))
    return out


def control(t, model):
    "Why does the same word from another sentence startle at all? Does it rise with how differently the word is said, and is the peak at a seam?"
    c = t.curves(model, center=True); rise, far, seam = [], [], []
    for e, x, i in zip(t.edits['same word'], c['same word'], t.ids['same word'], strict=True):
        a, b = round(e.start/STEP*4), round(e.stop/STEP*4); n = min(len(e.utt.mel), len(t.clean[i].mel))
        far.append(float((e.utt.mel[:n]-t.clean[i].mel[:n])[a:b].abs().mean())); s = slice(max(3, a//4), b//4+6); rise.append(float(np.log(x[s].max()/c['untouched'][i][s].max())))
        k = s.start+int(x[s].argmax()); seam.append(min(abs(k-a/4), abs(k-b/4))<=1.5)
    rho = spearmanr(rise, far)
    return dict(rho=round(float(rho.statistic), 3), p=float(rho.pvalue), calmest_half=round(float(np.median(np.exp(np.array(rise)[np.argsort(far)[:len(far)//2]]))), 3),
                other_half=round(float(np.median(np.exp(np.array(rise)[np.argsort(far)[len(far)//2:]]))), 3), at_a_seam=round(float(np.mean(seam)), 3))


def linear_with(clean):
    "Surprise of the best linear predictor with two past latents."
    weights = fit_linear([w.z for w in clean], 2)
    def keep(w): x, y = lagged([w.z], 2); e = (y-x@weights).square().mean(-1).numpy(); return np.r_[e[:1], e[:1], e]
    return keep


def rivals(t, twelve, other):
    "The same splices through detectors that know less. `other`: sentences to calibrate on."
    kinds = [*IMPOSSIBLE, *CONTROL]; part = Trial(t.clean, {k: t.edits[k] for k in kinds}, t.ids)
    mel = {'untouched': [flux(u.mel) for u in t.clean]} | {k: [flux(e.utt.mel) for e in part.edits[k]] for k in kinds}
    out = {'mel moves': part.table(mel, peak), 'latent moves': part.table(part.curves(twelve, keep=velocity, center=True), peak)}
    out['linear, no text'] = part.table(part.curves(twelve, keep=linear_with(watch(twelve, other, center=True)), center=True), peak)
    out['this model, text switched off'] = part.table(part.curves(twelve, text=False, center=True), peak)
    for name, ward in (('small, learned without text', 'no-text'), ('small, with text', 'healthy')):
        m = load_model(ROOT/'data'/'ward'/ward); out[name] = part.table(part.curves(m, center=True), peak)
        calm = watch(m, t.clean); out[name] |= {'clean': round(float(np.mean([surprise(w)[3:].mean() for w in calm]))/float(torch.cat([w.z for w in calm]).var(0).mean()), 4)}
    out['this model'] = part.table(part.curves(twelve, center=True), peak)
    return out


def fails(t, splicer, said, twelve, toy, n):
    "Shorter reversals, more hiss, another tempo, a stranger, the wrong text."
    base, ids = [peak(surprise(w)) for w in watch(twelve, t.clean, center=True)], list(range(n)); out = {}
    def against(utts, own): return interval([peak(surprise(w)) for w in watch(twelve, utts, center=True)], base, own, ids)
    def turned(i, ms):
        got = splicer._reversed(i, np.random.default_rng([7, i]), ms/1000)
        return None if got is None else replace(t.clean[i], mel=LOGMEL(splice(t.clean[i].wav, got[1], got[0], fade=min(120, len(got[1])//2))))
    out['reversed ms'] = {}
    for ms in (20, 40, 60, 100, 160):
        made = {i: u for i in ids if (u := turned(i, ms))}; out['reversed ms'][ms] = against(list(made.values()), list(made))
    hiss = lambda u, db, i: LOGMEL(u.wav+10**(db/20)*u.wav.std()*torch.randn(len(u.wav), generator=torch.Generator().manual_seed(i)))
    out['hiss dB'] = {db: against([replace(u, mel=hiss(u, db, i)) for i, u in enumerate(t.clean)], ids) for db in (-50, -40, -30, -25, -20, -15)}
    out['tempo'] = {wpm: against([as_utt(s) for s in phones_of_all([s.text for s in said], 'en-us', wpm)], ids) for wpm in (120, 150, 165, 185, 200, 240)}
    lie = [replace(a, text=b.text, ids=b.ids, dur=b.dur*(len(a.mel)/b.dur.sum())) for a, b in zip(t.clean, [*t.clean[1:], t.clean[0]], strict=True)]
    mean = lambda us: [surprise(w)[3:].mean() for w in watch(twelve, us, center=True)]
    out['wrong text'] = interval(mean(lie), mean(t.clean), ids, ids)
    foreign = phones_of_all([s.text for s in said], VOICES[1][0]); cut = Splicer(foreign); made = {i: e.utt for i in ids if (e := cut('word', i))}; calm = [as_utt(s) for s in foreign]
    score = lambda m, us, k: [peak(surprise(w)) for w in watch(m, [replace(u, speaker=k) for u in us], center=True)]
    out['stranger'] = {'a wrong word in its own voice': None, 'in a voice it never heard': interval(score(toy, made.values(), 0), score(toy, calm, 0), list(made), ids),
                       'in that voice, by the model that knows it': interval(score(twelve, made.values(), 1), score(twelve, calm, 1), list(made), ids)}
    words = t.edits['word']; out['stranger']['a wrong word in its own voice'] = interval(score(toy, [e.utt for e in words], 0), score(toy, t.clean, 0), t.ids['word'], ids)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--n', type=int, default=200); ap.add_argument('--out', default=str(ROOT/'bench'/'surprise.json'))
    a = ap.parse_args(); torch.set_num_threads(1); t0 = time.process_time()
    texts = generator_sentences(a.n, 14, 'test'); said = phones_of_all(texts); others = phones_of_all(texts, [VOICES[SECOND[i%5]][0] for i in range(a.n)])
    splicer = Splicer(said, others); made = {k: {i: e for i in range(a.n) if (e := splicer(k, i))} for k in EVENTS}
    t = Trial([as_utt(s) for s in said], {k: list(v.values()) for k, v in made.items()}, {k: list(v) for k, v in made.items()})
    models = {v: load_model(voices_dir()/v) for v in ('twelve', 'toy-en')}; other = [as_utt(s) for s in phones_of_all(generator_sentences(60, 15, 'test'))]
    out = dict(scores={}, found={}, rates={}, window={}, clean={}, control={}); quieter = {}
    for v, m in models.items():
        raw, centered, white = t.curves(m), t.curves(m, center=True), t.curves(m, keep=whitened(watch(m, other)))
        out['scores'][v] = {'mean error': t.table(raw, lambda c: c[3:].mean()), 'peak': t.table(raw, lambda c: c[3:].max()), 'peak over median': t.table(raw, peak),
                            'the same, whitened': t.table(white, peak), 'the same, centered': t.table(centered, peak)}
        quieter[v] = t.table(centered, peak, 'quieter', IMPOSSIBLE)
        out['found'][v], out['rates'][v], out['window'][v] = found(t, centered, (*IMPOSSIBLE, *CONTROL)), dict(raw=rates(raw, EVENTS), centered=rates(centered, EVENTS)), window(t, m, True)
        out['control'][v] = control(t, m)
        calm = watch(m, t.clean); out['clean'][v] = round(float(np.mean([surprise(w)[3:].mean() for w in calm]))/float(torch.cat([w.z for w in calm]).var(0).mean()), 4)
        print(v, {s: {k: r['auc'] for k, r in x.items()} for s, x in out['scores'][v].items()}, round(time.process_time()-t0), flush=True)
    out['against quieter'] = quieter
    out['rivals'] = rivals(t, models['twelve'], other); print('rivals', round(time.process_time()-t0), flush=True)
    out['fails'] = fails(t, splicer, said, models['twelve'], models['toy-en'], a.n)
    out['made'] = dict(command='python bench/surprise.py', torch=torch.__version__, threads=1, cpu_s=round(time.process_time()-t0), n=a.n, clips={k: len(v) for k, v in t.edits.items()})
    with atomic_path(Path(a.out)) as p: p.write_text(json.dumps(out, indent=1, ensure_ascii=False)+'\n')


if __name__ == '__main__': main()
