"""What does a fixed training budget buy? Width times depth of the model, every size trained for the same CPU seconds of one thread on the same corpus; then heard, measured and timed.

    python bench/slim.py                       trains and judges what bench/slim.json lacks, a size at a time (stop and start as you like)
    python bench/slim.py --only tiny mini      only these
    python bench/slim.py --small 8             everything an eighth: budget, corpus, sentences; for trying

The schedule follows the clock: progress is the share of the budget that is used up, so warm-up, scheduled sampling, rollouts and the end of the learning rate come at the same share of the seconds
for every size. Big models take few steps, small ones many: that is the question. One recipe for all sizes (that of `tiny`, batch 16, peak learning rate 2e-3*sqrt(192/width)); `v3c`
keeps its own losses and learning rate. A CPU second is worth less on a machine that is busy, and the sizes are trained one after the other; so at the end a training step of every size is timed in turns, and
`even_cpu_s` says what the steps taken would cost under the same load. Weights stay in out/slim/NAME, each a voice folder with the vocoder of the shipped voice.
"""
import argparse, json, math, platform, shutil, time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from lewm_tts.autopsy import distractors, test_sentences
from lewm_tts.core import UserError, atomic_path, cache_dir, make_config, voices_dir
from lewm_tts.data import Corpus, build_corpus, collate, normalise_text
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, _resample, bootstrap_ci, mcd_dtw, word_errors
from lewm_tts.model import save_model
from lewm_tts.rollout import summary, teacher_and_free
from lewm_tts.training import Run, accelerator, averaged, batch_at, begin, checkpoint, free_run_score, train_step, voice_corpus

ROOT = Path(__file__).resolve().parent.parent
_TINY = lambda w, layers, d, text=1, dec=2, enc=None, h=None: dict(width=w, layers=layers, ff=3*w, d_latent=d, text_width=h or w, text_layers=text, enc_width=enc or w, dec_width=enc or w, dec_convs=dec)
SIZES = {   # in the order they are trained
    'tiny':  {},
    'small': _TINY(128, 3, 40, text=2),
    'mini':  _TINY(96, 2, 32),
    'large': _TINY(256, 4, 48, text=3, dec=3, enc=208),
    'nano':  _TINY(72, 2, 24),
    'base':  dict(text_width=320, text_convs=3, text_layers=4, text_heads=5, d_latent=64, enc_width=320, enc_convs=4, width=384, layers=6, heads=6, ff=1024, window=256, dec_width=384, dec_convs=4),
    'v3c':   dict(preset='v3c'),
    'deep':  _TINY(144, 6, 48, text=4, dec=4),                          # as many parameters as tiny, narrower and twice as deep
}
BATCH, NOMINAL = 16, 10**6


def config(name):
    "The size under the common recipe."
    size = dict(SIZES[name]); preset = size.pop('preset', 'tiny')
    lr = {} if preset=='v3c' else dict(lr=2e-3*math.sqrt(192/make_config(preset, **size).width))
    return make_config(preset, batch=BATCH, steps=NOMINAL, **lr, **size)


def probe():
    "CPU seconds of a fixed piece of work: how fast is this core just now?"
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)); best = math.inf
    for _ in range(5):
        t = time.process_time()
        for _ in range(100): a@a
        best = min(best, time.process_time()-t)
    return best


def train(name, corpus, folder, budget, warm=.07):
    "Train for `budget` CPU seconds; (averaged model, what it took). `folder/last.pt` and `folder/used.json` let it go on after a kill."
    cfg = config(name); work = folder/'work'; work.mkdir(parents=True, exist_ok=True)
    run, log = begin(cfg, corpus, work)
    note = work/'used.json'; did = json.loads(note.read_text()) if run.step else dict(step=0, cpu=0., seen=0, wall=0., probe=[])
    if did['step']!=run.step: raise UserError(f"{note} does not belong to {work/'last.pt'}; delete {work}")
    did['probe'].append(probe()); cache = {}; t0 = saved = time.process_time(); w0 = time.time(); used = lambda: did['cpu']+time.process_time()-t0
    def save():
        nonlocal t0, w0, saved
        run.cfg = cfg; checkpoint(run, log, work); did.update(step=run.step, cpu=used(), wall=did['wall']+time.time()-w0)
        with atomic_path(note) as p: p.write_text(json.dumps(did))
        t0 = saved = time.process_time(); w0 = time.time()
    while (x := used()/budget)<1:
        steps = max(run.step+1, round(run.step/x)) if run.step else NOMINAL                  # so that step/steps is the share of the budget
        run.cfg = replace(cfg, steps=steps, warmup=max(1, round(warm*steps)))
        b = batch_at(corpus, cfg, run.step, cache); row = train_step(run, b)
        log.add(run.step-1, row); did['seen'] += len(b.text)
        if time.process_time()-saved>120: save()
        if run.step%100==0: print(f"  {name} {100*used()/budget:.0f} %, step {run.step}, loss {row['loss']:.3f}", flush=True)
    save(); did['probe'].append(probe())
    run.cfg = replace(cfg, steps=run.step, warmup=max(1, round(warm*run.step)))
    model = averaged(run); model.cfg = run.cfg
    return model, did


@torch.no_grad()
def validation(model, held):
    "Losses on utterances that were held out: free-running under reference timing, and teacher-forced."
    out = free_run_score(held, 64)(model, 0)
    b = collate([held[int(i)] for i in np.linspace(0, len(held)-1, 64)], model.cfg.downsample)
    parts = model.losses(b)[1]
    return {k: round(float(v), 5) for k, v in (out|{f'loss_{k}': v for k, v in parts.items()}).items()}


def parameters(model):
    "By part; `speaking` is what a voice needs, without the audio encoder."
    n = {k: sum(p.numel() for p in m.parameters()) for k, m in model.named_children()}
    out = dict(text=n['text'], encoder=n['enc'], predictor=n['pred'], decoder=n['dec'], durations=n.get('dur', 0))
    return out|dict(all=sum(out.values()), speaking=sum(out.values())-n['enc'])


def speak(voice, text):
    "Whatever comes, without guards; None if it is too short to be sound."
    try: return voice.speak(text, check=False)
    except UserError: return None


class Judge:
    "The same sentences, the same teacher and the same ears for every size."
    def __init__(self, n, folder):
        self.kinds = test_sentences(n); self.refs, self.ears, self.truth = {}, {}, {}
        for k, texts in self.kinds.items():
            corpus = Corpus(build_corpus(texts, folder/f'{k}-{n}', progress=False, workers=1))
            others = [x for o in self.kinds for x in self.kinds[o] if o!=k]+distractors(2000)
            rec = Recogniser([normalise_text(t) for t in texts], [normalise_text(t) for t in others])
            self.refs[k] = [u for u in corpus if u.text not in set(rec.excluded)]; self.ears[k] = rec

    def teacher(self, vocoder):
        "WER of espeak through the vocoder: the ceiling."
        heard = {k: self.ears[k].hear_all([vocoder(u.mel[None])[0] for u in us]) for k, us in self.refs.items()}
        return self.words(heard)

    def words(self, heard):
        "Errors of each kind and of all together, with bootstrap intervals over utterances."
        out, refs, hyps = {}, [], []
        for k, h in heard.items():
            r = [u.text for u in self.refs[k]]; e = word_errors(r, h); refs += r; hyps += h
            out[k] = dict(wer=float(e[:, :3].sum()/e[:, 3].sum()), ci=bootstrap_ci(r, h), utterances=len(r), words=int(e[:, 3].sum()))
        e = word_errors(refs, hyps)
        return out|dict(all=dict(wer=float(e[:, :3].sum()/e[:, 3].sum()), ci=bootstrap_ci(refs, hyps), utterances=len(refs), words=int(e[:, 3].sum()),
                                 substituted=float(e[:, 0].sum()/e[:, 3].sum()), deleted=float(e[:, 1].sum()/e[:, 3].sum()), inserted=float(e[:, 2].sum()/e[:, 3].sum()), errors=e[:, :3].sum(1).tolist(), of=e[:, 3].tolist()))

    def __call__(self, voice):
        "Speak everything, free-running with the model's own timing, no guards."
        t0, heard, mcd, ended, ratio = time.process_time(), {}, [], [], []
        for k, us in self.refs.items():
            said = [speak(voice, u.text) for u in us]
            heard[k] = ['' if a is None else self.ears[k].hear(a.wav) for a in said]; ended += [a is not None and a.ended for a in said]
            both = [(a, u) for a, u in zip(said, us, strict=True) if a is not None]
            mcd += [mcd_dtw(a.mel, u.mel).db for a, u in both]; ratio += [len(a.mel)/len(u.mel) for a, u in both]
        s = summary(teacher_and_free(voice.model, [u for us in self.refs.values() for u in us[:16]]))
        med = lambda x: dict(median=float(np.median(x)), ci=_resample(np.median, x, 1000, 0)) if x else dict(median=math.nan, ci=None)
        return dict(wer=self.words(heard), mcd=med(mcd), duration_ratio=med(ratio), ended=float(np.mean(ended)), variance_ratio=s['variance_ratio'], mse_free=s['mse_free'], mse_teacher=s['mse_teacher'],
                    variance=s['variance'], heard={k: list(zip([u.text for u in self.refs[k]], h, strict=True))[:4] for k, h in heard.items()}, judge_cpu_s=round(time.process_time()-t0, 1))


TEXTS = ('She sells sea shells by the old lighthouse.', 'The train to the north leaves in a quarter of an hour.', 'Nobody knew what to say.')

def rtf(folders, rounds=5):
    "CPU seconds per second of sound on one thread, the least of several rounds that take turns."
    voices = {k: Voice.load(f) for k, f in folders.items()}; best = dict.fromkeys(voices, math.inf); sound = {}
    for _ in range(rounds):
        for k, v in voices.items():
            t = time.process_time(); s = sum(a.seconds for a in (speak(v, x) for x in TEXTS) if a)
            if s: best[k] = min(best[k], (time.process_time()-t)/s); sound[k] = s
    return {k: dict(rtf=round(best[k], 5), rtf_sound_s=round(sound[k], 2)) for k in sound}


def costs(names, corpus, rounds=3):
    "CPU seconds of a mean training step of each size, all sizes in turns under the same load: the least of several rounds, over short, middling and long batches."
    order = np.argsort(corpus.lengths, kind='stable'); batches = [[corpus[int(i)] for i in order[int(q*len(order))-BATCH//2:][:BATCH]] for q in (.17, .5, .83)]
    runs = {n: Run(replace(config(n), steps=1000), accelerator()) for n in names}; best = {}
    for _ in range(rounds):
        for n, run in runs.items():
            for kind, step in (('plain', 100), ('ss', 501), ('free', 900)):                # what `training.phase` does at these steps
                for k, us in enumerate(batches):
                    b = collate(us, run.cfg.downsample); run.step = step; t = time.process_time(); train_step(run, b)
                    best[n, kind, k] = min(best.get((n, kind, k), math.inf), time.process_time()-t)
    out = {}
    for n in names:
        plain, ss, free = (float(np.mean([best[n, kind, k] for k in range(3)])) for kind in ('plain', 'ss', 'free'))
        out[n] = 1/(.3/plain+.5/((plain+ss)/2)+.2/((plain+free)/2))                        # the schedule: shares of the time, every second step
    return out


def write(path, head, rows):
    with atomic_path(path) as p: p.write_text(json.dumps(head|dict(sizes=rows), indent=1)+'\n')


def table(rows):
    "One line a size."
    print(f"{'':8}{'params':>9}{'speaking':>10}{'cpu s':>7}{'even':>6}{'steps':>7}{'seen':>8}{'mel L1':>8}{'WER':>7}  {'95 %':14}{'var':>6}{'MCD':>6}{'ends':>6}{'RTF':>8}")
    for r in sorted(rows, key=lambda r: r['parameters']['all']):
        w = r['wer']['all']; lo, hi = w['ci']
        print(f"{r['name']:8}{r['parameters']['all']/1e6:8.2f}M{r['parameters']['speaking']/1e6:9.2f}M{r['cpu_s']:7.0f}{r.get('even_cpu_s', math.nan):6.0f}{r['steps']:7}{r['seen']:8}{r['validation']['score']:8.3f}{w['wer']:7.1%}  "
              f"{f'{lo:.1%} .. {hi:.1%}':14}{r['variance_ratio']:6.2f}{r['mcd']['median']:6.1f}{r['ended']:6.0%}{r.get('rtf', math.nan):8.4f}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='+', choices=SIZES); p.add_argument('--budget', type=float, default=660., help='CPU seconds of training for each size')
    p.add_argument('--n', type=int, default=40, help='sentences of each kind'); p.add_argument('--small', type=float, default=1., help='divide budget, corpus and sentences by this')
    p.add_argument('--out', default=str(ROOT/'bench'/'slim.json')); p.add_argument('--work', default=str(ROOT/'out'/'slim'))
    a = p.parse_args(); torch.set_num_threads(1); torch.set_num_interop_threads(1)
    budget, n, path, work = a.budget/a.small, max(2, round(a.n/a.small)), Path(a.out), Path(a.work)
    corpus = voice_corpus(workers=1, progress=False, small=1/a.small); tr, va = corpus.split(min(200, len(corpus)//10), seed=0)
    judge = Judge(n, cache_dir()/'slim'); vocoder = voices_dir()/'toy-en'
    head = dict(command='python bench/slim.py', budget_cpu_s=budget, batch=BATCH, seed=0, hours=round(corpus.hours, 2), utterances=len(corpus), sentences=n, torch=torch.__version__, machine=platform.machine(),
                threads=1, vocoder_parameters=sum(x.numel() for x in Voice.load().vocoder.parameters()))
    old = json.loads(path.read_text()) if path.exists() else {}
    rows = [r for r in old.get('sizes', []) if abs(r['budget_cpu_s']-budget)<1e-6]
    head['teacher'] = old['teacher'] if rows and 'teacher' in old else judge.teacher(Voice.load().vocoder)
    for name in a.only or SIZES:
        if any(r['name']==name for r in rows): continue
        folder = work/name
        model, did = train(name, tr, folder, budget)
        val = validation(model, va); n_par = parameters(model)
        save_model(model, folder, half=True)
        for f in ('vocoder.json', 'vocoder.safetensors'): shutil.copy2(vocoder/f, folder/f)
        rows.append(dict(name=name, budget_cpu_s=budget, parameters=n_par, bytes_float16=2*n_par['speaking'], bytes_int8=n_par['speaking'], cpu_s=round(did['cpu'], 1), wall_s=round(did['wall'], 1), steps=did['step'],
                         seen=did['seen'], probe_s=[round(x, 4) for x in did['probe']], validation=val, **judge(Voice.load(folder)), cfg={k: v for k, v in asdict(model.cfg).items()}))
        for r in rows: r.update(rtf({r['name']: work/r['name']}, 2).get(r['name'], {}) if 'rtf' not in r else {})
        write(path, head, rows); table(rows)
    for r in rows:                                                                                # a table from before errors were kept by utterance
        if 'errors' not in r['wer']['all'] and (work/r['name']/'model.safetensors').exists(): r.update(judge(Voice.load(work/r['name']))); write(path, head, rows)
    if rows:
        cost = costs([r['name'] for r in rows], tr)
        for r in rows: r.update(step_cpu_s=round(cost[r['name']], 4), even_cpu_s=round(cost[r['name']]*r['steps'], 1))
        times = rtf({r['name']: work/r['name'] for r in rows if (work/r['name']/'model.safetensors').exists()})
        for r in rows: r.update(times.get(r['name'], {}))
        write(path, head, rows); table(rows)


if __name__ == '__main__': main()
