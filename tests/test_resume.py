"""Kill a training at many moments. What comes out in the end must equal a training that nobody touched, bit for bit."""
import io, json, multiprocessing, os, random, resource, signal, subprocess, sys, time
from pathlib import Path
import accelerate, pytest, torch, tqdm.auto  # noqa: F401  (accelerate and tqdm here, once, and not in every process below)
from safetensors.torch import save_file
from lewm_tts import training
from lewm_tts.core import UserError, make_config
from lewm_tts.data import Corpus
from lewm_tts.text import text_to_ids

ROOT = Path(__file__).resolve().parent.parent
MICRO = dict(text_width=32, text_convs=1, text_layers=1, text_heads=2, d_latent=16, enc_width=32, enc_convs=1, width=32, layers=1, heads=2, ff=64,
             dec_width=32, dec_convs=1, steps=20, batch=3, warmup=4)
TEXTS = ['one two three', 'four', 'five six', 'seven and eight', 'nine', 'ten of them', 'eleven', 'a dozen', 'more', 'and more', 'and more yet']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "A corpus folder written by hand, so that no synthesiser is needed: every byte has a spectrum of its own."
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp('corpus')
    g = torch.Generator().manual_seed(0)
    spectrum, ids = torch.randn(259, 100, generator=g)*2-5, [torch.tensor(text_to_ids(t)) for t in TEXTS]
    mels = [spectrum[i].repeat_interleave(4, 0) for i in ids]
    sizes = torch.tensor([[len(m), 0, len(i), 256*len(m)] for m, i in zip(mels, ids, strict=True)])
    save_file(dict(mel=torch.cat(mels).half(), wav=torch.zeros(0, dtype=torch.int16), dur=torch.cat([torch.full((len(i),), 4.) for i in ids]),
                   ids=torch.cat(ids).to(torch.int16), sizes=sizes), out/'shard-0000.safetensors')
    (out/'manifest.json').write_text(json.dumps(dict(shards=[dict(file='shard-0000.safetensors', n=len(ids))], speaker=0)))
    return out


def life(data, out, before=None, **kw):
    "One life of a training, in a process of its own that saves after every step. Returns the process; `before` runs first in there."
    def run():
        torch.set_num_threads(1)
        if before: before()
        try: training.train(make_config('tiny', **{**MICRO, **kw}), Corpus(data), out, every_s=0., progress=False)
        except UserError as e: (Path(out).parent/'error.txt').write_text(str(e)); os._exit(2)
        os._exit(0)
    p = multiprocessing.get_context('fork').Process(target=run)
    p.start()
    return p


def ended(p):
    p.join(120)
    return p.exitcode


@pytest.fixture(scope='module')
def untouched(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('untouched')/'run'
    assert ended(life(data, out)) == 0
    return out


def same(a, b):
    "Same losses in every column, same weights, and nothing left lying about."
    assert (a/'log.csv').read_text() == (b/'log.csv').read_text()
    assert (a/'model.safetensors').read_bytes() == (b/'model.safetensors').read_bytes()
    assert sorted(p.name for p in a.iterdir()) == ['config.json', 'last.pt', 'log.csv', 'model.safetensors']


def die(): os.kill(os.getpid(), signal.SIGKILL)


def at_call(owner, name, n, deed):
    "Replace `owner.name`: from the n-th call on, `deed(original, *args)` happens instead."
    real, count = getattr(owner, name), [0]
    def fake(*a, **k):
        count[0] += 1
        return deed(real, *a, **k) if count[0] >= n else real(*a, **k)
    setattr(owner, name, fake)


def half_a_checkpoint(real, state, path):
    b = io.BytesIO(); real(state, b)
    Path(path).write_bytes(b.getvalue()[:b.tell()//2]); die()


def before_rename(real, src, dst):
    if Path(dst).name == 'last.pt': die()
    real(src, dst)


POINTS = {  # where the process dies, in the order of a step
    'weights updated, average not': lambda: at_call(training.Average, 'update', 3, lambda *a: die()),
    'step done, nothing saved': lambda: at_call(training, 'checkpoint', 3, lambda *a: die()),
    'log saved, checkpoint not': lambda: at_call(training.Run, 'save', 3, lambda *a: die()),
    'checkpoint half written': lambda: at_call(torch, 'save', 3, half_a_checkpoint),
    'checkpoint not yet renamed': lambda: at_call(os, 'replace', 5, before_rename),
}


def test_killed_at_named_points(data, untouched, tmp_path):
    out, steps = tmp_path/'run', []
    for name, point in POINTS.items():
        assert ended(life(data, out, point)) == -signal.SIGKILL, name
        left = [p for p in out.iterdir() if p.name.startswith('.last.pt.')]
        assert bool(left) == name.startswith('checkpoint'), (name, left)
        steps.append(torch.load(out/'last.pt', weights_only=True)['step'])
    assert steps == sorted(set(steps)) and 0 < steps[0] and steps[-1] < MICRO['steps']  # each life went on where the last one was
    assert ended(life(data, out)) == 0
    same(out, untouched)


def test_killed_at_random_moments(data, untouched, tmp_path):
    out, r, killed = tmp_path/'run', random.Random(), 0
    for _ in range(6):
        p, t = life(data, out), time.time()
        while p.is_alive() and not (out/'last.pt').exists() and time.time()-t < 60: time.sleep(.001)
        p.join(r.uniform(0, .25)); p.kill(); code = ended(p)
        killed += code == -signal.SIGKILL
        if code == 0: break
    assert killed >= 1
    assert ended(life(data, out)) == 0
    same(out, untouched)


def test_disk_full(data, untouched, tmp_path):
    def small_disk(): signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    out = tmp_path/'run'
    assert ended(life(data, out, POINTS['checkpoint half written'])) == -signal.SIGKILL
    good = (out/'last.pt').read_bytes()
    assert ended(life(data, out, small_disk)) == 2
    error = (tmp_path/'error.txt').read_text()
    assert 'cannot write' in error and 'last.pt' in error and 'free some space' in error and '\n' not in error
    assert (out/'last.pt').read_bytes() == good
    assert ended(life(data, out)) == 0
    same(out, untouched)


def test_damaged_or_foreign_checkpoint(data, untouched, tmp_path):
    out = tmp_path/'run'; out.mkdir()
    blob = (untouched/'last.pt').read_bytes()
    (out/'last.pt').write_bytes(blob[:len(blob)//2])
    assert ended(life(data, out)) == 2
    assert f'{out}/last.pt cannot be resumed' in (tmp_path/'error.txt').read_text()
    (out/'last.pt').write_bytes(blob)
    assert ended(life(data, out, lr=1e-3)) == 2
    assert 'lr was 0.002, now 0.001' in (tmp_path/'error.txt').read_text()
    assert (out/'last.pt').read_bytes() == blob


def test_ctrl_c_at_the_command_line(data, untouched, tmp_path):
    out, log = tmp_path/'run', tmp_path/'stderr'
    words = ['train', str(data), str(out), '--patience', '0', *[w for k, v in MICRO.items() for w in ('--set', f'{k}={v}')]]
    code = f'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\nfrom lewm_tts.cli import main\nraise SystemExit(main({words!r}))'
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    with open(log, 'wb') as err: p = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=err)
    t = time.time()
    while p.poll() is None and '%|' not in log.read_text() and time.time()-t < 100: time.sleep(.005)  # the progress bar: training has begun
    p.send_signal(signal.SIGINT)
    assert p.wait(60) == 130
    text = log.read_text()
    assert 'Traceback' not in text and text.splitlines()[-1].startswith('lewm-tts: stopped;')
    assert 0 < torch.load(out/'last.pt', weights_only=True)['step'] < MICRO['steps']
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
    assert r.returncode == 0, r.stderr
    (out/'card.json').unlink()                                          # the command writes one, the function does not
    same(out, untouched)
