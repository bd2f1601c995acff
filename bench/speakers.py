"""How good are many voices in one model? People's digits, thirteen espeak voices, prompts and fitted vectors; everything again from the weights.

    python bench/speakers.py [--only digits twelve prompt strangers] [--n 24] [--out bench/speakers.json]

Needs the recordings of the Free Spoken Digit Dataset (for digits), espeak and pocketsphinx. Some ten minutes on one core.
"""
import argparse, json, random, tempfile, time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from lewm_tts.core import atomic_path, voices_dir
from lewm_tts.data import Corpus, LogMel, build_corpus, collate, generator_sentences
from lewm_tts.decoder import load_vocoder
from lewm_tts.evaluate import Recogniser, bootstrap_ci, cepstra, mcd_dtw, wer, wer_difference
from lewm_tts.model import load_model
from lewm_tts.speakers import DIGITS, VOICES, SpeakerJudge, digit_corpus, fit_speaker, go_on, hindi_sentences, join_utts, pitch

ROOT = Path(__file__).resolve().parent.parent
UNSEEN = (('en-us+steph', 175), ('en+pablo', 170))
LOGMEL = LogMel()
PARTS = ('digits', 'twelve', 'prompt', 'strangers')


def mean_interval(hits, n=1000):
    "Mean of 0s and 1s with its 95 % interval over utterances."
    x = np.asarray(hits, float); i = np.random.default_rng(0).integers(len(x), size=(n, len(x)))
    return float(x.mean()), *np.quantile(x[i].mean(1), [.025, .975]).tolist()


class DigitJudge:
    "Names a digit by the shape of its cepstrum in time; fitted to training recordings only."
    def __init__(self, utts):
        x, y = zip(*((x, y) for u in utts for x, y in zip(self.parts(u.mel, u.dur, u.text), map(DIGITS.index, u.text.split()), strict=True)), strict=True)
        x, y = torch.stack(x), torch.tensor(y); self.mean, self.std = x.mean(0), x.std(0)+1e-6
        x = F.pad((x-self.mean)/self.std, (0, 1), value=1.); w = torch.zeros(x.shape[1], 10, requires_grad=True)
        opt = torch.optim.LBFGS([w], max_iter=200, line_search_fn='strong_wolfe')
        def closure(): opt.zero_grad(); loss = F.cross_entropy(x@w, y)+3e-3*(w**2).sum(); loss.backward(); return loss
        opt.step(closure); self.w = w.detach()

    @staticmethod
    def parts(mel, dur, text, frames=12, bins=64):
        "One feature vector per word: cepstra and their loudness stretched to 12 frames."
        ends, out, i = torch.as_tensor(dur).cumsum(0), [], 1
        for word in text.split():
            a, b = int(ends[i-1].round()), int(ends[i+len(word)-1].round()); i += len(word)+1
            m = mel[a:max(a+3, b), :bins]; c = torch.as_tensor(np.concatenate([cepstra(m, 16), m.numpy().mean(1, keepdims=True)], 1)).float()
            out.append(F.interpolate(c.T[None], frames, mode='linear', align_corners=True).flatten())
        return out

    def __call__(self, mel, dur, text):
        "Share of the words named right."
        x = F.pad((torch.stack(self.parts(mel, dur, text))-self.mean)/self.std, (0, 1), value=1.)
        return [int(p)==DIGITS.index(w) for p, w in zip((x@self.w).argmax(1), text.split(), strict=True)]


def digits_table(tmp, vocoder, n):
    "Held-out recordings, the same through the vocoder, and free-running speech that says the same."
    model = load_model(ROOT/'data'/'digits').requires_grad_(False); names = json.loads((ROOT/'data'/'digits'/'card.json').read_text())['speakers']
    train, test = digit_corpus(tmp/'digits', n=120, seed=0), digit_corpus(tmp/'digits', n=n, seed=7, split='test', lo=5, hi=5)
    who, says = SpeakerJudge.fit([u.mel for u in train], train.speakers, top=64), DigitJudge(list(train))
    r = random.Random(0); rec = Recogniser(DIGITS, [' '.join(r.choices(DIGITS, k=r.randint(1, 6))) for _ in range(3000)])
    utts, texts = list(test), [u.text for u in test]
    rolls = [model.rollout(model.ids(u.text), speaker=u.speaker) for u in utts]
    coded = []
    for u in utts: b = collate([u], model.cfg.downsample); coded.append(model.decode(model.encode(b.mel, b.mel_mask).z)[0])
    ways = {'recordings, held out': ([u.wav for u in utts], [u.dur for u in utts]), 'the same, vocoded': ([vocoder(u.mel[None])[0] for u in utts], [u.dur for u in utts]),
            'the same, encoded, decoded, vocoded': ([vocoder(m[None])[0] for m in coded], [u.dur for u in utts]),
            'free-running speech': ([vocoder(x.mel[None])[0] for x in rolls], [x.dur for x in rolls])}
    rows, heard = [], {}
    for name, (wavs, durs) in ways.items():
        heard[name] = rec.hear_all(wavs); mels = [LOGMEL(torch.as_tensor(w).float()) for w in wavs]
        lo, hi = bootstrap_ci(texts, heard[name]); named = [int(who(m).argmax())==u.speaker for m, u in zip(mels, utts, strict=True)]
        row = dict(sound=name, error_share=wer(texts, heard[name]).wer, low_share=lo, high_share=hi)
        row['speaker_share'], row['speaker_low'], row['speaker_high'] = mean_interval(named)
        row['digit_share'] = float(np.mean([x for m, d, t in zip(mels, durs, texts, strict=True) for x in says(m, d, t)]))
        row['by_speaker'] = {s: dict(error=wer([t for t, u in zip(texts, utts, strict=True) if u.speaker==i], [h for h, u in zip(heard[name], utts, strict=True) if u.speaker==i]).wer,
                                     named=float(np.mean([x for x, u in zip(named, utts, strict=True) if u.speaker==i]))) for i, s in enumerate(names)}
        rows.append(row); print(json.dumps(row), flush=True)
    d = wer_difference(texts, heard['free-running speech'], heard['the same, vocoded'])
    return dict(rows=rows, strings=len(utts), digits=5*len(utts), difference=d._asdict(), judge=who.to_dict(),
                length=float(np.median([len(x.mel)/len(u.mel) for x, u in zip(rolls, utts, strict=True)])))


def spoken(tmp, voices, sentences, hindi):
    "What espeak makes of the sentences, one corpus per voice."
    return [list(Corpus(build_corpus(hindi if v.startswith('hi') else sentences, tmp/v, v, rate, workers=1, progress=False))) for v, rate in voices]


def twelve_table(tmp, vocoder, n, judge, model):
    "Each voice beside espeak's own, through the same vocoder."
    everyday = (ROOT/'data'/'everyday.txt').read_text().splitlines()[:n//2]
    sentences, rows = generator_sentences(n-len(everyday), 20, 'test')+everyday, []
    utts = spoken(tmp/'test', VOICES, sentences, hindi_sentences(n, 20, 'test'))
    rec = Recogniser(sentences, generator_sentences(1500, 7))
    for i, (v, _) in enumerate(VOICES):
        rolls = [model.rollout(model.ids(u.text), speaker=i) for u in utts[i]]
        wavs, coded = [vocoder(r.mel[None])[0] for r in rolls], [vocoder(u.mel[None])[0] for u in utts[i]]
        row = dict(voice=v, sentences=n, mcd=float(np.median([mcd_dtw(r.mel, u.mel).db for r, u in zip(rolls, utts[i], strict=True)])),
                   length=float(np.median([len(r.mel)/len(u.mel) for r, u in zip(rolls, utts[i], strict=True)])),
                   speaker_share=float(np.mean([int(judge(LOGMEL(w)).argmax())==i for w in wavs])), ended=float(np.mean([r.ended for r in rolls])))
        if not v.startswith('hi'):
            texts = [u.text for u in utts[i]]; a, b = rec.hear_all(wavs), rec.hear_all(coded); d = wer_difference(texts, a, b)
            row |= dict(error_share=wer(texts, a).wer, vocoded_share=wer(texts, b).wer, difference_share=d.value, low_share=d.low, high_share=d.high)
        else: row['right_share'] = hindi_choice(rolls, utts[i])
        rows.append(row); print(json.dumps(row, ensure_ascii=False), flush=True)
    who = [r['speaker_share'] for r in rows]
    return dict(rows=rows, speaker=float(np.mean(who)), difference=float(np.mean([r['difference_share'] for r in rows if 'difference_share' in r])))


def hindi_choice(rolls, utts, others=5):
    "Among six of espeak's sentences, is the one that was meant the nearest to what was said (cepstral distance after warping)?"
    hits = []
    for i, r in enumerate(rolls):
        near = sorted((j for j in range(len(utts)) if j!=i), key=lambda j: abs(len(utts[j].mel)-len(utts[i].mel)))[:others]    # of about the same length
        hits.append(min([i, *near], key=lambda j: mcd_dtw(r.mel, utts[j].mel).db)==i)
    return float(np.mean(hits))


def speaker_row(name, i, way, speak, texts, rec, judge, vocoder, clips, names):
    "Say all texts one way and let them be judged."
    wavs = [vocoder(speak(t, k)[None])[0] for k, t in enumerate(texts)]; p = torch.stack([judge(LOGMEL(w)) for w in wavs]).argmax(1)
    row = dict(voice=name, known='yes' if i<len(VOICES) else 'no', way=way, speaker_share=float((p==i).float().mean()), error_share=wer(texts, rec.hear_all(wavs)).wer,
               pitch=float(np.nanmedian([pitch(w) for w in wavs])), pitch_real=float(np.nanmedian([pitch(u.wav) for u in clips[:6]])), taken_for=names[int(p.mode().values)])
    print(json.dumps(row), flush=True)
    return row


def prompt_table(vocoder, n, judge, model, clips, strangers):
    "Known speakers told by number and by a prompt under *anyone*; or strangers, by a prompt, by nothing, and by a fitted vector."
    anyone, names = len(VOICES), [v for v, _ in VOICES]+[v for v, _ in UNSEEN]
    texts = generator_sentences(n//2, 21, 'test'); rec, rows = Recogniser(texts, generator_sentences(1500, 7)), []
    for i, name in enumerate(names):
        if name.startswith('hi') or strangers!=(i>=anyone): continue
        heard = [join_utts(*clips[i][2*k:2*k+2]) for k in range(len(texts))]
        ways = {'prompt': lambda t, k, heard=heard: go_on(model, heard[k], t, anyone)}
        if not strangers: ways['number'] = lambda t, k, i=i: model.rollout(model.ids(t), speaker=i).mel
        else:
            fitted, losses = fit_speaker(model, clips[i][:8], steps=60); print(name, 'fit', losses[0], losses[-1], flush=True)
            ways |= {'nothing': lambda t, k: model.rollout(model.ids(t), speaker=anyone).mel, 'fitted vector': lambda t, k, f=fitted: f.rollout(f.ids(t), speaker=anyone+1).mel}
        rows += [speaker_row(name, i, way, speak, texts, rec, judge, vocoder, clips[i], names) for way, speak in ways.items()]
    mean = {w: float(np.mean([r['speaker_share'] for r in rows if r['way']==w])) for w in {r['way'] for r in rows}}
    return dict(rows=rows, named=mean, sentences=len(texts), seconds=float(np.mean([len(u.mel)/93.75 for u in heard])))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--only', nargs='+', default=list(PARTS), choices=PARTS); ap.add_argument('--n', type=int, default=24)
    ap.add_argument('--out', default=str(ROOT/'bench'/'speakers.json')); ap.add_argument('--voice', default=str(voices_dir()/'twelve'))
    a = ap.parse_args()
    torch.set_num_threads(1); out = Path(a.out); found = json.loads(out.read_text()) if out.exists() else {}
    vocoder, t0 = load_vocoder(a.voice), time.process_time()
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d); todo = {}
        if set(a.only)-{'digits'}:
            model = load_model(a.voice).requires_grad_(False)
            clips = spoken(tmp/'clips', VOICES+UNSEEN, generator_sentences(48, 22), hindi_sentences(48, 22))       # train split: texts the judge may know
            judge = SpeakerJudge.fit([u.mel for c in clips for u in c], [i for i, c in enumerate(clips) for _ in c])
            todo = dict(twelve=lambda: twelve_table(tmp, vocoder, a.n, judge, model), prompt=lambda: prompt_table(vocoder, a.n, judge, model, clips, False),
                        strangers=lambda: prompt_table(vocoder, a.n, judge, model, clips, True))
        todo['digits'] = lambda: digits_table(tmp, vocoder, a.n)
        for k in a.only:
            found[k] = todo[k]()
            found['made'] = dict(command='python bench/speakers.py', torch=torch.__version__, threads=1, cpu_s=round(time.process_time()-t0), n=a.n)
            with atomic_path(out) as p: p.write_text(json.dumps(found, indent=1, ensure_ascii=False)+'\n')


if __name__ == '__main__': main()
