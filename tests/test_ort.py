"""A voice without torch: it speaks where torch is forbidden, says what the engine says, and takes no broken folder for a voice."""
import json, os, random, shutil, signal, subprocess, sys, threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('onnxruntime'); pytest.importorskip('onnx')
import torch

from lewm_tts import export
from lewm_tts.core import UserError, make_config, voices_dir
from lewm_tts.decoder import SmallVocos
from lewm_tts.engine import Voice
from lewm_tts.export import export_onnx, onnx_folder
from lewm_tts.live import fast_vocos
from lewm_tts.model import LeWMTTS
from lewm_tts.ort import OrtVoice

ROOT = Path(__file__).resolve().parent.parent
if not (voices_dir()/'twelve').is_dir(): pytest.skip('no shipped voices', allow_module_level=True)
torch.set_num_threads(1)

PAGE = 'Good morning. [pause 0.2] The committee examined 3 of the 12 proposals, and nobody was surprised; then it rained. Was it late?'
FORBIDDEN = 'torch torchaudio vocos librosa matplotlib safetensors soundfile soxr onnx onnxscript scipy IPython accelerate'.split()
BLOCK = f"""
import sys
class No:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {FORBIDDEN!r}: raise ImportError(name+' is forbidden here')
sys.meta_path.insert(0, No())
sys.path.insert(0, {str(ROOT)!r})
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory): return tmp_path_factory.mktemp('ort')


@pytest.fixture(scope='module')
def folders(place):
    "name -> (engine, exported folder)."
    was = os.environ.get('LEWM_TTS_CACHE'); os.environ['LEWM_TTS_CACHE'] = str(place/'cache')
    try: return {n: (Voice.load(n), onnx_folder(n)) for n in ('toy-en', 'twelve')}
    finally:
        if was is None: del os.environ['LEWM_TTS_CACHE']
        else: os.environ['LEWM_TTS_CACHE'] = was


@pytest.fixture(scope='module')
def small(place):
    "A little untrained voice, quick to export and to copy."
    torch.manual_seed(0)
    return export_onnx(LeWMTTS(make_config('mini')).eval(), fast_vocos(SmallVocos(32, 2, 64).eval()), place/'small')


def python(code, **kw): return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, env={**os.environ, 'OMP_NUM_THREADS': '1'}, **kw)


def close(got, want, what=''):
    "Equal length; a ten-thousandth of full scale on average. Single samples may be off by more: see test_engine.TOLERANCE and lesson 10g."
    want = np.asarray(want); assert got.shape == want.shape, what
    e = got-want; rms, top = float(np.sqrt((e**2).mean())), float(np.abs(e).max())
    assert rms < 1e-4 and top < 5e-3, f'{what}: rms {rms:.1e}, largest {top:.1e}'
    return rms, top


def one_line(e): return isinstance(e, UserError) and '\n' not in str(e) and 10 < len(str(e)) < 400


# --- the same sound ---------------------------------------------------------------------------------------------------------------------------

def test_where_torch_is_forbidden(folders, place):
    engine, folder = folders['toy-en']; out = place/'said.npy'
    code = BLOCK + f"""
from lewm_tts.ort import OrtVoice
import numpy as np
v = OrtVoice.load({str(folder)!r})
a = v.speak({PAGE!r})
a.save({str(place/'said.wav')!r}); np.save({str(out)!r}, a.wav)
assert a.captions('vtt').startswith('WEBVTT') and sum(len(c.wav) for c in v.stream('Yes.'))>1000
print(sorted(m for m in sys.modules if m.split('.')[0] in {FORBIDDEN!r}))
"""
    r = python(code)
    assert r.returncode == 0, r.stderr
    assert r.stdout.strip() == '[]'
    want = engine.speak(PAGE); close(np.load(out), want.wav, 'fresh interpreter')
    assert (place/'said.wav').stat().st_size == 44+2*len(want.wav)


def test_the_command_and_the_engine_without_torch(folders, place):
    "The command speaks; the engine says who could."
    code = ("import sys; sys.modules['torch'] = None\nfrom lewm_tts.cli import main\n"
            "assert main(['speak', 'Good morning.', '--backend', 'onnx', '--voice', sys.argv[1], '-o', sys.argv[2]]) == 0\n"
            "try: import lewm_tts.engine\nexcept ModuleNotFoundError as e: print(e)")
    r = subprocess.run([sys.executable, '-c', code, str(folders['toy-en'][1]), str(place/'cli.wav')], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0 and 'OrtVoice' in r.stdout and (place/'cli.wav').stat().st_size > 40_000, r.stderr


@pytest.mark.parametrize('name,text,kw', [
    ('toy-en', 'The committee examined the proposal before the meeting.', {}),
    ('toy-en', 'She opened the window. He wrote a letter to his brother; nobody came.', dict(speed=1.4)),
    ('toy-en', 'Yes.', dict(speed=.5)),
    ('toy-en', '[pause 0.3] Dr. Smith paid $5.20 at 9:15 [pause 1] and left.', {}),
    ('toy-en', 'raw bytes stay', dict(normalise=False)),
    ('twelve', 'Good morning to all of you. Nobody came to the old house on the hill.', dict(speaker=0)),
    ('twelve', 'The doctor will see you on Monday.', dict(speaker=7, speed=.8)),
    ('twelve', 'Two friends met near the bridge.', dict(speaker=13)),
    ('twelve', 'नमस्ते दुनिया।', dict(speaker=12)),
])
def test_says_what_the_engine_says(folders, name, text, kw):
    engine, folder = folders[name]; v = OrtVoice.load(folder)
    want = engine.speak(text, check=False, **kw); got = v.speak(text, check=False, **kw)
    close(got.wav, want.wav, text)
    assert np.abs(got.mel-want.mel.numpy()).max() < .05 and got.text == want.text and got.ended == want.ended and got.guards == want.guards
    assert [w.text for w in got.words] == [w.text for w in want.words]
    for a, b in zip(got.words, want.words, strict=True): assert abs(a.start-b.start) < 1e-4 and abs(a.end-b.end) < 1e-4
    for a, b in zip(got.parts, want.parts, strict=True):
        assert a.z.shape == tuple(b.z.shape) and np.abs(a.z-b.z.numpy()).max() < 1e-3 and np.abs(a.pos-b.pos.numpy()).max() < 1e-3 and np.abs(a.dur-b.dur.numpy()).max() < 1e-3
    assert np.abs(np.concatenate([c.wav for c in v.stream(text, check=False, **kw)])-got.wav).max() < 1e-4


def test_the_guards_agree(folders):
    "What one refuses the other refuses, for the same reason."
    engine, folder = folders['toy-en']; v = OrtVoice.load(folder)
    for text in ('x'*70, 'a', 'zzzz zzzz zzzz'):
        said = []
        for who in (engine, v):
            try: who.speak(text, retries=0); said.append('')
            except UserError as e: said.append(str(e))
        assert said[0] == said[1], said


def test_other_kinds(place):
    "A stop head, no window, transposed decoder, two latents a step, several untrained speakers."
    voc = fast_vocos(SmallVocos(32, 2, 64).eval())
    for i, kw in enumerate((dict(align='free', window=0, dec_style='transposed', downsample=2, latent='kl', head='gauss'), dict(align='guided', window=6), dict(chunk=3, n_speakers=3, window=4), dict(head='energy', chunk=2))):
        torch.manual_seed(i); m = LeWMTTS(make_config('mini', **kw)).eval()
        for q in m.parameters():
            if q.ndim > 1 and not q.detach().any(): q.data.normal_(0, .05)
        if m.cfg.align == 'pointer': torch.nn.init.constant_(m.dur.out.bias, 1.6)                       # about four frames an id
        engine, v = Voice(m, voc), OrtVoice.load(export_onnx(m, voc, place/f'kind{i}'))
        kw = dict(check=False) | (dict(speaker=2) if m.cfg.n_speakers > 1 else {})
        want, got = engine.speak('hello you. bye', **kw), v.speak('hello you. bye', **kw)
        close(got.wav, want.wav, str(m.cfg.align)); assert [w.text for w in got.words] == [w.text for w in want.words]
        if want.parts[0].attn is not None: assert np.abs(got.parts[0].attn-want.parts[0].attn.numpy()).max() < 1e-3
        assert np.abs(np.concatenate([c.wav for c in v.stream('hello you. bye', **kw)])-got.wav).max() < 1e-4
        assert v.speak('hello', temperature=1., seed=3, **kw).wav.tolist() == v.speak('hello', temperature=1., seed=3, **kw).wav.tolist()


def test_int8_says_the_same_words_faster_in_bytes(folders, place):
    engine, folder = folders['twelve']
    small = export_onnx(engine.model, engine.vocoder, place/'int8', int8=True, card=engine.card)
    assert sum(p.stat().st_size for p in small.iterdir()) < .5*sum(p.stat().st_size for p in folder.iterdir())
    a, b = (OrtVoice.load(f).speak(PAGE, speaker=3) for f in (folder, small))
    assert abs(a.seconds-b.seconds) < .05*a.seconds and [w.text for w in a.words] == [w.text for w in b.words] and b.ended and not b.tries


def test_two_threads_share_a_voice(folders):
    v = OrtVoice.load(folders['toy-en'][1]); texts = ['Good morning.', 'Nobody came to the house.']; want = [v.speak(t).wav for t in texts]; got = [None]*8
    def work(i): got[i] = v.speak(texts[i % 2]).wav
    ts = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in ts: t.start()
    for t in ts: t.join()
    assert all(g is not None and (g == want[i % 2]).all() for i, g in enumerate(got))


# --- broken folders ---------------------------------------------------------------------------------------------------------------------------

def tries(folder):
    "Load and speak: '' if that went well, else what was said."
    try: OrtVoice.load(folder).speak('hi', check=False); return ''
    except UserError as e: assert one_line(e), repr(e); return str(e)


@pytest.mark.parametrize('file', ['text.onnx', 'step.onnx', 'decoder.onnx', 'vocoder.onnx'])
def test_damaged_graphs(small, tmp_path, file):
    rng = random.Random(file)
    for k in range(6):
        bad = shutil.copytree(small, tmp_path/f'{k}'); p = bad/file; b = bytearray(p.read_bytes())
        if k == 0: p.unlink()
        elif k == 1: p.write_bytes(b'')
        elif k == 2: p.write_bytes(b[:rng.randrange(len(b))])
        elif k == 3: p.write_bytes((small/('step.onnx' if file != 'step.onnx' else 'text.onnx')).read_bytes())
        else: b[rng.randrange(len(b))] ^= 1 << rng.randrange(8); p.write_bytes(b)
        assert file in tries(bad)


def test_a_graph_that_fits_its_hash_but_not_its_voice(small, tmp_path):
    "Someone renamed a graph and repaired the hash."
    bad = shutil.copytree(small, tmp_path/'x'); shutil.copy(bad/'decoder.onnx', bad/'vocoder.onnx')
    d = json.loads((bad/'voice.json').read_text()); d['graphs']['vocoder'] = d['graphs']['decoder']; (bad/'voice.json').write_text(json.dumps(d))
    assert 'does not fit' in tries(bad)
    (bad/'vocoder.onnx').write_bytes(b'\x08\x09'); import hashlib
    d['graphs']['vocoder'] = dict(bytes=2, sha256=hashlib.sha256(b'\x08\x09').hexdigest()); (bad/'voice.json').write_text(json.dumps(d))
    assert 'vocoder.onnx' in tries(bad)


def test_hostile_descriptions(small, tmp_path):
    "Every field of voice.json replaced by nonsense: refused in one line, or harmless."
    good = json.loads((small/'voice.json').read_text()); bad = shutil.copytree(small, tmp_path/'x'); p = bad/'voice.json'
    def say(d): p.write_text(json.dumps(d)); return tries(bad)
    assert say(good) == ''
    for junk in (None, [], 'x', -1, 1e99, {}):
        for k in good: assert say({**good, k: junk}) or k in ('vocoder', 'card'), (k, junk)
        for k in good['numbers']: assert say({**good, 'numbers': {**good['numbers'], k: junk}}), (k, junk)
        for k in ('sr', 'align', 'n_speakers', 'text_norm'): say({**good, 'config': {**good['config'], k: junk}})
        assert say({**good, 'card': {'early': junk}}), junk
    for k in good['numbers']:
        for x in (1, 3, 7): say({**good, 'numbers': {**good['numbers'], k: x if k != 'bos' else [x]}})
    for k, v in dict(align='free', n_speakers=3, heads=0, window=0).items(): assert say({**good, 'config': {**good['config'], k: v}}), k
    for k in good['numbers']:
        d = {**good, 'numbers': {x: v for x, v in good['numbers'].items() if x != k}}; assert say(d), k
    for text in ('', '{', '[1]', 'null', '\0', '{"format": "lewm_tts onnx"}'): p.write_text(text); assert tries(bad)
    p.write_bytes(b'\xff\xfe\x00'); assert 'not valid JSON' in tries(bad)
    p.unlink(); assert 'voice.json is missing' in tries(bad)
    assert 'voice.json is missing' in tries(tmp_path/'nowhere')


def test_no_onnxruntime(small):
    r = python(BLOCK.replace("['torch'", "['onnxruntime', 'torch'") + f"""
from lewm_tts.core import UserError
from lewm_tts.ort import OrtVoice
try: OrtVoice.load({str(small)!r})
except UserError as e: print(e)
""")
    assert r.returncode == 0 and 'pip install onnxruntime' in r.stdout, r.stderr


# --- export, interrupted ----------------------------------------------------------------------------------------------------------------------

SLOW = f"""
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)   # a job in the background ignores it
import sys, time; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from lewm_tts import export
from lewm_tts.core import make_config
from lewm_tts.decoder import SmallVocos
from lewm_tts.live import fast_vocos
from lewm_tts.model import LeWMTTS
write = export.write_graph
def slow(m, path, dynamo=False):
    r = write(m, path, dynamo)
    if path.name == 'decoder.onnx': print('here', flush=True); time.sleep(60)
    return r
export.write_graph = slow
export.export_onnx(LeWMTTS(make_config('mini')).eval(), fast_vocos(SmallVocos(32, 2, 64).eval()), Path(sys.argv[1]))
"""


@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGKILL])
def test_export_interrupted(tmp_path, sig, small):
    p = subprocess.Popen([sys.executable, '-c', SLOW, str(tmp_path/'v')], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert p.stdout.readline().strip() == 'here'
    assert not (tmp_path/'v').exists() and len(list(tmp_path.iterdir())) == 1                # at work, under another name
    p.send_signal(sig); p.wait(30)
    assert not (tmp_path/'v').exists()
    left = list(tmp_path.iterdir())
    assert left == [] if sig == signal.SIGINT else all(x.name.startswith('.') for x in left)   # nobody can clean up after a kill, but what is left is hidden and no voice


def test_a_failing_export_keeps_the_old_one(small, tmp_path, monkeypatch):
    old = shutil.copytree(small, tmp_path/'v'); before = {p.name: p.read_bytes() for p in old.iterdir()}
    def broken(m, path, dynamo=False): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(export, 'write_graph', broken)
    with pytest.raises(UserError, match='No space left'): export_onnx(LeWMTTS(make_config('mini')).eval(), fast_vocos(SmallVocos(32, 2, 64).eval()), old)
    assert {p.name: p.read_bytes() for p in old.iterdir()} == before and [p.name for p in tmp_path.iterdir()] == ['v']


def test_another_process_was_faster(folders, tmp_path, monkeypatch):
    monkeypatch.setenv('LEWM_TTS_CACHE', str(tmp_path))
    real = export.export_onnx
    def late(model, vocoder, out, *a):
        shutil.copytree(folders['toy-en'][1], out); raise UserError('cannot write: Directory not empty')
    monkeypatch.setattr(export, 'export_onnx', late)
    assert OrtVoice.load(onnx_folder('toy-en')).card['early'] == folders['toy-en'][0].card['early'] and real is not late
