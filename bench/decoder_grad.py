"""What the decoder's gradient does to the latents: the same small training with and without it, judged by prediction, rank and words.

    python bench/decoder_grad.py [--steps 700] [--seed 0] [--out bench/decoder_grad.json]

Two trainings (about 8 minutes of one core each), then free runs on unseen generator sentences under reference timing.
LeWM's authors measured 96 -> 86 % planning success when a decoder's gradient reached the encoder; here reconstruction is what makes sound.
"""
import argparse, json, multiprocessing as mp, platform, tempfile, time
from pathlib import Path


def one(job):
    "Train with `decoder_grad=grad`; figures of the result."
    grad, a, folder = job
    import torch
    from lewm_tts.core import make_config
    from lewm_tts.data import Corpus, generator_sentences
    from lewm_tts.decoder import load_vocoder
    from lewm_tts.evaluate import Recogniser, wer
    from lewm_tts.rollout import summary, teacher_and_free
    from lewm_tts.sigreg import effective_rank
    from lewm_tts.training import train
    torch.set_num_threads(1)
    t0 = time.process_time()
    cfg = make_config('tiny', steps=a.steps, seed=a.seed, decoder_grad=grad)
    model = train(cfg, Corpus(Path(folder)/'train'), Path(folder)/f'run-{grad}', progress=False)
    texts = generator_sentences(a.sentences, 0, 'test')
    utts = list(Corpus(Path(folder)/'test'))
    p = teacher_and_free(model, utts)
    voc, rec = load_vocoder(), Recogniser(texts, generator_sentences(500, 7))
    sound = lambda mel: [voc(m[k][None])[0].detach() for m, k in zip(mel, p.mel_mask, strict=True)]
    heard = {k: rec.hear_all(sound(m)) for k, m in (('vocoded reference', p.mel), ('teacher-forced', p.mel_teacher), ('free-running', p.mel_free))}
    s = summary(p)
    return dict(decoder_grad=grad, steps=a.steps, seed=a.seed, prediction_mse=s['mse_teacher'], free_mse=s['mse_free'], variance_ratio=s['variance_ratio'],
                effective_rank=effective_rank(p.z[p.mask]), d_latent=cfg.d_latent, mel_l1_free=s['mel_free'], cpu_s=round(time.process_time()-t0),
                wer={k: wer(texts, h).wer for k, h in heard.items()})


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--steps', type=int, default=700); ap.add_argument('--seed', type=int, default=0); ap.add_argument('--utterances', type=int, default=4000)
    ap.add_argument('--sentences', type=int, default=40); ap.add_argument('--out', default='bench/decoder_grad.json'); ap.add_argument('--workers', type=int, default=2)
    a = ap.parse_args()
    from lewm_tts.core import atomic_path
    from lewm_tts.data import build_corpus, generator_sentences
    with tempfile.TemporaryDirectory() as d:
        build_corpus(generator_sentences(a.utterances, 0), Path(d)/'train', keep_wav=False)
        build_corpus(generator_sentences(a.sentences, 0, 'test'), Path(d)/'test')
        with mp.get_context('spawn').Pool(a.workers) as pool: rows = pool.map(one, [(g, a, d) for g in (True, False)], chunksize=1)
    with atomic_path(a.out) as p:
        p.write_text(json.dumps(dict(command=f'python bench/decoder_grad.py --steps {a.steps} --seed {a.seed}', machine=platform.machine(), rows=rows), indent=1)+'\n')
    for r in rows: print(json.dumps(r))


if __name__ == '__main__': main()
