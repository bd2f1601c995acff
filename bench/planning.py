"""World models: train them, plan with them, count what tokens cost.

    python bench/planning.py train            data/planning: models, their decoders, log.json (about an hour of CPU for all seven; resumable)
    python bench/planning.py train two-sub-0  one of them
    python bench/planning.py plan             success on unseen pairs: bench/planning.json
    python bench/planning.py tokens           seconds per plan against tokens per frame: bench/planning.json

Every part keeps what the others wrote. One thread.
"""
import argparse, json, os, platform, sys, time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
ROOT = Path(__file__).resolve().parent.parent; sys.path.insert(0, str(ROOT))
import numpy as np
import torch
from lewm_tts.core import atomic_path, cache_dir
from lewm_tts.lewm import PAPER, WorldConfig, load_world, probe_r, save_world, train_decoder, train_world, worlds_dir
from lewm_tts.planning import Planner, TokenPredictor, time_plan
from lewm_tts.sigreg import effective_rank
from lewm_tts.straight import straightness
from lewm_tts.worlds import PushDisc, TwoRoom, map_reader, play, record, windows

torch.set_num_threads(1)
WORLDS = dict(two=TwoRoom, push=PushDisc)
RUNS = {f'two-{how}-{seed}': dict(subspaces=32 if how=='sub' else 0, seed=seed) for seed in range(3) for how in ('sub', 'plain')} | {'push-sub-0': dict(subspaces=16)}
OUT = ROOT/'bench'/'planning.json'


def merge(path, new):
    "Put `new` into a JSON file, by temp file and rename."
    old = json.loads(path.read_text()) if path.exists() else {}
    with atomic_path(path) as p: p.write_text(json.dumps({**old, **new}, indent=1))


def data_of(world, seed=0): return record(world, 2000, rng=np.random.default_rng((100, seed)))


def train(name):
    world = WORLDS[name.split('-')[0]](); c = WorldConfig(**RUNS[name])
    if (worlds_dir()/f'{name}.safetensors').exists(): return print(name, 'is there already; delete it to train again')
    data = data_of(world, c.seed); test = record(world, 200, rng=np.random.default_rng(991))
    look = windows(world, test, 200, np.random.default_rng(992), 11); s = world.reset(2000, np.random.default_rng(993)); frames = world.render(s)
    state = cache_dir()/'planning'/f'{name}.pt'; notes = state.with_suffix('.json')
    spent = json.loads(notes.read_text()) if notes.exists() and state.exists() else dict(seconds=0., watched=[])
    clock = [time.process_time()]

    @torch.no_grad()
    def watch(run):
        spent['seconds'] += time.process_time()-clock[0]
        m = run.model.eval(); z = m.encode(frames)
        last = {k: float(np.mean([r[k] for r in run.log[-100:]])) for k in ('pred', 'sig', 'std')}
        row = dict(step=run.step, **last, straight=straightness(list(m.encode(look.frames))).value, r=float(probe_r(z, s).min()), rank=effective_rank(z))
        spent['watched'] = [r for r in spent['watched'] if r['step']<run.step]+[row]; merge(notes, spent)
        print(name, {k: round(v, 4) for k, v in row.items()}, f"{spent['seconds']:.0f} s", flush=True)
        m.train(); clock[0] = time.process_time()

    state.parent.mkdir(parents=True, exist_ok=True)
    model = train_world(world, data, c, state, 250, watch)
    save_world(model, worlds_dir()/f'{name}.safetensors', world=name.split('-')[0])
    merge(worlds_dir()/'log.json', {name: dict(steps=c.steps, **spent)})


def eyes(name):
    "A decoder for one seed of each Two-Room: enough to look through."
    out = worlds_dir()/f'{name}-eyes.safetensors'
    if out.exists() or name not in ('two-sub-2', 'two-plain-2'): return
    world = WORLDS[name.split('-')[0]](); t = time.process_time()
    save_world(train_decoder(load_world(name), world, data_of(world, RUNS[name].get('seed', 0))), out); print(out.name, f'{time.process_time()-t:.0f} s', flush=True)


def interval(groups, n=2000):
    "Mean and 95 % bootstrap interval over seeds and, within each, pairs."
    r = np.random.default_rng(0); g = [np.asarray(x, float) for x in groups]
    draws = [np.mean([r.choice(g[k], len(g[k])).mean() for k in r.integers(len(g), size=len(g))]) for _ in range(n)]
    return dict(success=float(np.mean([x.mean() for x in g])), low=float(np.quantile(draws, .025)), high=float(np.quantile(draws, .975)), seeds=[float(x.mean()) for x in g])


def tasks(world, seed, n=50):
    rng = np.random.default_rng((77, seed)); return world.reset(n, rng), world.reset(n, rng)


def kept(key, make):
    "What `make()` returns (a dict of lists), kept in the cache: a bench that was stopped goes on."
    f = cache_dir()/'planning'/f'{key}.json'
    if not f.exists(): merge(f, make())
    return json.loads(f.read_text())


PLANNERS = {'map reader': None, 'CEM, Sub-JEPA': ('sub', {}), 'CEM, plain SIGReg': ('plain', {}), 'CEM of 50 numbers, Sub-JEPA': ('sub', dict(hold=False)),
            'CEM of 50 numbers, plain SIGReg': ('plain', dict(hold=False)), 'CEM, a look every 2 latent steps': ('sub', dict(steps=2)),
            'greedy, Sub-JEPA': ('sub', dict(how='greedy')), 'greedy, plain SIGReg': ('plain', dict(how='greedy')), 'random': ('sub', dict(how='random'))}


def solve(name, seed):
    two = TwoRoom(); start, goal = (x[:15] if 'every 2' in name else x for x in tasks(two, seed))       # two and a half times as many searches
    if name=='map reader': plan = map_reader(two, goal)
    else: kind, kw = PLANNERS[name]; plan = Planner(load_world(f'two-{kind}-{seed}'), two, goal, seed=seed, **kw)
    t = time.process_time(); ok = play(two, start, goal, plan).solved; t = time.process_time()-t
    print(f'{name} {seed}: {ok.mean():.0%} in {t:.0f} s', flush=True)
    return dict(solved=ok.tolist(), other=((start[:,0]<.5)!=(goal[:,0]<.5)).tolist(), seconds=t)


def plan(names=None):
    done = {n: [kept(f"plan-{n.replace(' ', '_').replace(',', '')}-{seed}", lambda n=n, seed=seed: solve(n, seed)) for seed in range(3)] for n in names or PLANNERS}
    if names: return
    rows = [dict(name=n, across=float(np.concatenate([np.array(d['solved'])[d['other']] for d in ds]).mean()), **interval([d['solved'] for d in ds])) for n, ds in done.items()]
    merge(OUT, dict(success=rows))


def push():
    world = PushDisc(); model, rows = load_world('push-sub-0'), []
    for name, far in (('pairs of places', False), ('where unplanned play brought it', True)):
        for how in ('cem', 'greedy', 'random'):
            solved = []
            for seed in range(3):
                start, goal = tasks(world, seed, 25)
                if far:                                       # a goal that 25 steps of unplanned play reach, the disc having moved
                    t = record(world, 2000, 25, np.random.default_rng((78, seed))); d = np.linalg.norm(t.states[:,-1,2:]-t.states[:,0,2:], axis=1)
                    start, goal = t.states[d>.1][:25,0], t.states[d>.1][:25,-1]
                solved.append(play(world, start, goal, Planner(model, world, goal, how, seed=seed)).solved); print('push', name, how, seed, solved[-1].mean(), flush=True)
            rows.append(dict(name=f'{how}, {name}', **interval(solved)))
    merge(OUT, dict(push=rows))


def tokens():
    rows = []
    for preset, c, counts in (('small', WorldConfig(), (1, 4, 16, 49, 196)), ('paper', PAPER, (1, 196))):
        for n in counts:
            torch.manual_seed(0); m = TokenPredictor(c, n).eval(); part = 1
            if preset=='paper': part = 1 if n==1 else 100                        # of 196 wide tokens a hundredth of the search: 1 of 10 iterations, 30 of 300 candidates
            s = time_plan(m, *((10, 300) if part==1 else (1, 30)), repeat=3 if n<100 else 1)*part
            rows.append(dict(device='cpu', preset=preset, tokens=n, seconds=s, measured=f'1/{part} of the search')); rows[-1]['ratio'] = s/[r for r in rows if r['preset']==preset][0]['seconds']
            print(rows[-1], flush=True)
    merge(OUT, dict(tokens=rows, machine=dict(cpu=platform.processor() or platform.machine(), torch=torch.__version__, threads=1)))


if __name__=='__main__':
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); a.add_argument('parts', nargs='+', help='train, plan, push, tokens, or names of runs')
    a.add_argument('--only', nargs='*', help='planners of the part plan'); args = a.parse_args(); parts = args.parts; worlds_dir().mkdir(parents=True, exist_ok=True)
    wrong = [p for p in parts if p not in ('train', 'plan', 'push', 'tokens', *RUNS)]
    if wrong: sys.exit(f"unknown part {wrong[0]!r}; use train, plan, push, tokens or one of {', '.join(RUNS)}")
    names = [p for p in parts if p in RUNS] or list(RUNS)
    if 'train' in parts or set(parts)&set(RUNS):
        for n in names: train(n); eyes(n)
    for part, f in (('plan', plan), ('push', push), ('tokens', tokens)):
        if part in parts: f(args.only) if part=='plan' and args.only else f()
