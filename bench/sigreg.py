"""How fast, how small, how exact is `sigreg`, beside the eager form of the official code? Forward and backward, one process, rounds interleaved.

    python bench/sigreg.py                     the table, and how it scales in N, M, K, D and threads (about 4 minutes on one core)
    python bench/sigreg.py --quick             the table only
    python bench/sigreg.py --json FILE         write it too
    python bench/sigreg.py --device cuda       on a GPU (wall time after synchronising, instead of CPU time)

CPU seconds are the minimum of the rounds: a busy machine only ever adds. Peak memory is that of a fresh process, less what importing and the input need.
`lejepa` joins where that package is installed.
"""
import argparse, importlib.util, json, platform, subprocess, sys, time
from pathlib import Path

import torch

from lewm_tts.core import atomic_path
from lewm_tts.sigreg import quadrature, random_directions, sigreg

BASE = dict(N=4096, D=192, M=1024, K=17)
SCALING = dict(N=(1024, 2048, 8192), M=(256, 512, 2048), K=(5, 9, 33), D=(48, 96, 384))


def eager(z, a, knots):
    "The official code's form: every sample, direction and knot in one tensor."
    t, phi, w = quadrature(knots, 3., z)
    x_t = (z@a)[..., None]*t
    err = (x_t.cos().mean(0) - phi)**2 + x_t.sin().mean(0)**2
    return ((err@w)*len(z)).mean()


def ours(z, a, knots): return sigreg(z, a, knots=knots)


def lejepa(z, a, knots):
    "The package's own test on the same projections."
    from lejepa.univariate import EppsPulley
    return EppsPulley(t_max=3., n_points=knots)(z@a).mean()


VARIANTS = dict(eager=eager, ours=ours) | (dict(lejepa=lejepa) if importlib.util.find_spec('lejepa') else {})


def inputs(N, D, M, K, device='cpu', dtype=torch.float32):
    "A cloud that is a bit too wide, and unit directions."
    g = torch.Generator().manual_seed(0)
    return (1.1*torch.randn(N, D, generator=g)).to(device, dtype), random_directions(D, M, g).to(device, dtype)


def once(f, z, a, K, device):
    "(seconds, value, gradient) of one forward and backward pass."
    clock = time.process_time if device == 'cpu' else time.perf_counter
    v = z.clone().requires_grad_()
    if device != 'cpu': torch.cuda.synchronize()
    t0 = clock(); s = f(v, a, K); s.backward()
    if device != 'cpu': torch.cuda.synchronize()
    return clock() - t0, float(s.detach()), v.grad


def times(shape, device, rounds, names=None):
    "name -> best seconds; the variants take turns."
    z, a = inputs(**shape, device=device); best = {}
    for _ in range(rounds):
        for k in names or VARIANTS: best[k] = min(best.get(k, 1e9), once(VARIANTS[k], z, a, shape['K'], device)[0])
    return best


def error(shape, device):
    "name -> (relative error of the value, of the gradient) against float64, eager, in blocks of directions."
    z, a = inputs(**shape, dtype=torch.float64); v = z.clone().requires_grad_(); value, M = 0., a.shape[1]
    for i in range(0, M, 32):
        s = eager(v, a[:, i:i+32], shape['K'])*a[:, i:i+32].shape[1]/M; s.backward(); value += float(s.detach())
    z32, a32 = z.float().to(device), a.float().to(device)
    out = {}
    for k, f in VARIANTS.items():
        _, s, g = once(f, z32, a32, shape['K'], device)
        out[k] = (abs(s/value - 1), float((g.cpu().double() - v.grad).norm()/v.grad.norm()))
    return out


def peak(name, shape, device):
    "MiB that one forward and backward pass adds to a fresh process (Linux: its high-water mark), or to the GPU."
    code = f"""import re, sys, torch; sys.path.insert(0, {str(Path(__file__).parent)!r}); torch.set_num_threads(1)
import sigreg as b
z, a = b.inputs(**{shape!r}, device={device!r}); small = b.inputs(64, {shape['D']}, 8, {shape['K']}, {device!r})
b.once(b.VARIANTS[{name!r}], *small, {shape['K']}, {device!r})
now = (lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])/1024) if {device!r} == 'cpu' else (lambda: torch.cuda.max_memory_allocated()/2**20)
before = now(); b.once(b.VARIANTS[{name!r}], z, a, {shape['K']}, {device!r}); print(now() - before)"""
    return float(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--json', metavar='FILE'); p.add_argument('--quick', action='store_true'); p.add_argument('--device', default='cpu'); p.add_argument('--rounds', type=int, default=5)
    a = p.parse_args(); torch.set_num_threads(1)
    sec, err = times(BASE, a.device, a.rounds), error(BASE, a.device)
    z, dirs = inputs(**BASE, device=a.device); gemm = min(once(lambda v, d, K: (v@d).square().mean(), z, dirs, 0, a.device)[0] for _ in range(a.rounds))
    rows = {k: dict(seconds=sec[k], times_faster=sec['eager']/sec[k], peak_mib=peak(k, BASE, a.device), value_error=err[k][0], gradient_error=err[k][1]) for k in VARIANTS}
    for k in rows: rows[k]['memory_share'] = rows[k]['peak_mib']/rows['eager']['peak_mib']
    print(f"{BASE}, forward + backward, {a.device}, torch {torch.__version__}; the matrix products alone: {gemm*1e3:.0f} ms")
    print(f"{'':8}{'ms':>8}{'faster':>9}{'MiB':>8}{'share':>8}{'value err':>11}{'grad err':>10}")
    for k, r in rows.items(): print(f"{k:8}{r['seconds']*1e3:8.0f}{r['times_faster']:8.1f}x{r['peak_mib']:8.0f}{r['memory_share']:8.3f}{r['value_error']:11.1e}{r['gradient_error']:10.1e}", flush=True)
    out = dict(command=' '.join(['python bench/sigreg.py', *sys.argv[1:]]), machine=platform.machine(), device=a.device, torch=torch.__version__, shape=BASE, gemm_seconds=gemm, rows=rows, scaling=[])
    for name, values in ({} if a.quick else SCALING).items():
        for v in values:
            s = {**BASE, name: v}; t = times(s, a.device, 2, ('eager', 'ours')); out['scaling'].append(dict(**s, threads=1, **t, times_faster=t['eager']/t['ours']))
            print(f"{name}={v:5}  eager {t['eager']*1e3:7.0f} ms   ours {t['ours']*1e3:6.0f} ms   {t['eager']/t['ours']:5.1f}x", flush=True)
    for n in () if a.quick or a.device != 'cpu' else (1, 2):
        torch.set_num_threads(n); z, dirs = inputs(**BASE); best = {}
        for _ in range(3):
            for k in ('eager', 'ours'): t0 = time.perf_counter(); once(VARIANTS[k], z, dirs, BASE['K'], a.device); best[k] = min(best.get(k, 1e9), time.perf_counter() - t0)
        out['scaling'].append(dict(**BASE, threads=n, clock='wall', **best, times_faster=best['eager']/best['ours']))
        print(f"{n} thread{'s'*(n > 1)}  eager {best['eager']*1e3:7.0f} ms   ours {best['ours']*1e3:6.0f} ms   {best['eager']/best['ours']:5.1f}x   (wall time)", flush=True)
    if a.json:
        with atomic_path(a.json) as f: f.write_text(json.dumps(out, indent=1) + '\n')


if __name__ == '__main__': main()
