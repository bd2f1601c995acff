"""How fast are recordings prepared, and does memory stay flat when there are more of them?

    python bench/prepare.py                    the table (about a minute on two cores)
    python bench/prepare.py --json FILE        write it too
    python bench/prepare.py --clips 200 800    other sizes of the corpus
    python bench/prepare.py --like DIR         recordings in the LJSpeech layout (copies with noise make the larger corpora); else LJSpeech-mini, else made up

Each run is a process of its own. `x real time` is seconds of recordings per second of clock on --workers processes; `x by CPU` is what the
same work would reach on as many free cores, from the CPU time of all processes: a busy machine slows the clock, hardly the CPU time.
`stages` is resample, trim, loudness, measures, clip and mel, with the words spread evenly; `listening` adds pocketsphinx's alignment of every word.
Memory is the peak of the main process and of its largest worker.
"""
import argparse, json, os, platform, resource, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import soundfile as sf

from lewm_tts.core import atomic_path, recordings_dir


def voice(seconds, seed, sr=44100):
    "A buzz in syllables with pauses, over room noise: costs what speech costs."
    r, t = np.random.default_rng(seed), np.arange(round(seconds*sr))/sr
    v = sum(np.sin(2*np.pi*120*k*t+r.uniform(0, 6))/k for k in range(1, 20))*(.55+.45*np.sin(2*np.pi*4*t))*(np.sin(2*np.pi*.4*t)>-.8)
    return (.05*v + 3e-4*r.standard_normal(len(t))).astype(np.float32)


def make(folder, clips, like):
    "A corpus of `clips` different recordings: real ones with a little noise of their own where there are any."
    folder.mkdir(parents=True)
    lines = [l.split('|') for l in (like/'metadata.csv').read_text().splitlines()] if like else []
    for i in range(clips):
        r = np.random.default_rng(i)
        if like: k, text = lines[i % len(lines)][0], lines[i % len(lines)][-1]; x, sr = sf.read(like/'wavs'/f'{k}.wav', dtype='float32'); x = x+3e-5*r.standard_normal(len(x)).astype('f4')
        else: sr, text, x = 44100, f'a sentence number {i} of some twenty words that is read aloud for nobody but the clock', voice(6.6, i)
        sf.write(folder/f'r{i:05}.wav', x, sr); (folder/f'r{i:05}.txt').write_text(text)
    return sum(sf.info(p).duration for p in folder.glob('*.wav'))


def one(src, out, workers, aligner):
    "Prepare in this process and say what it took."
    from lewm_tts.recordings import prepare
    import torchaudio  # noqa: F401   (imports are not what is measured)
    t, c = time.perf_counter(), [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    rep = prepare(src, out, workers=workers, progress=False, aligner=aligner)
    wall = time.perf_counter()-t
    u = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(b.ru_utime+b.ru_stime-a.ru_utime-a.ru_stime for a, b in zip(c, u, strict=True))
    print(json.dumps(dict(clips=rep.clips, wall=wall, cpu=cpu, main_mb=u[0].ru_maxrss/1024, worker_mb=u[1].ru_maxrss/1024)))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0]); arg = p.add_argument
    arg('--json', type=Path); arg('--clips', type=int, nargs=2, default=[100, 400]); arg('--workers', type=int, default=2); arg('--like', type=Path); arg('--one', nargs=3)
    a = p.parse_args()
    if a.one: return one(a.one[0], a.one[1], a.workers, a.one[2])
    like = a.like or (recordings_dir()/'LJSpeech-mini' if recordings_dir() and (recordings_dir()/'LJSpeech-mini').exists() else None)
    rows = []
    with tempfile.TemporaryDirectory() as d:
        for n, aligner in [(a.clips[0], 'even'), (a.clips[1], 'even'), (a.clips[0], 'pocketsphinx')]:
            src = Path(d)/f'in{n}'; seconds = sum(sf.info(f).duration for f in src.glob('*.wav')) if src.exists() else make(src, n, like)
            env = dict(os.environ, OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
            run = subprocess.run([sys.executable, __file__, '--workers', str(a.workers), '--one', str(src), f'{d}/out', aligner], env=env, capture_output=True, text=True, check=True)
            shutil.rmtree(f'{d}/out'); r = json.loads(run.stdout.splitlines()[-1])
            r |= dict(what='stages' if aligner=='even' else 'listening', recordings=n, seconds=seconds, x_wall=seconds/r['wall'], x_cpu=seconds/(r['cpu']/a.workers)); rows.append(r)
            print(f"{r['what']:10} {n:5} recordings {seconds/60:6.1f} min   {r['x_wall']:6.1f} x real time   {r['x_cpu']:6.1f} x by CPU   {r['main_mb']:5.0f} MB main   {r['worker_mb']:5.0f} MB worker")
    growth = (rows[1]['main_mb']-rows[0]['main_mb'])/(a.clips[1]-a.clips[0])*1000
    print(f"main process: {growth:+.0f} kB per recording")
    if a.json:
        with atomic_path(a.json) as tmp: tmp.write_text(json.dumps(dict(workers=a.workers, cpu=platform.processor() or platform.machine(), load=os.getloadavg()[0], source=like.name if like else 'made up',
            kb_per_recording=growth, rows=rows), indent=1))


if __name__ == '__main__': main()
