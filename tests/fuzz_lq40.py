"""A million damaged LQ40 files. Not run by default:

    python tests/fuzz_lq40.py                       atheris if it is installed (pip install atheris), else the mutations below alone
    python tests/fuzz_lq40.py --engine own --cases 1000000 --seed 3
    python tests/fuzz_lq40.py --engine atheris --cases 2000000

Each case goes through `describe`, `load_lq40` and `read_lewm`. Anything but a result or a `UserError` ends the run, with the file in $TMPDIR and its message.
So does a case that takes more than a second of CPU, or more memory than the reader promises; address space is limited for the whole process.
What loads must also survive being written and read again."""
import argparse, json, os, random, re, resource, signal, struct, sys, tempfile, time, tracemalloc, zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import torch
from lewm_tts.core import UserError
from lewm_tts.quantize import Packed, Small, pack, unpack

torch.set_num_threads(1)
atheris = None
if __name__ == '__main__' and ('atheris' in sys.argv or '--engine' not in sys.argv):
    try: import atheris
    except ImportError: pass
if atheris:
    with atheris.instrument_imports(include=['lewm_tts.lq40'], enable_loader_override=False): import lewm_tts.lq40 as lq
else: import lewm_tts.lq40 as lq

SLACK = 32 << 20  # ROOM, the objects that a JSON of 256 KiB can become, and a little
SIZES = {**lq.LEWM, 'action_dim': 2, 'channels': 1, 'encoder_heads': 1, 'encoder_hidden': 4, 'encoder_inter': 3, 'encoder_layers': 1, 'image_size': 4, 'latent_dim': 3, 'patch_size': 2,
         'predictor_heads': 1, 'predictor_hidden': 4, 'predictor_inner_dim': 2, 'predictor_inter': 33, 'predictor_layers': 1}


class Hang(BaseException): pass


def alarm(*_): raise Hang('more than a second of CPU')


def voice(coded=False, seed=1):
    "A small file with every kind of record."
    g = torch.Generator().manual_seed(seed)
    def rnd(*s): return torch.randn(s, generator=g)
    w = rnd(2, 40); w[1, :32] = 0
    parts = {'model.a': rnd(2), 'model.b': rnd(3, 1).half(), 'model.c': pack(w), 'model.d': pack(rnd(2, 3), 8, 0), 'vocoder.e': pack(rnd(2, 5, 2), 3, 4), 'vocoder.f': pack(rnd(2, 3), 2, 0)}
    return b''.join(lq.lq40_bytes(Small(parts, {'preset': 'tiny', 'sr': 24000}, {'kind': 'x'}, {'notes': ['ä', None, 1.5]}, 'demo'), coded))


def world(mode, omit=None):
    return b''.join(lq.lewm_bytes(lq.lewm_stand_in(SIZES, 5), mode, SIZES, omit))


def seeds():
    return [voice(), voice(True), world('q4-pred'), world('full', dict.fromkeys(lq.HEADS, 'empty')), world('wanda40-q4', {'projector': 'batchnorm'})]


def signed(b):
    "A voice's checksum made right; a world model has none."
    return b[:-4] + struct.pack('<I', zlib.crc32(b[:-4])) if len(b) > 4 and (lq.MODE.encode() in b or b'"vocoder"' in b) else b


def close(a, b):
    a, b = (unpack(x) if isinstance(x, Packed) else x for x in (a, b))
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def check(data):
    "What the readers make of `data`: '' or the kind of refusal. Raises whatever is no `UserError`, and on a file that does not survive being written again."
    said = ''
    try: lines = lq.describe(data)
    except UserError as e: said = str(e)
    else: assert all(line.isprintable() for line in lines)
    results = {}
    for read in (lq.load_lq40, lq.read_lewm) if not said or len(data)%4 == 0 else ():
        try: results[read] = read(data)
        except UserError as e: assert '\n' not in str(e) and str(e).isprintable() and len(str(e)) < 700, str(e)
    if said: assert not results, f'{said}, and yet it loads'
    assert '\n' not in said and said.isprintable() and len(said) < 700, said
    if lq.load_lq40 in results:
        a = results[lq.load_lq40]
        b = lq.load_lq40(b''.join(lq.lq40_bytes(a)))
        assert list(a.parts) == list(b.parts) and (a.config, a.vocoder, a.card, a.scheme) == (b.config, b.vocoder, b.card, b.scheme)
        for k, x in a.parts.items(): assert close(x, b.parts[k]), k
    return re.sub(r'\d+|nan|-?inf', '#', said)[:60]


WORDS = (0, 1, 2, 3, 7, 31, 32, 33, 255, 256, 65535, 65536, 1 << 20, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1)
FLOATS = (0., -0., 1., -1., 1e-45, 3.4e38, float('inf'), -float('inf'), float('nan'))
VALUES = (None, True, False, 0, -1, 1, 2, 8, 32, 1 << 31, 1 << 32, 1 << 63, 1 << 70, 1.5, 1e308, '', 'f32', 'q4', 'i8', 'coded', 'full', 'q4-pred', lq.MODE, '\x1b[2J', 'é', 'model.a', [], {}, [[]], [0, 5], [1, 1, 1])


def leaves(x, path=()):
    if isinstance(x, dict):
        for k, v in x.items(): yield from leaves(v, (*path, k))
    elif isinstance(x, list):
        for i, v in enumerate(x): yield from leaves(v, (*path, i))
    if path: yield path


def change_json(b, r):
    "Put something else into the header, and make its length agree."
    try:
        n = 8 + struct.unpack_from('<I', b, 4)[0]
        d = json.loads(b[8:n]); p = r.choice(list(leaves(d)))
    except (ValueError, struct.error, IndexError, RecursionError): return b
    at = d
    for k in p[:-1]: at = at[k]
    k = p[-1]
    match r.randrange(4):
        case 0: at[k] = r.choice(VALUES)
        case 1 if isinstance(at, list): at.insert(k, r.choice([at[k], r.choice(VALUES)]))
        case 2: del at[k]
        case _: at[k] = at[k] + r.choice((-1, 1, 31)) if type(at[k]) is int else r.choice(VALUES)
    raw = json.dumps(d, separators=(',', ':')).encode()
    return b[:4] + struct.pack('<I', len(raw)) + raw + b[n:]


def mutate(b, r, others, fields=None):
    "One to four small damages; mostly with a checksum made right, else nothing behind it would ever be reached."
    for _ in range(r.choice((1, 1, 1, 2, 3, 4))):
        n = len(b) or 1; i = min(n - 1, r.choice(fields)[0]) if fields and r.random() < .5 else r.randrange(n)
        j = min(n, i + r.choice((1, 2, 4, 8, 20, 64)))
        match r.randrange(10):
            case 0 | 1: b = b[:i] + bytes([(b[i] if i < len(b) else 0) ^ 1 << r.randrange(8)]) + b[i + 1:]
            case 2: b = b[:i] + struct.pack('<I', r.choice(WORDS)) + b[i + 4:]
            case 3: b = b[:i] + struct.pack('<f', r.choice(FLOATS)) + b[i + 4:]
            case 4: b = b[:i] if r.random() < .5 else b + bytes(r.choice((1, 4, 32)))
            case 5: b = b[:i] + b[j:]
            case 6: b = b[:i] + b[i:j] * r.choice((2, 3, 50)) + b[j:]
            case 7: o = r.choice(others); k = r.randrange(len(o)); b = b[:i] + o[k:k + j - i] + b[(j if r.random() < .5 else i):]
            case 8: b = b[:i] + r.randbytes(j - i) + b[j:]
            case _: b = change_json(b, r)
    return signed(b) if r.random() < .85 else b


class Meter:
    "Counts, limits, and the file that broke something."
    def __init__(self, cases, seconds):
        self.cases, self.until, self.n, self.loaded, self.kinds, self.slowest, self.peak, self.start = cases, time.time() + seconds, 0, 0, {}, 0., (0, 0), time.time()
        self.rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.signal(signal.SIGVTALRM, alarm)

    def __call__(self, data):
        data = bytes(data); watch = self.n % 64 == 0; begin = time.process_time()
        if watch: tracemalloc.start()
        signal.setitimer(signal.ITIMER_VIRTUAL, 1.)
        try: kind = check(data)
        except BaseException as e:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            at = Path(tempfile.gettempdir())/'fuzz_lq40_found.bin'; at.write_bytes(data)
            print(f'case {self.n}: {type(e).__name__}: {e}\nthe file: {at}', flush=True)
            raise
        finally: signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self.slowest = max(self.slowest, time.process_time() - begin)
        if watch:
            peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop(); self.peak = max(self.peak, (peak, len(data)))
            assert peak < SLACK + 40*len(data), f'{peak:,} bytes of memory for a file of {len(data):,}'
        if self.n%100_000 == 99_999: print(f'{self.n + 1:,} cases, {time.time() - self.start:.0f} s', file=sys.stderr, flush=True)
        self.n += 1; self.loaded += not kind; new = kind not in self.kinds; self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return new

    @property
    def done(self): return self.n >= self.cases or time.time() > self.until

    def report(self, engine):
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.rss
        print(f'{engine}: {self.n:,} cases in {time.time() - self.start:.0f} s: {self.loaded:,} load, {self.n - self.loaded:,} refused in {len(self.kinds) - ("" in self.kinds)} ways, 0 other errors; '
              f'slowest {1e3*self.slowest:.0f} ms of CPU; memory of the worst case looked at {self.peak[0]/1e6:.1f} MB (file of {self.peak[1]:,} bytes), of the process +{rss/1e3:.0f} MB', flush=True)


def own(meter, seed):
    "Mutations of the seeds and of every case that was answered in a new way."
    r, pool = random.Random(seed), [(b, fields_of(b)) for b in seeds()]; first = [b for b, _ in pool]
    for b in first: assert not check(b) or 'damaged' in ' '.join(lq.describe(b)), 'a seed must load'
    while not meter.done:
        b, fields = r.choice(pool[:len(first)] if r.random() < .6 else pool)
        b = mutate(b, r, first, fields)
        if len(b) < 1 << 16 and meter(b) and len(pool) < 800: pool.append((b, fields))


def fields_of(b):
    fields = []
    with lq.opened(b, fields) as src:
        h = lq.read_header(src)
        for _ in (lq._voice(src, h) if h['mode'] == lq.MODE else lq._world(src, h, False)): pass
    return fields


def guided(meter, seed):
    "The same, led by the lines of the reader that a case reaches."
    first = seeds(); known = [fields_of(b) for b in first]; corpus = Path(tempfile.mkdtemp())
    for i, b in enumerate(first): (corpus/str(i)).write_bytes(b)

    def mutator(data, most, seed):
        r = random.Random(seed)
        if r.random() < .5 or not data: k = r.randrange(len(first)); return mutate(data if data and r.random() < .5 else first[k], r, first, known[k])[:most]
        b = atheris.Mutate(data, most)
        return (signed(b) if r.random() < .85 else b)[:most]

    def one(data):
        meter(data)
        if meter.done: meter.report('atheris'); sys.stdout.flush(); os._exit(0)

    atheris.Setup([sys.argv[0], str(corpus), f'-seed={seed + 1}', '-max_len=4096', '-timeout=60', f'-artifact_prefix={corpus}/', '-verbosity=0', '-print_final_stats=0', '-rss_limit_mb=4096', '-len_control=0'], one, custom_mutator=mutator)
    atheris.Fuzz()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--engine', choices=('atheris', 'own'), default='atheris' if atheris else 'own')
    ap.add_argument('--cases', type=int, default=1_000_000)
    ap.add_argument('--seconds', type=float, default=3600.)
    ap.add_argument('--seed', type=int, default=0)
    a = ap.parse_args()
    if a.engine == 'atheris' and not atheris: sys.exit('atheris is not installed: pip install atheris, or --engine own')
    now = int(re.search(r'VmSize:\s+(\d+)', Path('/proc/self/status').read_text())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (now + ((4096 if a.engine == 'atheris' else 512) << 20),)*2)  # libFuzzer itself grows
    meter = Meter(a.cases, a.seconds)
    if a.engine == 'atheris': guided(meter, a.seed)
    else: own(meter, a.seed); meter.report('own mutations')


if __name__ == '__main__': main()
