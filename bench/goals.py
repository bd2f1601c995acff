"""Can a voice be planned? Four melodies that nobody taught it, 20 sentences, 3 seeds: search, random pushes, one push without search, and editing the latents.

    python bench/goals.py [--n 20] [--seeds 3] [--out bench/goals.json]

Needs espeak and pocketsphinx. Half an hour on one core; each sentence is kept in `core.cache_dir()`/goals, so it may be stopped. See nbs/14d_goals.ipynb.
"""
import argparse, json, platform, time
from pathlib import Path

import numpy as np
import torch

from lewm_tts.core import atomic_path, cache_dir
from lewm_tts.data import generator_sentences
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, word_errors
from lewm_tts.goals import GOALS, Stage, fit_reader, heard
from lewm_tts.latents import answers_of, latents_of, phones_of_all

ROOT = Path(__file__).resolve().parent.parent
KEYS = ('promised', 'kept', 'before', 'worth', 'voiced', 'far')
SEARCH, FIXED = ('plan', 'said', 'shots'), ('shove', 'edit', 'short')


def one(stage, rec, seeds):
    "Every arm, goal and seed of one sentence."
    goals, rows = list(GOALS), []
    def judge(arm, seed, p, sec):
        for i, g in enumerate(goals):
            o = stage.outcome(p.z[i], g); e = word_errors([stage.text], [rec.hear(o.wav)])[0]
            rows.append(dict(arm=arm, goal=g, seed=seed, errors=int(e[:3].sum()), words=int(e[3]), seconds=round(sec, 2), points=[round(float(x), 2) for x in p.points[i][:5]], **{k: round(float(getattr(o, k)), 4) for k in KEYS}))
    def timed(f, *a, **kw): t = time.process_time(); p = f(*a, **kw); return p, time.process_time()-t
    for s in range(seeds):
        judge('plan', s, *timed(stage.plan, goals, seed=s)); judge('said', s, *timed(stage.plan, goals, said=True, seed=s)); judge('shots', s, *timed(stage.shots, goals, seed=s))
    judge('shove', 0, *timed(stage.shove, goals))
    for along in ('up', 'short'): judge('edit' if along=='up' else 'short', 0, *timed(stage.edit, goals, along))
    e = word_errors([stage.text], [rec.hear(stage.wav)])[0]
    return dict(text=stage.text, t=stage.t, errors=int(e[:3].sum()), words=int(e[3]), chance=chance(stage), rows=rows)


def chance(stage, draws=8):
    "How far the melody varies between draws: standard deviation, semitones, in imagination and in the sound."
    m, out = stage.voice.model, {}
    pos = m.timing(stage.memory, stage.cond, None, 1.)[0].expand(draws, -1); mask = torch.ones(draws, stage.memory.shape[1], dtype=torch.bool)
    for name, temperature, noise in (('temperature 1', 1., 0.), ('noise .5', 0., .5)):
        z = m.free_run(stage.memory.expand(draws, -1, -1), mask, pos, None, stage.t, temperature, noise, torch.Generator().manual_seed(0))
        h = np.array([heard(stage.sound(x), stage.t, stage.reader.home) for x in z]); ok = ~np.isnan(h).any(0)
        out[name] = dict(imagined=round(float(stage.reader(z)[:, stage.voiced].std(0).mean()), 3), heard=round(float(h[:, ok].std(0).mean()), 3) if ok.any() else None)
    return out


def ending(melody): return melody[~np.isnan(melody)][-1]


def one_byte(voice, reader, texts):
    "How much higher the last latent with a melody is, with a question mark for the full stop, and with the plan of a question: semitones, in the sound."
    texts = [t for t in texts if t.endswith('.')]; out = dict(mark=[], teacher=[], plan=[])
    taught = {p: phones_of_all([t[:-1]+p for t in texts]) for p in '.?'}
    for t, *pair in zip(texts, *taught.values(), strict=True):
        a, b = Stage(voice, reader, t, lanes=24), Stage(voice, reader, t[:-1]+'?', lanes=1); out['mark'].append(ending(b.heard)-ending(a.heard))
        c, d = (ending(heard(s.wav, -(-len(s.mel)//4), reader.home)) for s in pair); out['teacher'].append(d-c)
        out['plan'].append(ending(a.outcome(a.plan(['question']).z[0], 'question').melody)-ending(a.heard))
    return {k: dict(interval(v), up=round(float(np.mean(np.array(v)>0)), 3), n=len(v)) for k, v in out.items()}


def interval(per_sentence, draws=2000):
    "Mean and 95 % interval; sentences are drawn again."
    x = np.asarray(per_sentence, float); x = x[~np.isnan(x)]; r = np.random.default_rng(0).integers(len(x), size=(draws, len(x)))
    return dict(value=round(float(x.mean()), 3), low=round(float(np.quantile(x[r].mean(1), .025)), 3), high=round(float(np.quantile(x[r].mean(1), .975)), 3))


def ratio(a, b, draws=2000):
    "Sum over sum (word errors over words), with its interval."
    a, b = np.asarray(a, float), np.asarray(b, float); r = np.random.default_rng(0).integers(len(a), size=(draws, len(a))); q = np.quantile(a[r].sum(1)/b[r].sum(1), [.025, .975])
    return dict(value=round(float(a.sum()/b.sum()), 4), low=round(float(q[0]), 4), high=round(float(q[1]), 4))


def summary(said):
    "Tables: all goals together and each alone; paired differences to the plan."
    get = lambda s, key, arm, goal=None: float(np.nanmean([r[key] for r in s['rows'] if r['arm']==arm and goal in (None, r['goal'])]))
    total = lambda s, key, arm: sum(r[key] for r in s['rows'] if r['arm']==arm)
    arms = SEARCH+FIXED
    table = [dict(arm=a, **{k: interval([get(s, k, a) for s in said]) for k in KEYS}, wer=ratio([total(s, 'errors', a) for s in said], [total(s, 'words', a) for s in said]), seconds=round(float(np.mean([get(s, 'seconds', a) for s in said])), 1)) for a in arms]
    goals = [dict(arm=a, goal=g, **{k: interval([get(s, k, a, g) for s in said]) for k in ('promised', 'kept', 'before')}) for a in arms for g in GOALS]
    diff = [dict(arm=a, goal=g, **interval([get(s, 'kept', 'plan', g)-get(s, 'kept', a, g) for s in said])) for a in arms if a!='plan' for g in (None, *GOALS)]
    seeds = sorted({r['seed'] for s in said for r in s['rows']})
    by_seed = {a: [round(float(np.mean([np.nanmean([r['kept'] for r in s['rows'] if r['arm']==a and r['seed']==k]) for s in said])), 3) for k in seeds] for a in SEARCH}
    chance = {n: {k: interval([np.nan if s['chance'][n][k] is None else s['chance'][n][k] for s in said]) for k in ('imagined', 'heard')} for n in said[0]['chance']}
    return dict(table=table, goals=goals, differences=diff, by_seed=by_seed, chance=chance, plain_wer=ratio([s['errors'] for s in said], [s['words'] for s in said]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--n', type=int, default=20); p.add_argument('--seeds', type=int, default=3); p.add_argument('--out', type=Path, default=ROOT/'bench'/'goals.json')
    a = p.parse_args(); torch.set_num_threads(1)
    voice, texts = Voice.load('toy-en'), generator_sentences(60+a.n, 78, 'test'); learn, use = texts[:60], texts[60:]
    reader = fit_reader(voice.model, phones_of_all(learn)); rec = Recogniser(use, generator_sentences(300, 5, 'test')); said = []
    for i, text in enumerate(use):
        path = cache_dir()/'goals'/f'{a.seeds}-{i}.json'
        s = json.loads(path.read_text()) if path.exists() else {}
        if s.get('asked')!=text:
            t = time.process_time(); s = dict(asked=text, **one(Stage(voice, reader, text), rec, a.seeds), cpu=round(time.process_time()-t, 1))
            with atomic_path(path) as f: f.write_text(json.dumps(s))
        said.append(s)
        print(f'{i+1:2} {text:60} kept', *(f"{k} {np.nanmean([r['kept'] for r in s['rows'] if r['arm']==k]):.2f}" for k in SEARCH+FIXED), f"{s['cpu']:.0f} s", flush=True)
    write(a, said, reader, voice, learn, use)


def write(a, said, reader, voice, learn, use):
    spoken = phones_of_all(use); z = latents_of(voice.model.encode, [s.mel for s in spoken], voice.model.cfg.downsample); ans = [answers_of(s) for s in spoken]
    e = np.concatenate([reader(x).numpy()[k.voiced]-12/np.log(2)*(k.pitch[k.voiced]-reader.home) for x, k in zip(z, ans, strict=True)]); e = e[abs(e)<7]
    out = dict(torch=torch.__version__, machine=platform.machine(), sentences=len(said), seeds=a.seeds, learnt_from=len(learn), home_hz=round(float(np.exp(reader.home)), 1),
               reader=dict(median_error=round(float(np.median(abs(e))), 3), mean_error=round(float(abs(e).mean()), 3)), **summary(said), one_byte=one_byte(voice, reader, use), cpu=round(sum(s['cpu'] for s in said)), said=said)
    with atomic_path(a.out) as p: p.write_text(json.dumps(out, indent=None, separators=(',', ':')).replace('},{', '},\n{')+'\n')


if __name__=='__main__': main()
