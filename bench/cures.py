"""Which cure helps a free run how much? Every arm of `lewm_tts.cures.ARMS`, same budget, three seeds; about a minute a run on one core.

    python bench/cures.py                 runs what bench/cures.json lacks, a run at a time (stop and start as you like)
    python bench/cures.py --fresh         throws the old rows away first
    python bench/cures.py --ward          trains and judges the ward instead: data/ward/ and bench/ward.json
"""
import argparse, json, platform
from pathlib import Path

import torch

from lewm_tts.core import atomic_path
from lewm_tts.cures import ARMS, PATIENTS, Judge, run_arm, train_patient, ward_corpus
from lewm_tts.model import load_model

ROOT = Path(__file__).resolve().parent.parent


def write(path, command, judge, rows):
    "The table so far, by temp file and rename."
    with atomic_path(path) as p:
        p.write_text(json.dumps(dict(command=command, torch=torch.__version__, machine=platform.machine(), threads=torch.get_num_threads(), sentences=len(judge.utts),
                                     words=sum(len(u.text.split()) for u in judge.utts), wer_vocoded=judge.wer_vocoded, rows=rows), indent=1) + '\n')


def cures(path, judge, train, seeds, steps):
    "Missing runs, seeds outermost so that a half-finished table is a fair one."
    rows = json.loads(path.read_text())['rows'] if path.exists() else []
    for seed in range(seeds):
        for name in ARMS:
            if any((r['arm'], r['seed'], r['steps']) == (name, seed, steps) for r in rows): continue
            rows.append(run_arm(name, seed, train, judge, steps))
            print(f"{name:24} seed {seed}  WER free {rows[-1]['wer_free']:.3f}  teacher-forced {rows[-1]['wer_teacher']:.3f}", flush=True)
            write(path, 'python bench/cures.py', judge, rows)


def ward(path, judge, train):
    "Train the patients that are not there; judge all of them."
    rows = []
    for name, (what, disease, *_) in PATIENTS.items():
        folder = ROOT/'data'/'ward'/name
        if not (folder/'model.safetensors').exists(): train_patient(name, folder, train)
        card = json.loads((folder/'card.json').read_text())
        rows.append(dict(patient=name, what=what, disease=disease, **{k: card[k] for k in ('steps', 'seed', 'seconds', 'parameters')}, **judge(load_model(folder))))
        print(f"{name:12} WER free {rows[-1]['wer_free']:.3f}  teacher-forced {rows[-1]['wer_teacher']:.3f}", flush=True)
    write(path, 'python bench/cures.py --ward', judge, rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, default=3); p.add_argument('--steps', type=int, default=250)
    p.add_argument('--fresh', action='store_true'); p.add_argument('--ward', action='store_true')
    a = p.parse_args(); torch.set_num_threads(1)
    path = ROOT/'bench'/('ward.json' if a.ward else 'cures.json')
    if a.fresh: path.unlink(missing_ok=True)
    train = ward_corpus()
    judge = Judge(ward_corpus('test', 400), train.texts)
    ward(path, judge, train) if a.ward else cures(path, judge, train, a.seeds, a.steps)


if __name__ == '__main__': main()
