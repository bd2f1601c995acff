"""How fast is the engine, beside Pocket TTS of the same size? Real-time factor, time to first sound, batching, memory, cold start, in one interleaved run.

    python bench/engine.py                       the table (about 4 minutes on one core)
    python bench/engine.py --quick               two rounds, real-time factor and first sound only
    python bench/engine.py --json FILE           write it too
    python bench/engine.py --peers PYTHON        interpreter that has pocket-tts==4.0.1 (default: this one); its columns stay empty where it has not

Process CPU seconds, one thread, minimum of the rounds; the two sides take turns, each in a process of its own. Read every figure as +-15 %.
Pocket TTS (Kyutai, MIT) is built with random weights from its PyPI wheel: the work does not depend on the values. Its end-of-speech test is disabled, so that 12 words
always become 4.0 s, as long as our voice takes for them; its tokeniser is replaced by one token per word (fewer than the real one makes). Its voice prompt is prepared
beforehand. Its first chunk is timed with the generation limited to that chunk, because its decoder thread otherwise shares the clock with frames nobody asked for yet.
"""
import argparse, json, os, platform, subprocess, sys, time
from pathlib import Path

TEXT = 'the quiet river turned to silver under the first light of dawn.'   # 12 words
SIZES = {'2M': 'english_2m_2026-10', '7M': 'english_7m_2026-10', '18M': 'english_18m_2026-10', '100M': 'english_2026-10'}
SECONDS = 4.                                                               # of sound for models without a sense of length
SIXTEEN = ['the morning train was late again.', 'she opened the window and listened.', 'nobody came to the old house.', 'seven boats left the harbour today.',
           'he wrote a letter to his brother.', 'the garden was quiet after the rain.', 'we had bread and soup for dinner.', 'my sister plays the violin well.',
           'a small dog slept by the door.', 'they walked along the river home.', 'the doctor will see you on monday.', 'please close the gate behind you.',
           'winter came early to the valley.', 'the children laughed at the clown.', 'her ticket was still in the drawer.', 'two friends met near the bridge.']

BATCHES = ((0, 1), (1, 16), (2, 8))                                        # threads (0: one by one), lanes in each


def clocks(f):
    "(CPU seconds, wall seconds, what f returned)."
    t, w = time.process_time(), time.perf_counter(); r = f()
    return time.process_time()-t, time.perf_counter()-w, r


# ---------------------------------------------------------------------------------------------- our side, in a worker

class Ours:
    "The shipped voice and one of v3c's size with random weights and a vocoder as large as the published Vocos."
    def __init__(self, sizes):
        import torch
        from lewm_tts.core import make_config, set_seed, voices_dir
        from lewm_tts.decoder import SmallVocos, load_small_vocoder
        from lewm_tts.engine import Voice
        from lewm_tts.model import LeWMTTS
        torch.set_num_threads(1); set_seed(0)
        self.torch, self.voices = torch, {'tiny': Voice.load()}
        big, vocos = LeWMTTS(make_config('v3c')), SmallVocos(512, 8, 1536).eval().requires_grad_(False)
        steps = round(SECONDS*big.cfg.latent_hz); big.cap = lambda n, speed=1.: steps               # random weights have no sense of length
        torch.nn.init.constant_(big.pred.stop.bias, -1e4)
        self.voices |= {'v3c': Voice(big, vocos), 'v3c-f16': Voice(big, vocos, dtype=torch.float16)}
        self.vocoders = dict(tiny=load_small_vocoder(voices_dir()/'toy-en'), v3c=vocos)   # the readable ones, for counting
        self.how = {k: {} if k == 'tiny' else dict(check=False) for k in self.voices}     # the guards rightly refuse noise

    def info(self):
        n = lambda m: sum(p.numel() for p in m.parameters())
        return dict(torch=self.torch.__version__, params={k: dict(model=n(self.voices[k].model), vocoder=n(v)) for k, v in self.vocoders.items()})

    def rtf(self, who):
        "The whole sentence, streamed: text to samples."
        with self.torch.no_grad(): cpu, wall, n = clocks(lambda: sum(len(c.wav) for c in self.voices[who].stream(TEXT, **self.how[who])))
        return dict(cpu=cpu, wall=wall, seconds=n/24000)

    def first(self, who):
        "Up to the first samples, from a warm start."
        s = self.voices[who].stream(TEXT, **self.how[who])
        with self.torch.no_grad(): cpu, wall, c = clocks(lambda: next(s))
        s.close()
        return dict(cpu=cpu, wall=wall, seconds=len(c.wav)/24000)

    def batch(self, threads=1, lanes=1, share=0):
        "Sixteen sentences one after the other (no threads), or in one batch; `share` 1 or 2: every second one."
        v, texts = self.voices['tiny'], SIXTEEN[share-1::2] if share else SIXTEEN
        cpu, wall, n = clocks(lambda: sum(a.seconds for a in (v.batch(texts, lanes=lanes, threads=threads) if threads else [v.speak(t) for t in texts])))
        return dict(cpu=cpu, wall=wall, seconds=n)

    def steps(self, at=(50, 5000), wide=40):
        "CPU seconds of one predictor step around the given steps of one long rollout."
        from lewm_tts.fast import Fast
        torch, m, out = self.torch, self.voices['tiny'].model, {}
        n = max(at)+wide//2; memory, _ = m.memory(m.ids(TEXT)[None]); fast, z = Fast(m.pred), m.pred.bos[None]
        fast.join(memory.detach(), torch.linspace(0, memory.shape[1]-1, n)[None])
        for i in range(n):
            t = time.process_time(); z = fast.step(z)[:, :m.cfg.d_latent].clone(); t = time.process_time()-t
            for a in at:
                if abs(i-a) < wide/2: out.setdefault(a, []).append(t)
        return {a: sum(sorted(t)[:len(t)//2])/(len(t)//2) for a, t in out.items()}         # mean of the faster half


def roofline(o):
    "What a second of speech must move and multiply, what this core can move and multiply, and the floor that follows."
    torch = o.torch
    from torch.utils.flop_counter import FlopCounterMode
    best = lambda f, n=7: min(clocks(f)[0] for _ in range(n))
    def gemv(width, blocks):                                          # one row through different square layers, as a step does
        ws, x = [torch.randn(width, width) for _ in range(blocks)], torch.randn(1, width)
        def go():
            for _ in range(20):
                for w in ws: x@w
        return 20*blocks*width*width*4/best(go)/1e9
    a, b = torch.randn(256, 1024), torch.randn(1024, 1024)
    flops = 20*2*256*1024*1024/best(lambda: [a@b for _ in range(20)])/1e9
    rates, out = dict(gemm_gflops=flops), {}
    def count(f, *x):
        with FlopCounterMode(display=False) as k: r = f(*x)
        return k.get_total_flops(), r
    with torch.no_grad():
        for who in o.vocoders:
            m, c = o.voices[who].model, o.voices[who].model.cfg
            step = [p for n, p in m.pred.named_parameters() if '.cross.kv' not in n]
            weights, f_step = 4*sum(p.numel() for p in step), 2*sum(p.numel() for p in step if p.ndim == 2)
            rates[f'gemv_gb_s_{who}'] = rate = gemv(c.width, max(1, weights//(4*c.width**2)))
            f_text, (memory, _) = count(m.memory, m.ids(TEXT)[None])
            f_dec, mel = count(m.decode, torch.randn(1, round(SECONDS*c.latent_hz), c.d_latent)); f_voc, _ = count(o.vocoders[who], mel)
            floor_step, floor_rest = max(weights/rate/1e9, f_step/flops/1e9)*c.latent_hz, (f_text+f_dec+f_voc)/SECONDS/flops/1e9
            out[who] = dict(steps_per_second=c.latent_hz, step_bytes=weights, step_flops=f_step, text_flops=f_text, decoder_flops_per_second=f_dec/SECONDS,
                            vocoder_flops_per_second=f_voc/SECONDS, bytes_per_second=weights*c.latent_hz, flops_per_second=f_step*c.latent_hz+(f_text+f_dec+f_voc)/SECONDS,
                            floor_rtf_steps=floor_step, floor_rtf_rest=floor_rest, floor_rtf=floor_step+floor_rest)
    return dict(rates, models=out)


# ---------------------------------------------------------------------------------------------- their side, in a worker

class Pocket:
    "Pocket TTS from its wheel, random weights, its public streaming API."
    def __init__(self, sizes):
        import logging
        os.environ['HF_HUB_OFFLINE'] = '1'
        import pocket_tts.modules.text_conditioner as tc
        import torch
        logging.disable(logging.WARNING)

        class Words:
            "One token per word, in place of a tokeniser that would have to be downloaded."
            def __init__(self, n): self.n = n
            def encode(self, t): return [3 + (sum(map(ord, w))*31) % (self.n-5) for w in t.split()]
            def decode(self, i): return ' '.join(f'w{k}' for k in i)
            def __call__(self, t): return torch.tensor(self.encode(t))[None]
        tc.build_tokenizer = lambda n, path, kind='sentencepiece': Words(n)
        from pocket_tts.models import tts_model as tm
        from pocket_tts.utils.config import CONFIGS_DIR, load_config
        self.torch, self.models, self.states = torch, {}, {}
        for k in sizes:
            c = load_config(str(CONFIGS_DIR/f'{SIZES[k]}.yaml')); c.weights_path = c.weights_path_without_voice_cloning = None
            torch.manual_seed(0)
            m = tm.TTSModel._from_pydantic_config_with_weights(c, .3, 1, None, eos_threshold=1e9).eval()     # 1e9: never stop early
            m._GEN_SECONDS_PADDING = SECONDS-len(TEXT.split())/m._TOKENS_PER_SECOND_ESTIMATE                 # 12 tokens: 4.0 s
            self.models[k], self.states[k] = m, m.get_state_for_audio_prompt(torch.randn(1, 24000*5)*.05)
        torch.set_num_threads(1)

    def info(self):
        import importlib.metadata as im
        n = lambda m: sum(p.numel() for k, p in m.named_parameters() if 'encoder' not in k)
        return dict(torch=self.torch.__version__, version=im.version('pocket-tts'), params={k: n(m) for k, m in self.models.items()})

    def rtf(self, who):
        m, s = self.models[who], self.states[who]
        cpu, wall, n = clocks(lambda: sum(len(c) for c in m.generate_audio_stream(s, TEXT)))
        return dict(cpu=cpu, wall=wall, seconds=n/24000)

    def first(self, who):
        m, s = self.models[who], self.states[who]; m._estimate_max_gen_len = lambda n: 1
        try: cpu, _, c = clocks(lambda: next(m.generate_audio_stream(s, TEXT)))
        finally: del m._estimate_max_gen_len
        gen = m.generate_audio_stream(s, TEXT); as_shipped, wall, _ = clocks(lambda: next(gen)); list(gen)
        return dict(cpu=cpu, wall=wall, cpu_as_shipped=as_shipped, seconds=len(c)/24000)


def serve(side, sizes):
    "Answer one JSON line with one JSON line; whatever a library prints goes to standard error."
    out = os.fdopen(os.dup(1), 'w'); os.dup2(2, 1)
    say = lambda x: print(json.dumps(x), file=out, flush=True)
    try: o = dict(ours=Ours, pocket=Pocket)[side](sizes)
    except ImportError as e: return say(dict(missing=str(e)))
    say(o.info())
    for line in sys.stdin:
        f, *args = json.loads(line); say(roofline(o) if f == 'roofline' else getattr(o, f)(*args))


class Worker:
    "One side in a process of its own."
    def __init__(self, python, side, sizes):
        env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'TQDM_DISABLE': '1'}
        self.p = subprocess.Popen([python, __file__, '--worker', side, *sizes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr if side == 'ours' else subprocess.DEVNULL, text=True, env=env)
        self.info = self.answer()

    def answer(self):
        line = self.p.stdout.readline()
        return json.loads(line) if line else dict(missing=f'the worker ended with code {self.p.wait()}')

    def ask(self, *what): print(json.dumps(what), file=self.p.stdin, flush=True)

    def __call__(self, *what):
        self.ask(*what); r = self.answer()
        if isinstance(r, dict) and 'missing' in r: raise SystemExit(f'{what}: {r["missing"]}')
        return r

    def close(self): self.p.stdin.close(); self.p.wait()


# ---------------------------------------------------------------------------------------------- fresh processes

MEMORY = r"""
import re, resource, torch
def status(k): return int(re.search(k + r':\s+(\d+)', open('/proc/self/status').read())[1])/1024
torch.set_num_threads(1)
try: open('/proc/self/clear_refs', 'w').write('5')                       # forget the peak that the import itself had
except OSError: pass
base = status('VmRSS')
from lewm_tts.engine import Voice
v = Voice.load(); loaded = status('VmRSS')
for _ in range(3):
    for _ in v.stream(TEXT): pass
print(base, loaded-base, status('VmHWM')-base)
"""
COLD = r"""
from lewm_tts.engine import Voice
import time, torch; torch.set_num_threads(1)
chunk = next(v for v in Voice.load().stream(TEXT))
"""


def fresh(code):
    "Run code in a new interpreter: (wall seconds to the end of `code`, CPU seconds, what it printed). Closing down is not counted."
    code = f'TEXT = {TEXT!r}\n{code}\nimport os, sys, time; print("#", time.process_time(), time.time(), flush=True); os._exit(0)'
    t = time.time(); r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'})
    if r.returncode: raise SystemExit(r.stderr)
    *said, last = r.stdout.splitlines(); _, cpu, end = last.split()
    return float(end)-t, float(cpu), said


# ---------------------------------------------------------------------------------------------- the table

def both(a, b):
    "A batch of eight sentences in each of two processes at the same time: seconds of the slower one, by its CPU clock and by the wall."
    a.ask('batch', 1, 8, 1); b.ask('batch', 1, 8, 2); r = a.answer(), b.answer()
    return dict(cpu=max(x['cpu'] for x in r), wall=max(x['wall'] for x in r), seconds=sum(x['seconds'] for x in r))


def least(rounds, key='cpu'): return min((r for r in rounds if r), key=lambda r: r[key], default=None)


def row(name, ours, peer, reach, aim, unit='', better='<='):
    "One line of the table: a ratio held against what was to be reached and what was hoped for."
    ratio = None if ours is None or peer is None else ours/peer
    met = None if ratio is None else (ratio <= reach if better == '<=' else ratio >= reach)
    return dict(name=name, ours=ours, peer=peer, unit=unit, ratio=ratio, reach=f'{better} {reach}' if reach else '', aim=aim, reached=met)


def show(rows):
    f = lambda x, n=3: '-' if x is None else f'{x:.{n}g}'
    print(f"\n{'':56}{'ours':>10}{'peer':>10}{'ratio':>8}  {'to reach':9}{'aim':>6}")
    for r in rows: print(f"{r['name']:56}{f(r['ours']):>10}{f(r['peer']):>10}{f(r['ratio'], 2):>8}  {r['reach']:9}{r['aim']!s:>6}  {'' if r['reached'] is None else 'reached' if r['reached'] else 'NOT reached'}")
    print('(+-15 %)')


def measure(rounds, quick, ours, second, who):
    "Every round of everything: what -> list of results. The two sides take turns."
    took = {(f, k): [] for f in ('rtf', 'first') for _, k in who} | {('batch', *k): [] for k in BATCHES} | {('both',): [], ('steps',): [], ('cold',): [], ('torch',): []}
    for w, k in who: w('rtf', k); w('first', k)                                                   # warm up
    if second: second('rtf', 'tiny')
    for i in range(rounds):
        for f in ('rtf', 'first'):
            for w, k in who: took[f, k] += [w(f, k) for _ in range(5 if f == 'first' else 1)]     # a first sound is short: five in a row, so that it is timed warm
        print(f'round {i+1} of {rounds}: ' + ', '.join(f"{k} RTF {took['rtf', k][-1]['cpu']/took['rtf', k][-1]['seconds']:.3f} first {1e3*took['first', k][-1]['cpu']:.1f} ms" for _, k in who), flush=True)
        if quick: continue
        for k in BATCHES: took['batch', *k].append(ours('batch', *k))
        took['both',].append(both(ours, second)); took['steps',].append(ours('steps'))
        for k, code in (('cold', COLD), ('torch', 'import torch')): took[k,].append(dict(zip(('wall', 'cpu'), fresh(code), strict=False)))
    return took


def table(took, sizes, memory):
    "The rows, from the best of the rounds."
    best = {k: least(v) for k, v in took.items() if k[0] in ('rtf', 'first')}
    rtf = lambda k: best['rtf', k]['cpu']/best['rtf', k]['seconds'] if ('rtf', k) in best else None
    ms = lambda k: 1e3*best['first', k]['cpu'] if ('first', k) in best else None
    rows = [row(f'real-time factor, tiny / Pocket-{k}', rtf('tiny'), rtf(k), *((.5, .3) if k == '2M' else (1, ''))) for k in sizes]
    rows += [row('real-time factor, v3c + 13.5 M Vocos / Pocket-18M', rtf('v3c'), rtf('18M'), .8, .5), row('   the same, weights in float16', rtf('v3c-f16'), rtf('18M'), .8, .5),
             row('CPU ms to first sound, tiny / Pocket-2M', ms('tiny'), ms('2M'), .7, .4, 'ms'), row('CPU ms to first sound, v3c in float16 / Pocket-18M', ms('v3c-f16'), ms('18M'), 1, '', 'ms')]
    if not took['steps',]: return rows
    early, late = (min(s[k] for s in took['steps',]) for k in ('50', '5000'))
    speed = lambda k, clock='cpu': 1/min(r[clock]/r['seconds'] for r in took[k])                   # x real time
    one, wall = speed(('batch', 0, 1)), speed(('batch', 0, 1), 'wall')
    rows += [row('ms a step, step 5000 / step 50', 1e3*late, 1e3*early, 1.2, 1., 'ms'),
             row('16 sentences, 2 processes of 8 lanes / one by one', speed(('both',)), one, 3, 6, 'x real time', '>='),
             row('   the same by the wall clock', speed(('both',), 'wall'), wall, 3, 6, 'x real time', '>='),
             row('   one process, 2 threads of 8 lanes, wall clock', speed(('batch', 2, 8), 'wall'), wall, 3, 6, 'x real time', '>='),
             row('   one core, 16 lanes', speed(('batch', 1, 16)), one, 2, '', 'x real time', '>='),
             dict(row('MB of memory at the peak, tiny, above import torch', None, None, 150, 80, 'MB'), ours=memory['peak_mb'], reached=memory['peak_mb'] <= 150)]
    for c in ('wall', 'cpu'): rows += [dict(row(f'{c} s from nothing to first sound (peer: import torch)', None, None, '', '', 's'), ours=min(x[c] for x in took['cold',]), peer=min(x[c] for x in took['torch',]))]
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--json', metavar='FILE'); p.add_argument('--quick', action='store_true'); p.add_argument('--rounds', type=int); p.add_argument('--peers', metavar='PYTHON', default=sys.executable)
    p.add_argument('--worker', nargs='+', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.worker: return serve(a.worker[0], a.worker[1:])
    rounds, sizes = a.rounds or (2 if a.quick else 4), list(SIZES)[:3 if a.quick else 4]
    ours, pocket, second = Worker(sys.executable, 'ours', []), Worker(a.peers, 'pocket', sizes), None if a.quick else Worker(sys.executable, 'ours', [])
    if 'missing' in ours.info: raise SystemExit(ours.info['missing'])
    there = 'missing' not in pocket.info
    if not there: print(f"pocket-tts is not there for {a.peers} ({pocket.info['missing']}): its columns stay empty; pip install pocket-tts==4.0.1, or name an interpreter that has it with --peers")
    load, took = os.getloadavg(), measure(rounds, a.quick, ours, second, [(ours, k) for k in ('tiny', 'v3c', 'v3c-f16')] + ([(pocket, k) for k in sizes] if there else []))
    memory = None if a.quick else min((dict(zip(('torch_mb', 'loaded_mb', 'peak_mb'), map(float, fresh(MEMORY)[2][-1].split()), strict=True)) for _ in range(2)), key=lambda m: m['peak_mb'])
    rows, roof = table(took, sizes, memory), ours('roofline')
    show(rows)
    print(f"\nroofline, one thread: matrix x matrix {roof['gemm_gflops']:.0f} GFLOP/s")
    for k, r in roof['models'].items():
        r['measured_rtf'] = min(x['cpu']/x['seconds'] for x in took['rtf', k])
        print(f"  {k:5} {r['bytes_per_second']/1e6:5.0f} MB of weights read and {r['flops_per_second']/1e9:.2f} GFLOP done per second of speech; row x matrix {roof[f'gemv_gb_s_{k}']:.0f} GB/s"
              f" -> floor RTF {r['floor_rtf_steps']:.4f} (steps) + {r['floor_rtf_rest']:.4f} (text, decoder, vocoder) = {r['floor_rtf']:.4f}; measured {r['measured_rtf']:.4f}")
    for w in (ours, pocket, second):
        if w and 'missing' not in w.info: w.close()
    if not a.json: return
    from lewm_tts.core import atomic_path
    cpu = next((x.split(':')[1].strip() for x in Path('/proc/cpuinfo').read_text().splitlines() if 'model name' in x), platform.machine()) if Path('/proc/cpuinfo').exists() else platform.machine()
    out = dict(command='python bench/engine.py --json FILE'+' --peers PYTHON'*there+' --quick'*a.quick, rounds=rounds, clock='process CPU seconds, one thread, minimum of the rounds, +-15 %', machine=dict(cpu=cpu, cores=os.cpu_count(), load_at_start=load),
               text=TEXT, ours=ours.info, pocket=pocket.info, rows=rows, memory=memory, roofline=roof, all={' '.join(map(str, k)): v for k, v in took.items()})
    with atomic_path(a.json) as f: f.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
