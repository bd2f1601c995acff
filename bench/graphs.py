"""How fast, how large and how quickly awake is a voice in onnxruntime, beside torch? Whole sentences, their parts, fresh processes, bytes.

    python bench/graphs.py                  the table (about 4 minutes on one core)
    python bench/graphs.py --quick          two rounds, toy-en only, no fresh processes
    python bench/graphs.py --json FILE      write it too

Process CPU seconds, one thread everywhere, minimum of the rounds; the ways take turns in every round, in one process. Read every figure as +-15 %.
Ways: `eager` is the readable model (LeWMTTS.rollout) with its readable vocoder, float32; `engine` is engine.Voice, in float32, float16 and int8 (big matrices only);
`ort` is OrtVoice, in float32 and with int8 weights. The voices toy-en and twelve are the shipped ones. v3c is a model of that size with a vocoder of 13.5 M weights, both
untrained (the work does not depend on the values); a random stop head has no sense of length, so all its ways make 4.0 s of sound.
A fresh process counts from its start to its first chunk of sound; its memory is the peak of its resident set (VmHWM).
"""
import argparse, json, os, platform, subprocess, sys, tempfile, time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)       # the checkout, not this folder
for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ[k] = '1'

TEXT = 'the quiet river turned to silver under the first light of dawn.'
SECONDS = 4.
WAYS = ('eager', 'engine float32', 'engine float16', 'engine int8', 'ort float32', 'ort int8')
PARTS = ('text', 'step', 'decoder', 'vocoder')


def cpu(f):
    "(CPU seconds, what f returned)."
    t = time.process_time(); r = f()
    return time.process_time()-t, r


class Bench:
    "One voice, six ways: each can speak the text, and each can do its parts."
    def __init__(self, name, place):
        import numpy as np, torch
        from lewm_tts.core import make_config, set_seed, voices_dir
        from lewm_tts.decoder import SmallVocos, load_small_vocoder, save_vocoder
        from lewm_tts.engine import Voice
        from lewm_tts.export import export_onnx
        from lewm_tts.live import fast_vocos, load_vocos
        from lewm_tts.model import LeWMTTS, load_model, save_model
        from lewm_tts.ort import OrtVoice
        torch.set_num_threads(1); torch.set_grad_enabled(False); set_seed(0)
        self.np, self.torch, self.name = np, torch, name
        if name == 'v3c':
            m, readable = LeWMTTS(make_config('v3c')).eval(), SmallVocos(512, 8, 1536).eval().requires_grad_(False)
            torch.nn.init.constant_(m.pred.stop.bias, -1e4)                                                 # never ends by itself
            self.folder = place/'v3c'; save_model(m, self.folder); save_vocoder(readable, self.folder, half=False)
        else: self.folder = voices_dir()/name; m, readable = load_model(self.folder), load_small_vocoder(self.folder)
        fast = fast_vocos(readable) if name == 'v3c' else load_vocos(self.folder)
        self.model, self.readable, self.bytes = m, readable, {'torch': sum((self.folder/f).stat().st_size for f in ('config.json', 'model.safetensors', 'vocoder.json', 'vocoder.safetensors'))}
        self.params = dict(model=sum(p.numel() for k, p in m.named_parameters() if not k.startswith('enc.')), vocoder=sum(p.numel() for p in readable.parameters()))
        if name == 'v3c': steps = round(SECONDS*m.cfg.latent_hz); m.cap = lambda n, speed=1.: steps
        self.voices = {f'engine {d}': Voice(m, fast, {}, getattr(torch, d)) for d in ('float32', 'float16', 'int8')}
        self.exported = {}
        for d in ('float32', 'int8'):
            f = self.exported[d] = export_onnx(m, fast, place/f'{name}-{d}', int8=d == 'int8')
            v = self.voices[f'ort {d}'] = OrtVoice.load(f); self.bytes[f'onnx {d}'] = sum(p.stat().st_size for p in f.iterdir())
            if name == 'v3c': plan = v.plan; v.plan = lambda *a, plan=plan: plan(*a)._replace(total=steps, cap=steps+1)
        self.graphs = {d: {g: x['bytes'] for g, x in json.loads((f/'voice.json').read_text())['graphs'].items()} for d, f in self.exported.items()}
        self.prepare()

    def prepare(self):
        "What the parts are fed with: the ids, the latents and the mel of the sentence."
        m = self.model; r = m.rollout(m.ids(TEXT)); self.ids, self.z, self.mel, self.n = m.ids(TEXT), r.z, r.mel, len(r.z)

    def speak(self, way):
        "Seconds of sound."
        m = self.model
        if way == 'eager': return self.readable(m.rollout(m.ids(TEXT)).mel[None]).shape[1]/m.cfg.sr
        return len(self.voices[way].speak(TEXT, check=False).wav)/m.cfg.sr

    def part(self, way, part):
        "A function that does one part of the sentence, all steps in the case of 'step'."
        return getattr(self, '_'+way.split()[0])(way, part)

    def _eager(self, way, part):
        m, n = self.model, self.n; memory, cond = m.memory(self.ids[None]); pos = m.timing(memory, cond, None, 1.)[0]; rows = m.rows(pos)
        def text():
            a, b = m.memory(self.ids[None]); c = m.start_run(a, None, b)
            return m.timing(a, b, None, 1.), c
        def step():
            cache, z = m.start_run(memory, None, cond), m.pred.bos[None]
            for i in range(n): p, cache = m.step_run(z, cache, None if rows is None else rows[:, i]); z = m.sample(p).flatten(1)
        return dict(text=text, step=step, decoder=lambda: m.decode(self.z[None]), vocoder=lambda: self.readable(self.mel[None]))[part]

    def _engine(self, way, part):
        v = self.voices[way]; m, f, live, n = v.model, v.fast, v.live, self.n; memory, cond = v.read(TEXT); pos = m.timing(memory, cond, None, 1.)[0]
        def text():
            a, b = v.read(TEXT); p = m.timing(a, b, None, 1.)[0]
            f.join(a, m.rows(p), b, steps=n); f.leave(0)
        def step():
            with self.torch.inference_mode():
                f.join(memory, m.rows(pos), cond, steps=n); z = m.pred.bos[None]
                for _ in range(n): z = f.step(z)[:, :f.d]
                f.leave(0)
        return dict(text=text, step=step, decoder=lambda: live.dec(live.dec.start(), self.z, True), vocoder=lambda: live.voc(live.voc.start(), self.mel, True))[part]

    def _ort(self, way, part):
        v = self.voices[way]; plan = v.plan(TEXT, 0, 1.)
        def step():
            for _ in v.roll(plan): pass
        z, mel = self.z.numpy()[None], self.mel.numpy()[None]
        return dict(text=lambda: v.plan(TEXT, 0, 1.), step=step, decoder=lambda: v.run('decoder', z=z), vocoder=lambda: v.run('vocoder', mel=mel))[part]

    def cosines(self):
        "Smallest cosine of an output, int8 beside float32, each graph fed the same; and what int8 does to the log-mel of the sound."
        np, a, b = self.np, *(self.voices[f'ort {d}'] for d in ('float32', 'int8')); cos = lambda x, y: float((x*y).sum()/(np.linalg.norm(x)*np.linalg.norm(y)))
        plan, n = a.plan(TEXT, 0, 1.), a.n; past = np.zeros((n.layers, 1, n.heads, 0, n.head_width), np.float32); k = v = past; worst = 1.
        for i in range(min(40, self.n-1)):                                        # the past and the latents are those of float32
            feed = dict(z=np.array([n.bos], np.float32) if not i else self.z[i-1:i].numpy(), past_k=k, past_v=v, t=np.array([i]), **{x: y for x, y in plan.out.items() if x != 'dur'})
            if plan.pos is not None: feed['pos'] = plan.pos[i:i+1]
            p, q = a.run('step', **feed), b.run('step', **feed); k, v = p['new_k'], p['new_v']; worst = min(worst, cos(p['mean'], q['mean']))
        text = min(cos(x, y) for x, y in zip(plan.out.values(), b.plan(TEXT, 0, 1.).out.values(), strict=True))
        both = {g: [list(x.run(g, **feed).values())[0] for x in (a, b)] for g, feed in dict(decoder=dict(z=self.z.numpy()[None]), vocoder=dict(mel=self.mel.numpy()[None])).items()}
        from lewm_tts.data import LogMel
        lm = LogMel(); wav = [self.torch.tensor(x[0]) for x in both['vocoder']]
        return dict(text=text, step=worst, decoder=cos(*both['decoder']), vocoder=cos(*both['vocoder']), log_mel_of_sound=float((lm(wav[0])-lm(wav[1])).abs().mean()))


# ---------------------------------------------------------------------------------------------- fresh processes

FRESH = dict(
    torch="""
import torch; torch.set_num_threads(1)
from lewm_tts.engine import Voice
v = Voice.load(FOLDER)
""", ort="""
from lewm_tts.ort import OrtVoice
v = OrtVoice.load(FOLDER)
""")
ALSO = dict(torch='import torch', ort='import onnxruntime')                    # the library alone


def fresh(code, folder=None, speak=True):
    "(wall s, CPU s to the first sound, MB at the peak after the whole sentence) of a new process; without `speak`, of `code` alone."
    tail = "s = v.stream(TEXT, check=False); next(s); first = (time.time(), time.process_time())\nfor _ in s: pass\n" if speak else "first = (time.time(), time.process_time())\n"
    code = (f"import os, re, sys, time\nsys.path.insert(0, {str(Path(__file__).resolve().parent.parent)!r})\nFOLDER, TEXT = {str(folder)!r}, {TEXT!r}\n" + code + tail +
            "print(*first, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])/1024, flush=True); os._exit(0)")
    t = time.time(); r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    if r.returncode: raise SystemExit(r.stderr)
    end, used, mb = map(float, r.stdout.split())
    return dict(wall=end-t, cpu=used, mb=mb)


# ---------------------------------------------------------------------------------------------- the table

def measure(b, rounds):
    "Best CPU seconds of every way: whole, and each part."
    parts = {(w, p): b.part(w, p) for w in WAYS for p in PARTS}
    best, seconds = {}, {}
    for i in range(rounds+1):                                                  # the first round warms up
        for w in WAYS: t, seconds[w] = cpu(lambda w=w: b.speak(w)); best[w, 'whole'] = min(t, best.get((w, 'whole'), 1e9)) if i else 1e9
        for (w, p), f in parts.items(): t = cpu(f)[0]; best[w, p] = min(t, best.get((w, p), 1e9)) if i else 1e9
        if i: print(f'{b.name} round {i} of {rounds}: ' + ', '.join(f"{w} {best[w, 'whole']/seconds[w]:.4f}" for w in WAYS), flush=True)
    return {w: dict(rtf=best[w, 'whole']/seconds[w], cpu_s=best[w, 'whole'], seconds=seconds[w], text_ms=1e3*best[w, 'text'], step_ms=1e3*best[w, 'step']/b.n, decoder_ms=1e3*best[w, 'decoder'], vocoder_ms=1e3*best[w, 'vocoder']) for w in WAYS}


def show(name, d):
    print(f"\n{name}: {d['params']['model']/1e6:.1f} M weights in use + vocoder {d['params']['vocoder']/1e6:.1f} M; {d['ways']['eager']['seconds']:.2f} s of sound, {d['steps']} steps")
    print(f"{'':16}{'RTF':>9}{'x eager':>9}{'x ort f32':>10}   {'text ms':>8}{'ms/step':>9}{'decoder':>9}{'vocoder ms':>11}")
    for w, r in d['ways'].items():
        print(f"{w:16}{r['rtf']:9.4f}{d['ways']['eager']['rtf']/r['rtf']:9.2f}{d['ways']['ort float32']['rtf']/r['rtf']:10.2f}   {r['text_ms']:8.2f}{r['step_ms']:9.3f}{r['decoder_ms']:9.2f}{r['vocoder_ms']:11.2f}")
    print('bytes:', ', '.join(f'{k} {v/1e6:.1f} MB' for k, v in d['bytes'].items()), '; int8 beside float32, smallest cosine:', ', '.join(f'{k} {v:.4f}' for k, v in d['cosines'].items()))
    if d.get('fresh'): print('fresh process:', '; '.join(f"{k} {x['wall']:.2f} s ({x['cpu']:.2f} CPU) to the first sound, {x['mb']:.0f} MB" for k, x in d['fresh'].items()))


def goals(voices):
    "What was to be reached, and the honest lines beside it."
    rows = []
    for n, d in voices.items():
        r = {w: x['rtf'] for w, x in d['ways'].items()}
        rows += [dict(voice=n, name='ort int8 / eager float32, speed', value=r['eager']/r['ort int8'], reach='>= 2', reached=r['eager']/r['ort int8'] >= 2),
                 dict(voice=n, name='ort int8 / ort float32, speed', value=r['ort float32']/r['ort int8'], reach='', reached=None),
                 dict(voice=n, name='ort float32 / engine float32, speed', value=r['engine float32']/r['ort float32'], reach='', reached=None)]
        rows += [dict(voice=n, name=f'   {p}: ort int8 / ort float32, speed', value=d['ways']['ort float32'][f'{p}_ms']/d['ways']['ort int8'][f'{p}_ms'], reach='', reached=None) for p in PARTS]
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--json', metavar='FILE'); p.add_argument('--quick', action='store_true'); p.add_argument('--rounds', type=int)
    a = p.parse_args()
    import onnxruntime, torch
    load, rounds, voices, plain = os.getloadavg(), a.rounds or (2 if a.quick else 6), {}, {}
    with tempfile.TemporaryDirectory() as tmp:
        for name in ('toy-en',) if a.quick else ('toy-en', 'twelve', 'v3c'):
            b = Bench(name, Path(tmp)); d = voices[name] = dict(params=b.params, steps=b.n, ways=measure(b, rounds), bytes=b.bytes, graphs=b.graphs, cosines=b.cosines())
            if not a.quick:
                runs = {'torch (engine float32)': ('torch', b.folder), 'ort float32': ('ort', b.exported['float32']), 'ort int8': ('ort', b.exported['int8'])}
                took = {k: [] for k in runs}
                for _ in range(3):
                    for k, (kind, f) in runs.items(): took[k].append(fresh(FRESH[kind], f))
                d['fresh'] = {k: {x: min(t[x] for t in ts) for x in ts[0]} for k, ts in took.items()}
            show(name, d); del b
    if not a.quick:
        for k, code in ALSO.items(): plain[k] = min((fresh(code+'\n', speak=False) for _ in range(3)), key=lambda x: x['cpu'])
        print('\nthe library alone:', '; '.join(f"{k}: {x['wall']:.2f} s ({x['cpu']:.2f} CPU), {x['mb']:.0f} MB" for k, x in plain.items()))
    print()
    for r in (rows := goals(voices)): print(f"{r['voice']:8}{r['name']:42}{r['value']:7.2f}  {r['reach']:6}{'' if r['reached'] is None else 'reached' if r['reached'] else 'NOT reached'}")
    print('(+-15 %)')
    if not a.json: return
    from lewm_tts.core import atomic_path
    model = next((x.split(':')[1].strip() for x in Path('/proc/cpuinfo').read_text().splitlines() if 'model name' in x), platform.machine()) if Path('/proc/cpuinfo').exists() else platform.machine()
    out = dict(command='python bench/graphs.py --json FILE'+' --quick'*a.quick, rounds=rounds, clock='process CPU seconds, one thread, minimum of the rounds, +-15 %', machine=dict(cpu=model, cores=os.cpu_count(), load_at_start=load),
               versions=dict(torch=torch.__version__, onnxruntime=onnxruntime.__version__), text=TEXT, note='v3c and its vocoder are untrained', voices=voices, library_alone=plain, rows=rows)
    with atomic_path(a.json) as f: f.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
