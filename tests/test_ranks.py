"""SIGReg over several ranks (gloo, CPU): value and gradient of every rank are those of one process that holds all rows."""
import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lewm_tts.sigreg import sigreg

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
