"""Several processes (gloo, CPU). SIGReg: value and gradient of every rank are those of one process that holds all rows.
A training: the losses of one process with the joined batch; more or fewer processes after a resume; one of them killed."""
import csv
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import accelerate  # noqa: F401  (here, once, and not in every process below)
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import tqdm.auto  # noqa: F401
from safetensors.torch import save_file

from lewm_tts import training
from lewm_tts.core import UserError, make_config
from lewm_tts.data import Corpus
from lewm_tts.text import text_to_ids
from lewm_tts.model import LeWMTTS
from lewm_tts.sigreg import sigreg

ROOT = Path(__file__).resolve().parent.parent

N, D = 240, 24
HOW = {'standard': {}, 'no n': dict(scale='none'), 'subspaces': dict(subspaces=4), 'masked': dict(masked=True), 'per step': dict(over='step'), 'per step, one of them empty': dict(over='step', masked=True)}


def rows(): return torch.randn(N, D, generator=torch.Generator().manual_seed(0)) * 1.2 + .3


def shares(ranks, uneven):
    "Where each rank's rows begin and end."
    cut = [0, *([N // ranks * i + (17 * i if uneven else 0) for i in range(1, ranks)]), N]
    return list(zip(cut, cut[1:], strict=False))


def call(z, start, kw, group=None):
    "The statistic of some rows; the mask and the time axis depend on the row's number in the whole batch."
    kw = dict(kw); masked = kw.pop('masked', False)
    if masked: kw['mask'] = torch.arange(start, start + len(z)) % 3 > 0
    if kw.get('over') == 'step':
        z = z.view(-1, 6, D // 6)
        if masked: kw['mask'] = kw['mask'][:, None] & (torch.arange(6) < 5)   # nobody has a sixth step
    return sigreg(z, num_slices=40, group=group, **kw)


def one_rank(rank, ranks, uneven, folder):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=ranks)
    lo, hi = shares(ranks, uneven)[rank]
    out = {}
    for name, kw in HOW.items():
        z = rows()[lo:hi].requires_grad_()
        s = call(z, lo, {**kw, 'generator': torch.Generator().manual_seed(rank + 1)}, True)   # other seeds: the first rank's directions win
        s.backward(); out[name] = (s.detach(), z.grad)
    sick = rows()[lo:hi]
    if rank == 1: sick[3, 2] = float('nan')
    try: call(sick, lo, {}, True)
    except ValueError as e: out['nan'] = str(e)
    dist.barrier(); dist.destroy_process_group()
    torch.save(out, Path(folder) / f'{rank}.pt')


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason='this torch has no gloo')
@pytest.mark.parametrize('ranks,uneven', [(2, False), (2, True), (4, True)])
def test_ranks_agree_with_one_process(ranks, uneven):
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ.get('OMP_NUM_THREADS'); os.environ['OMP_NUM_THREADS'] = '1'
        try: mp.spawn(one_rank, (ranks, uneven, folder), nprocs=ranks)
        finally: os.environ.pop('OMP_NUM_THREADS') if env is None else os.environ.__setitem__('OMP_NUM_THREADS', env)
        got = [torch.load(f'{folder}/{r}.pt') for r in range(ranks)]
    for name, kw in HOW.items():
        z = rows().requires_grad_()
        want = call(z, 0, {**kw, 'generator': torch.Generator().manual_seed(1)}); want.backward()
        for g in got: torch.testing.assert_close(g[name][0], want.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(torch.cat([g[name][1] for g in got]), z.grad, rtol=1e-5, atol=1e-5 * float(z.grad.abs().max()))
    assert all('NaN' in g['nan'] for g in got)                                                 # one rank's NaN stops all of them, in words


def test_each_share_alone_is_another_number():
    "Why it matters: the mean of the ranks' own statistics is not the statistic of the batch."
    z = rows(); lo, hi = shares(2, False)[0]; gen = lambda: torch.Generator().manual_seed(1)
    apart = sum(sigreg(z[a:b], num_slices=40, generator=gen()) for a, b in ((lo, hi), (hi, N))) / 2
    assert abs(float(apart / sigreg(z, num_slices=40, generator=gen())) - 1) > .1


# a training by several processes

MICRO = dict(text_width=32, text_convs=1, text_layers=1, text_heads=2, d_latent=16, enc_width=32, enc_convs=1, width=32, layers=1, heads=2, ff=64,
             dec_width=32, dec_convs=1, steps=12, batch=6, warmup=4)
QUIET = dict(noise=0., dec_noise=0., ss_prob=0., freeze_at=1.)        # two processes roll other dice than one: no dice
SPEAKERS, EACH = 4, 6


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "A corpus written by hand, as `prepare` would: one shard per speaker."
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp('corpus')
    g, shards = torch.Generator().manual_seed(0), []
    words = 'one two three four five six seven eight nine ten eleven twelve'.split()
    spectrum = torch.randn(259, 100, generator=g) * 2 - 5
    for s in range(SPEAKERS):
        ids = [torch.tensor(text_to_ids(' '.join(words[(7 * s + 5 * i + k) % 12] for k in range(1 + (i + s) % 3)))) for i in range(EACH)]
        mels = [spectrum[i].repeat_interleave(4, 0) + s for i in ids]
        sizes = torch.tensor([[len(m), 0, len(i), 256 * len(m)] for m, i in zip(mels, ids, strict=True)])
        save_file(dict(mel=torch.cat(mels).half(), wav=torch.zeros(0, dtype=torch.int16), dur=torch.cat([torch.full((len(i),), 4.) for i in ids]),
                       ids=torch.cat(ids).to(torch.int16), sizes=sizes), out / f'{s}.safetensors')
        shards.append(dict(file=f'{s}.safetensors', n=EACH, speaker=s))
    (out / 'manifest.json').write_text(json.dumps(dict(request={}, shards=shards, speaker=0, speakers=[f'person {s}' for s in range(SPEAKERS)])))
    return out


class Counted:
    "A corpus that notes what is read."
    def __init__(self, corpus): self.corpus, self.read = corpus, set()
    def __len__(self): return len(self.corpus)
    def __getitem__(self, i): self.read.add(int(i)); return self.corpus[i]
    def __getattr__(self, k):
        if k.startswith('__') or k == 'corpus': raise AttributeError(k)
        return getattr(self.corpus, k)


def one_process(rank, ranks, port, data, out, over, kw):
    "One of `ranks` processes that train together; leaves what it read beside `out`."
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    accelerate.PartialState._reset_state()
    corpus, code = Counted(Corpus(data)), 0
    with mock.patch.object(LeWMTTS, 'jitter', lambda self, pos: pos):
        try: training.train(make_config('tiny', **{**MICRO, 'n_speakers': SPEAKERS, **over}), corpus, out, progress=False, **kw)
        except UserError as e: (out.parent / f'error-{rank}.txt').write_text(str(e)); code = 2
    (out.parent / f'read-{rank}.json').write_text(json.dumps(sorted(corpus.read)))
    os._exit(code)


def company(ranks, data, out, over=QUIET, **kw):
    "Train with `ranks` processes; their exit codes."
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    ps = [multiprocessing.get_context('fork').Process(target=one_process, args=(r, ranks, port, data, Path(out), over, kw)) for r in range(ranks)]
    for p in ps: p.start()
    for p in ps: p.join(120)
    return [p.exitcode for p in ps]


def losses(out, name='loss'): return np.array([float(r[name]) for r in csv.DictReader(open(out / 'log.csv'))])


@pytest.fixture(scope='module')
def alone(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('alone') / 'run'
    assert company(1, data, out) == [0]
    return out


@pytest.mark.parametrize('ranks', [2, 3])
def test_a_training_by_several_is_the_training_by_one(data, alone, tmp_path, ranks):
    assert company(ranks, data, tmp_path / 'run') == [0] * ranks
    for name, tol in dict(pred=1e-4, sig=1e-4, mel=1e-4, recon=1e-4, loss=1e-3).items():      # same weights; letters and pooled pictures are not weighted exactly
        np.testing.assert_allclose(losses(tmp_path / 'run', name)[0], losses(alone, name)[0], rtol=tol, err_msg=name)
    for name in ('loss', 'pred', 'sig', 'mel'): np.testing.assert_allclose(losses(tmp_path / 'run', name), losses(alone, name), rtol=5e-3, err_msg=name)
    a, b = (training.load_model(d).state_dict() for d in (alone, tmp_path / 'run'))
    assert np.mean([float((a[k] - b[k]).abs().mean()) for k in a]) < 1e-3                       # the weights, after all steps


def test_no_process_reads_the_whole_corpus(data, tmp_path):
    assert company(2, data, tmp_path / 'run') == [0, 0]
    read = [set(json.loads((tmp_path / f'read-{r}.json').read_text())) for r in range(2)]
    assert read[0] | read[1] == set(range(SPEAKERS * EACH)) and not read[0] & read[1]
    assert [len({i // EACH for i in r}) for r in read] == [2, 2]                         # shards, of four


@pytest.mark.parametrize('ranks', [(1, 2), (2, 1)])
def test_resume_with_another_number_of_processes(data, alone, tmp_path, ranks):
    out = tmp_path / 'run'
    assert company(ranks[0], data, out, stop_at=5) == [0] * ranks[0]
    assert torch.load(out / 'last.pt', weights_only=True)['step'] == 5
    assert company(ranks[1], data, out) == [0] * ranks[1]
    np.testing.assert_allclose(losses(out), losses(alone), rtol=5e-3)


def test_noise_and_balance_with_two_processes(data, tmp_path):
    "With its dice a training by two is another one, and as good."
    both = {}
    for n in (1, 2):
        assert company(n, data, tmp_path / str(n), dict(steps=24), balance=1.) == [0] * n
        both[n] = losses(tmp_path / str(n))
    assert not np.allclose(both[1], both[2], rtol=1e-3)
    np.testing.assert_allclose(both[2], both[1], rtol=.15)
    np.testing.assert_allclose(both[2][-8:].mean(), both[1][-8:].mean(), rtol=.05)


def test_a_batch_that_cannot_be_shared(data, tmp_path):
    assert company(2, data, tmp_path / 'run', dict(batch=1)) == [2, 2]
    assert 'a batch of 1 cannot be shared by 2 processes' in (tmp_path / 'error-1.txt').read_text()


WORKER = """import argparse, functools, os, sys
from pathlib import Path
from lewm_tts import finetune
from lewm_tts.core import UserError
finetune.train = functools.partial(finetune.train, every_s=0.)       # a checkpoint after every step
p = argparse.ArgumentParser(); finetune.add_arguments(p); a = p.parse_args()
(Path(a.out).parent / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
try: sys.exit(finetune.main_train(a, MICRO))
except UserError as e: print(f'lewm-tts: {e}', file=sys.stderr, flush=True); sys.exit(2)
"""


def test_a_killed_process_ends_the_job(data, tmp_path):
    "torchrun, three processes; one dies in the middle of an epoch. The others say so once, and the checkpoint is whole."
    long = {**MICRO, 'steps': 5000}
    script, out, log = tmp_path / 'train.py', tmp_path / 'run', tmp_path / 'log'
    script.write_text(f'MICRO = {long}\n' + WORKER)
    # torchrun ends everybody as soon as it looks; on a busy machine that may be before the others could say what they saw
    words = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '3', '--monitor-interval', '5', str(script), str(data), str(out), '--patience', '0', '--quiet']
    with open(log, 'wb') as f: p = subprocess.Popen(words, env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}, cwd=tmp_path, stdout=f, stderr=subprocess.STDOUT)
    try:
        t = time.time()
        while not ((out / 'last.pt').exists() and torch.load(out / 'last.pt', weights_only=True)['step'] > 5) and p.poll() is None and time.time() - t < 150: time.sleep(.2)
        os.kill(int((tmp_path / 'pid-1').read_text()), signal.SIGKILL)
        assert p.wait(60) != 0
    finally: p.kill(); p.wait()
    said = [line for line in log.read_text(errors='replace').splitlines() if line.startswith('lewm-tts:')]
    assert len(said) == 1 and 'another process of this training ended' in said[0] and f'{out}/last.pt is whole' in said[0], log.read_text(errors='replace')
    step = torch.load(out / 'last.pt', weights_only=True)['step']
    assert step > 5 and not list(out.glob('.last.pt.*'))
    assert company(1, data, out, dict(steps=5000), stop_at=step + 2, balance=1.) == [0]     # and goes on, even alone
    assert torch.load(out / 'last.pt', weights_only=True)['step'] == step + 2
