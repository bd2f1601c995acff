"""How far does the shipped voice go? A thousand unseen utterances, failures by length, and three minutes in one rollout.

    python bench/limits.py [--only thousand lengths minutes] [--n 1000] [--each 64] [--words 525] [--out bench/limits.json]

Free-running with predicted timing, temperature 0, no retries. Every part keeps its utterances in `--work` as it goes: the same command goes on after an interruption.

A failure is any of: not ended before the cap; duration outside .75 to 1.3 of espeak's; nothing heard; more words wrong than in espeak through the same vocoder,
beyond a tenth of the words (at least 1). For up to 3 words: any word wrong, counted only where the vocoded espeak is understood.
"""
import argparse, json, math, time
from pathlib import Path

import numpy as np
import torch

from lewm_tts.autopsy import longest
from lewm_tts.core import atomic_path, cache_dir, recordings_dir
from lewm_tts.data import Corpus, build_corpus, clauses, collate, generator_sentences
from lewm_tts.text import BOS, normalise_text
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, word_errors
from lewm_tts.script import split_text
from lewm_tts.training import HELD_OUT, _repository, voice_texts

LENGTHS = (1, 2, 3, 5, 10, 20, 40)


# ---------------------------------------------------------------------------------------------- texts

def sources():
    "Sentences no voice of ours was trained on: held-out chapters, everyday sentences, held-out combinations of the generator."
    rec, seen = recordings_dir(), {t for x, _ in voice_texts().values() for t in x}
    out = dict(clauses=clauses(rec/'ljspeech_text.csv', chapters=lambda c: c in HELD_OUT) if rec else [],
               everyday=[normalise_text(t) for t in (_repository()/'data'/'everyday.txt').read_text().splitlines()], generator=generator_sentences(1000, 30, 'test'))
    return {k: [t for t in v if t not in seen] for k, v in out.items()}, seen


def cut(sentences, n, k, seen, seed):
    "`k` different texts of exactly `n` words: a run of sentences from a random one, or a random part of one where `n` is small."
    r, out = np.random.default_rng([seed, n]), {}
    for _ in range(4000):
        if len(out) == k: break
        i, words = int(r.integers(len(sentences))), []
        if n <= 3:
            words = sentences[i].split(); j = int(r.integers(0, max(1, len(words)-n+1))); words = words[j:j+n]
        else:
            while len(words) < n and i < len(sentences): words += sentences[i].split(); i += 1
        text = ' '.join(w for w in words[:n] if any(c.isalpha() for c in w)).strip(",.?!;: '-")
        if len(text.split()) == n and not {text, text+'.'} & seen: out[text+'.'] = None
    return list(out)


def by_length(src, seen, each):
    "{n: texts}: a third each from the three sources, as far as they go."
    out = {}
    for n in LENGTHS:
        t = [x for j, s in enumerate(('everyday', 'clauses')) if src[s] for x in cut(src[s], n, each//3, seen, j)]
        t = list(dict.fromkeys(t)); out[n] = t + [x for x in cut(src['generator'], n, each, seen, 2) if x not in t][:each-len(t)]
    return out


# ---------------------------------------------------------------------------------------------- meters

def loops(z):
    "Largest normalised autocorrelation of a path (t, d) at lags 5 to t/3: 1 for a perfect loop."
    z = z-z.mean(0); t = len(z)
    r = [float((z[:-l]*z[l:]).sum()/(z[:-l].norm()*z[l:].norm()).clamp(min=1e-9)) for l in range(5, t//3+1)]
    return max(r, default=0.)


def stuck(pos):
    "Most steps in a row on one id."
    at = pos.floor(); return 1+longest((at[1:] == at[:-1]).tolist())


def measure(voice, text, utt, one_go=False):
    "Speak a text, split as the engine does or in one rollout; (row, wav)."
    model = voice.model
    with torch.no_grad():
        if one_go: parts = [model.rollout(model.ids(text))]; wav = voice.vocoder(parts[0].mel[None])[0]
        else: a = voice.speak(text); parts, wav = a.parts, a.wav
        b = collate([utt], model.cfg.downsample); real = model.encode(b.mel, b.mel_mask).z[0]
    z, still = torch.cat([p.z for p in parts]), .25*float(real.diff(dim=0).norm(dim=-1).median())
    static = lambda x: longest((x.diff(dim=0).norm(dim=-1) < still).tolist())
    row = dict(text=text, words=len(text.split()), pieces=len(parts), ended=all(p.ended for p in parts), guards={k: sum(p.guards[k] for p in parts) for k in parts[0].guards},
               seconds=round(len(wav)/24000, 2), duration=round(sum(len(p.mel) for p in parts)/len(utt.mel), 4),
               loop=round(max(loops(p.z) for p in parts)-loops(real), 4), static=static(z), static_real=static(real), stuck=max(stuck(p.pos) for p in parts),
               stuck_real=math.ceil(float(utt.dur.max())/model.cfg.downsample), norm=round(float((z.norm(dim=-1)/z.shape[1]**.5).median()), 4))
    return row, wav


def listen(voice, rec, row, wav, utt):
    "Add what was heard and the words wrong; the vocoded reference is asked only where a word went wrong."
    row['heard'] = rec.hear(wav); e = word_errors([row['text']], [row['heard']])[0]
    row.update(wrong=int(e[:3].sum()), deleted=int(e[1]))
    if row['wrong']:
        with torch.no_grad(): row['heard_reference'] = rec.hear(voice.vocoder(utt.mel[None])[0])
        row['wrong_reference'] = int(word_errors([row['text']], [row['heard_reference']])[0][:3].sum())
    return row


def cut_off(text, heard):
    "Does the alignment of the words end with one that is missing?"
    import jiwer
    from lewm_tts.evaluate import words_of
    return jiwer.process_words(' '.join(words_of(text)), ' '.join(words_of(heard))).alignments[0][-1].type == 'delete'


def verdict(r):
    "Names of what went wrong with an utterance; '?' where it cannot be judged."
    n, out = r['words'], []
    if not r['ended']: out.append('runaway')
    if not .75 <= r['duration'] <= 1.3: out.append('duration')
    ref, wrong = r.get('wrong_reference', 0), r['wrong']
    if n <= 3 and wrong and ref: return out or ['?']
    if not r['heard'] and r.get('heard_reference', 'x'): out.append('nothing heard')
    if wrong-ref > (0 if n <= 3 else max(1, math.floor(.1*n))): out.append('words')
    return out


def collapse_counts(rows):
    "Part 1: the four ways an autoregressive voice collapses, by the alarms of the autopsy."
    real = lambda r, k, limit: r[k] > limit and r[k] > r[k+'_real']+3
    return dict(utterances=len(rows), runaway=sum(not r['ended'] for r in rows), loop=sum(r['loop'] > .35 for r in rows), static=sum(real(r, 'static', 10) for r in rows),
                stuck_pointer=sum(real(r, 'stuck', 10) for r in rows), too_long=sum(r['duration'] > 1.3 for r in rows),
                early_stop=sum(r['duration'] < .75 or (cut_off(r['text'], r['heard']) and not cut_off(r['text'], r.get('heard_reference', r['text']))) for r in rows),
                nothing_heard=sum(not r['heard'] and bool(r.get('heard_reference', 'x')) for r in rows), guards={k: sum(r['guards'][k] for r in rows) for k in rows[0]['guards']},
                words_failed=sum('words' in verdict(r) for r in rows), failed=sum(verdict(r) not in ([], ['?']) for r in rows))


# ---------------------------------------------------------------------------------------------- the parts

def run(voice, texts, work, name, one_go=False, others=(), chunk=50):
    "Rows of all texts, kept in `work/name.json` after every `chunk`."
    f = work/f'{name}.json'; rows = json.loads(f.read_text()) if f.exists() else []
    rec = Recogniser(texts, others); texts = [t for t in texts if t not in set(rec.excluded)]
    utts = Corpus(build_corpus(texts, work/f"speech-{name.split('-')[0]}-{len(texts)}", progress=False, workers=1))
    for i in range(len(rows), len(texts), chunk):
        for k in range(i, min(i+chunk, len(texts))):
            row, wav = measure(voice, texts[k], utts[k], one_go); rows.append(listen(voice, rec, row, wav, utts[k]))
        with atomic_path(f) as p: p.write_text(json.dumps(rows))
        print(f'{name}: {len(rows)} of {len(texts)}', flush=True)
    return rows


def thousand(voice, src, seen, work, n):
    texts = (src['everyday']+src['clauses'])[:n]; texts = list(dict.fromkeys(texts)); texts += src['generator'][:n-len(texts)]
    rows = run(voice, texts, work, f'thousand{n}', others=generator_sentences(500, 7))
    bad = [dict(text=r['text'], heard=r['heard'], reference=r.get('heard_reference'), why=verdict(r), duration=r['duration']) for r in rows if verdict(r) not in ([], ['?'])]
    top = lambda k: round(max(r[k] for r in rows), 3)
    return dict(collapse_counts(rows), kinds={k: sum(r['text'] in set(v) for r in rows) for k, v in src.items()}, worst=dict(loop=top('loop'), static=top('static'), stuck=top('stuck')),
                duration=[min(r['duration'] for r in rows), max(r['duration'] for r in rows)], failures=bad)


def lengths(voice, src, seen, work, each):
    table, out = by_length(src, seen, each), []
    for n, texts in table.items():
        others = [t for m, ts in table.items() if m != n for t in ts]
        for way in ('one go', 'split') if sum(len(split_text(normalise_text(t))) > 1 for t in texts) > len(texts)/2 else ('one go',):
            rows = run(voice, texts, work, f"words{n}-{each}-{way.replace(' ', '')}", way == 'one go', others, 16)
            v = [verdict(r) for r in rows]; judged = [x for x in v if x != ['?']]
            out.append(dict(words=n, way=way, texts=len(rows), judged=len(judged), failed=sum(bool(x) for x in judged), why={w: sum(w in x for x in judged) for w in ('runaway', 'duration', 'words', 'nothing heard')},
                            seconds=round(float(np.mean([r['seconds'] for r in rows])), 2), letters=round(float(np.mean([len(t) for t in texts])), 1),
                            failures=[dict(text=r['text'], heard=r['heard'], reference=r.get('heard_reference'), why=x, duration=r['duration']) for r, x in zip(rows, v, strict=True) if x and x != ['?']][:12]))
            print(json.dumps({k: x for k, x in out[-1].items() if k != 'failures'}), flush=True)
    return out


class InPieces:
    "A model whose text memory is made piece by piece, wherever a BOS begins one; everything else is the model's."
    def __init__(self, model): self.model = model

    def __call__(self, ids, mask=None, speaker=None):
        edges = [*(ids[0] == BOS).nonzero()[:, 0].tolist(), ids.shape[1]]
        return torch.cat([type(self.model).memory(self.model, ids[:, a:b], None, speaker)[0] for a, b in zip(edges, edges[1:], strict=False)], 1), None


def one_rollout(voice, pieces, way):
    "Latents, pointer, CPU seconds spent up to each step, and the range of ids of each piece."
    import copy
    model, ids, spans = copy.copy(voice.model), [], []
    if way == 'whole':
        text, at = ' '.join(pieces), 1; ids = model.ids(text)
        for p in pieces: spans.append((at, at+len(p))); at += len(p)+1
    else:
        model.memory = InPieces(voice.model)
        for p in pieces: i = voice.model.ids(p); spans.append((sum(map(len, ids)), sum(map(len, ids))+len(i))); ids.append(i)
        ids = torch.cat(ids)
    zs, at, clock, t0 = [], [], [], time.process_time()
    for z, pos, *_ in model.steps(ids): zs.append(z); at.append(pos); clock.append(time.process_time()-t0)
    return torch.stack(zs), np.array(at), np.array(clock), spans, len(zs) < model.cap(len(ids))


def minutes(voice, src, seen, work, words):
    stream = src['clauses'] or src['everyday']; n, text = 0, []
    for s in stream:
        if n >= words: break
        text.append(s if s[-1] in '.?!,' else s+','); n += len(s.split())
    pieces = split_text(' '.join(text)); model = voice.model
    rec = Recogniser(pieces, generator_sentences(500, 7))
    utts = Corpus(build_corpus(pieces, work/f'speech-minutes-{n}', progress=False, workers=1))
    with torch.no_grad():
        real = [model.encode(b.mel, b.mel_mask).z[0] for b in (collate([u], model.cfg.downsample) for u in utts)]
        heard_ref = [rec.hear(voice.vocoder(u.mel[None])[0]) for u in utts]
    e_ref = word_errors(pieces, heard_ref); out = dict(words=n, pieces=len(pieces), letters=len(' '.join(pieces)), ways={})
    tenths = lambda x: np.array_split(np.arange(len(x)), 10)
    real = torch.cat(real)
    out['real'] = dict(seconds=round(len(real)/model.cfg.latent_hz, 1), variance=[float(real[t].var(0).mean()) for t in tenths(real)], wrong=int(e_ref[:, :3].sum()))
    for way in ('whole', 'pieces', 'split'):
        if way == 'split':
            z, at, clock, spans, ended = [], [], [], [], True; t0 = time.process_time(); base = 0
            for p in pieces:
                for x, pos, *_ in model.steps(model.ids(p)): z.append(x); at.append(base+pos); clock.append(time.process_time()-t0)
                spans.append((base, base+len(p)+2)); base += len(p)+2
            z, at, clock = torch.stack(z), np.array(at), np.array(clock)
        else: z, at, clock, spans, ended = one_rollout(voice, pieces, way)
        with torch.no_grad(): mel = model.decode(z[None])[0]
        heard, mid, d = [], [], model.cfg.downsample
        for a, b in spans:
            k = np.flatnonzero((at >= a) & (at < b))
            with torch.no_grad(): heard.append(rec.hear(voice.vocoder(mel[None, k[0]*d:(k[-1]+1)*d])[0]) if len(k) > 4 else '')
            mid.append(k.mean() if len(k) else at.searchsorted(a))
        e = word_errors(pieces, heard); ts = tenths(z); part = np.minimum(9, np.array(mid)*10//len(z)).astype(int)
        step_s = np.diff(clock, prepend=0.); norm = z.norm(dim=-1)/z.shape[1]**.5
        r = dict(ended=bool(ended), steps=len(z), seconds=round(len(z)/model.cfg.latent_hz, 1), variance=[float(z[t].var(0).mean()) for t in ts], norm=[float(norm[t].median()) for t in ts],
                 motion=[float(z[t].diff(dim=0).norm(dim=-1).median()) for t in ts], norm_guard=int((norm > 2.2).sum()), rtf=[round(float(step_s[t].sum()*model.cfg.latent_hz/len(t)), 4) for t in ts],
                 wrong=[int(e[part == i, :3].sum()) for i in range(10)], wrong_reference=[int(e_ref[part == i, :3].sum()) for i in range(10)], words=[int(e[part == i, 3].sum()) for i in range(10)])
        r['last_over_first'] = r['variance'][-1]/r['variance'][0]
        r['heard'] = heard[-6:]; out['ways'][way] = r
        print(way, json.dumps({k: v for k, v in r.items() if k != 'heard'}), flush=True)
    out['real']['last_over_first'] = out['real']['variance'][-1]/out['real']['variance'][0]
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--only', nargs='+', default=['thousand', 'lengths', 'minutes'], choices=['thousand', 'lengths', 'minutes'])
    ap.add_argument('--n', type=int, default=1000); ap.add_argument('--each', type=int, default=64); ap.add_argument('--words', type=int, default=525)
    ap.add_argument('--out', default='bench/limits.json'); ap.add_argument('--work'); ap.add_argument('--voice')
    a = ap.parse_args()
    torch.set_num_threads(1)
    work = Path(a.work) if a.work else cache_dir()/'limits'; work.mkdir(parents=True, exist_ok=True)
    src, seen = sources(); voice = Voice.load(a.voice)
    parts = dict(thousand=(thousand, a.n), lengths=(lengths, a.each), minutes=(minutes, a.words))
    for name in a.only:
        fn, size = parts[name]; got = fn(voice, src, seen, work, size)
        out = json.loads(Path(a.out).read_text()) if Path(a.out).exists() else dict(command='python bench/limits.py')
        out[name] = got
        with atomic_path(a.out) as p: p.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
