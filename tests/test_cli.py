"The `lewm-tts` command: what it says on bad input, what it writes on good input, and that nothing half-written stays behind."
import json, os, re, resource, shlex, shutil, signal, subprocess, sys, time, wave
from pathlib import Path

import pytest
import soundfile
import torch

from lewm_tts.cli import _EXAMPLES, _parser, main
from lewm_tts.core import UserError, voices_dir
from lewm_tts.data import espeak_available
from lewm_tts.engine import FORMATS, Voice
from lewm_tts.script import split_text

SHIPPED = voices_dir() / 'toy-en'
CLI = [sys.executable, '-c', 'from lewm_tts.cli import main; raise SystemExit(main())']
INTERRUPTIBLE = [*CLI[:2], 'import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n' + CLI[2]]   # a job in the background ignores SIGINT


@pytest.fixture(scope='module')
def voice(): return Voice.load()


@pytest.fixture
def copy(tmp_path):
    "A voice folder that a test may damage."
    shutil.copytree(SHIPPED, tmp_path / 'voice')
    return tmp_path / 'voice'


def refused(capsys, *argv):
    "Run the command, insist on exit code 2 and one line without a traceback; return the line."
    assert main([str(a) for a in argv]) == 2
    out = capsys.readouterr()
    lines = [x for x in out.err.splitlines() if x.startswith('lewm-tts:')]
    assert len(lines) == 1 and 'Traceback' not in out.err, out.err
    return lines[0]


def nothing_left(folder): assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize('text', ['', '   ', '\n\t ', '☃☃'])
def test_text_without_words_is_refused(capsys, tmp_path, text):
    line = refused(capsys, 'speak', text, '-o', tmp_path / 'x.wav')
    assert re.search('empty|nothing|no ', line)
    nothing_left(tmp_path)


def test_missing_arguments(capsys, tmp_path):
    assert '-o' in refused(capsys, 'speak', 'hello')
    assert 'TEXT' in refused(capsys, 'speak', '-o', tmp_path / 'x.wav')
    assert '--out-dir' in refused(capsys, 'speak', '--list', tmp_path / 'l.txt')
    assert 'l.txt' in refused(capsys, 'speak', '--list', tmp_path / 'l.txt', '--out-dir', tmp_path / 'o')
    assert 'speed' in refused(capsys, 'speak', 'hello', '-o', tmp_path / 'x.wav', '--speed', '9')
    assert 'speaker' in refused(capsys, 'speak', 'hello', '-o', tmp_path / 'x.wav', '--speaker', '3')
    assert 'eva' in refused(capsys, 'speak', 'hello', '-o', tmp_path / 'x.wav', '--speaker', 'eva')
    assert '.flac' in refused(capsys, 'speak', 'hello', '-o', tmp_path / 'x.aac')
    assert '.srt' in refused(capsys, 'speak', 'hello', '-o', tmp_path / 'x.wav', '--captions', tmp_path / 'x.txt')
    assert '--out-dir' in refused(capsys, 'speak', '--list', tmp_path / 'l.txt', '--out-dir', tmp_path / 'o', '-o', tmp_path / 'x.wav')
    assert 'pause' in refused(capsys, 'speak', 'wait [pause long] here', '-o', tmp_path / 'x.wav')
    assert 'no.safetensors' in refused(capsys, 'speak', 'hello', '-o', tmp_path / 'x.wav', '--prompt', tmp_path / 'no.safetensors')
    assert 'no.wav' in refused(capsys, 'clone', tmp_path / 'no.wav', tmp_path / 'p.safetensors')
    nothing_left(tmp_path)


@pytest.mark.parametrize('words', [['speek', 'hello'], ['speak', 'hello', '--speed', 'fast'], ['speak', 'hello', '--nonsense'], []])
def test_mistyped_words_get_one_line_too(capsys, words):
    with pytest.raises(SystemExit) as e: main(words)
    err = capsys.readouterr().err
    assert e.value.code == 2 and len(err.splitlines()) == 1 and err.startswith('lewm-tts:') and '--help' in err


def test_stdin_that_is_not_utf8(tmp_path):
    p = subprocess.run([*CLI, 'speak', '-', '-o', str(tmp_path / 'x.wav')], input=b'caf\xe9 open', capture_output=True, timeout=120)
    err = p.stderr.decode()
    assert p.returncode == 2 and 'UTF-8' in err and '0xe9' in err and 'Traceback' not in err
    nothing_left(tmp_path)


def test_a_list_names_the_bad_line_before_anything_is_spoken(capsys, tmp_path):
    (tmp_path / 'l.txt').write_text('hello there.\n\ngood bye.\n')
    assert 'line 2' in refused(capsys, 'speak', '--list', tmp_path / 'l.txt', '--out-dir', tmp_path / 'o')
    assert not (tmp_path / 'o').exists()
    (tmp_path / 'l.txt').write_bytes(b'hello\xff')
    assert 'UTF-8' in refused(capsys, 'speak', '--list', tmp_path / 'l.txt', '--out-dir', tmp_path / 'o')


def test_missing_and_corrupt_voices(capsys, tmp_path, copy):
    out = ['-o', tmp_path / 'x.wav']
    assert 'nowhere' in refused(capsys, 'speak', 'hi', *out, '--voice', tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    assert 'config.json' in refused(capsys, 'speak', 'hi', *out, '--voice', tmp_path / 'empty')
    whole = (copy / 'model.safetensors').read_bytes()
    for bad in (whole[:1000], whole[:-100], b'', b'\x80\x04pickle', b'\xff' * 64):
        (copy / 'model.safetensors').write_bytes(bad)
        assert 'model.safetensors' in refused(capsys, 'speak', 'hi', *out, '--voice', copy)
    (copy / 'model.safetensors').write_bytes(whole)
    voc = (copy / 'vocoder.safetensors').read_bytes()
    (copy / 'vocoder.safetensors').write_bytes(voc[:5000])
    assert 'vocoder.safetensors' in refused(capsys, 'speak', 'hi', *out, '--voice', copy)
    (copy / 'vocoder.safetensors').write_bytes(voc)
    assert main(['speak', 'hi', '-o', str(tmp_path / 'x.wav'), '--voice', str(copy)]) == 0


def test_a_config_that_does_not_belong(capsys, tmp_path, copy):
    out = ['-o', tmp_path / 'x.wav']
    cfg = json.loads((copy / 'config.json').read_text())
    for change, word in (({'preset': 'base', 'width': 384, 'heads': 6}, 'do not fit'), ({'widht': 3}, 'width'), ({'width': 'wide'}, 'width'), ({'width': -8}, 'config')):
        (copy / 'config.json').write_text(json.dumps({**cfg, **change}))
        assert word in refused(capsys, 'speak', 'hi', *out, '--voice', copy)
    (copy / 'config.json').write_text('{"preset": ')
    assert 'config.json' in refused(capsys, 'speak', 'hi', *out, '--voice', copy)
    assert not (tmp_path / 'x.wav').exists()


def test_an_output_path_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / 'file').write_text('keep me')
    assert 'file' in refused(capsys, 'speak', 'hi', '-o', tmp_path / 'file' / 'x.wav')
    assert refused(capsys, 'speak', 'hi', '-o', tmp_path)
    assert (tmp_path / 'file').read_text() == 'keep me' and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_no_half_file(tmp_path):
    "RLIMIT_FSIZE makes every longer write fail, as a full disk does."
    old = b'the old sound'
    (tmp_path / 'x.wav').write_bytes(old)
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    p = subprocess.run([*CLI, 'speak', 'a sentence that needs more room.', '-o', str(tmp_path / 'x.wav')], capture_output=True, text=True, timeout=120, preexec_fn=limit)
    assert p.returncode == 2 and 'x.wav' in p.stderr and 'Traceback' not in p.stderr, p.stderr
    assert (tmp_path / 'x.wav').read_bytes() == old and len(list(tmp_path.iterdir())) == 1


def test_a_cache_without_room(tmp_path):
    "The corpus cache, too: one line, the folder named, no shard half-written."
    pytest.importorskip('espeakng_loader', reason='needs the toy extra')
    code = ("import resource, sys; from lewm_tts.data import build_corpus; from lewm_tts.core import UserError, cache_dir\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "try: build_corpus(['good morning to you.'], cache_dir()/'c', progress=False, workers=1)\n"
            "except UserError as e: print('USER', e); sys.exit(2)")
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, env={**os.environ, 'LEWM_TTS_CACHE': str(tmp_path / 'cache')})
    assert p.returncode == 2 and 'USER' in p.stdout and len(p.stdout.strip().splitlines()) == 1, p.stdout + p.stderr
    assert not list((tmp_path / 'cache').rglob('*.safetensors'))
    (tmp_path / 'file').write_text('')
    p = subprocess.run([sys.executable, '-c', 'from lewm_tts.core import cache_dir; cache_dir()'], capture_output=True, text=True,
                       env={**os.environ, 'LEWM_TTS_CACHE': str(tmp_path / 'file' / 'c')})
    assert 'UserError' in p.stderr and 'LEWM_TTS_CACHE' in p.stderr


def test_good_output(capsys, tmp_path):
    assert main(['speak', "It's 7:30, and 42 % of 3 CATS said: \"naïve\"?", '-o', str(tmp_path / 'new' / 'a.wav'), '--seed', '3']) == 0
    assert main(['speak', "It's 7:30, and 42 % of 3 CATS said: \"naïve\"?", '-o', str(tmp_path / 'b.wav'), '--seed', '3']) == 0
    with wave.open(str(tmp_path / 'b.wav')) as f: assert (f.getframerate(), f.getsampwidth(), f.getnchannels()) == (24000, 2, 1) and f.getnframes() > 24000
    assert (tmp_path / 'b.wav').read_bytes() == (tmp_path / 'new' / 'a.wav').read_bytes()


def test_a_list_is_spoken_line_by_line(tmp_path):
    (tmp_path / 'l.txt').write_text('hello.\ngood bye.\n')
    assert main(['speak', '--list', str(tmp_path / 'l.txt'), '--out-dir', str(tmp_path / 'o')]) == 0
    assert sorted(p.name for p in (tmp_path / 'o').iterdir()) == ['0000.wav', '0001.wav']


def test_stdin_is_spoken(tmp_path):
    p = subprocess.run([*CLI, 'speak', '-', '-o', str(tmp_path / 'x.wav')], input='good morning.'.encode(), capture_output=True, timeout=120)
    assert p.returncode == 0, p.stderr
    assert (tmp_path / 'x.wav').stat().st_size > 20000


@pytest.mark.skipif(not espeak_available(), reason='the autopsy needs espeak as reference (the toy extra)')
def test_report_examines_and_names_the_disease(capsys, tmp_path):
    sick = Path(__file__).resolve().parent.parent / 'data' / 'ward' / 'leak'
    assert main(['report', str(sick), '--vocoder', 'griffin-lim', '--quick', '--page', str(tmp_path / 'p.png'), '--json', str(tmp_path / 'r.json')]) == 0
    said, kept = capsys.readouterr().out, json.loads((tmp_path / 'r.json').read_text())['autopsy']
    assert 'LEAK: ' in said and 'prefix gap' in said and kept['diagnosis'][0]['key'] == 'leak'
    assert (tmp_path / 'p.png').read_bytes()[:4] == b'\x89PNG'
    assert 'two voices' in refused(capsys, 'report', sick, '--voice', sick)


def test_formats_and_captions(tmp_path):
    text = 'It is 7:30, and $5 is not much.'
    for f in FORMATS: assert main(['speak', text, '-o', str(tmp_path / f'x.{f}'), '--captions', str(tmp_path / f'x.{f}.srt')]) == 0
    sound = {f: soundfile.read(tmp_path / f'x.{f}')[0] for f in FORMATS}
    assert abs(sound['flac'] - sound['wav']).max() < 1 / 32767 and all(abs(len(y) / len(sound['wav']) - 1) < .1 for y in sound.values())
    srt = (tmp_path / 'x.wav.srt').read_text()
    assert '$5' in srt and '7:30,' in srt and 'dollars' not in srt and '00:00:0' in srt and '-->' in srt
    assert len({(tmp_path / f'x.{f}.srt').read_text() for f in FORMATS}) == 1
    assert main(['speak', text, '-o', str(tmp_path / 'x.wav'), '--captions', str(tmp_path / 'x.vtt')]) == 0
    assert (tmp_path / 'x.vtt').read_text().startswith('WEBVTT')


def test_raw_text_is_read_as_it_stands(tmp_path):
    for flags in ([], ['--raw-text']): assert main(['speak', 'room 7.', '-o', str(tmp_path / f'{len(flags)}.wav'), *flags]) == 0
    assert (tmp_path / '0.wav').read_bytes() != (tmp_path / '1.wav').read_bytes()
    assert main(['speak', 'room seven.', '-o', str(tmp_path / 'words.wav')]) == 0
    assert (tmp_path / '0.wav').read_bytes() == (tmp_path / 'words.wav').read_bytes()


def speaking(*words, **kw): return subprocess.Popen([*CLI, 'speak', *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)


def test_sound_comes_before_the_text_ends(tmp_path):
    "Text into one pipe, sound out of the other, and the same samples as from a file."
    p = speaking('-', '-o', '-', '--format', 'pcm')
    p.stdin.write('The first, über alles: ein müder Satz. The sec'.encode()[:-1]); p.stdin.flush()
    got = p.stdout.read(24000)                    # half a second, while our end of the pipe is still open
    assert len(got) == 24000
    p.stdin.write(b'cond one.'); p.stdin.close()
    got += p.stdout.read()
    assert p.wait(60) == 0 and b'Traceback' not in p.stderr.read()
    assert main(['speak', 'The first, über alles: ein müder Satz. The second one.', '-o', str(tmp_path / 'x.wav')]) == 0
    with wave.open(str(tmp_path / 'x.wav')) as f: assert f.readframes(10**9) == got


@pytest.mark.parametrize('fmt', ['wav', 'flac', 'mp3', 'ogg'])
def test_a_pipe_carries_any_format(tmp_path, fmt):
    p = subprocess.run([*CLI, 'speak', 'good morning to you.', '-o', '-', '--format', fmt], capture_output=True, timeout=120)
    assert p.returncode == 0 and b'piece' not in p.stderr
    if fmt == 'wav': assert p.stdout[:4] == b'RIFF' and len(p.stdout) > 24000
    else:
        (tmp_path / f'x.{fmt}').write_bytes(p.stdout)
        y, sr = soundfile.read(tmp_path / f'x.{fmt}')
        assert .5 < len(y) / sr < 3 and abs(y).max() > .05


def test_a_reader_that_hangs_up(tmp_path):
    p = speaking('one more sentence about the river. ' * 60, '-o', '-')
    assert len(p.stdout.read(1000)) == 1000
    p.stdout.close()
    assert p.wait(60) == 1 and p.stderr.read() == b''


@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_the_middle(tmp_path, how):
    (tmp_path / 'x.wav').write_bytes(b'the old sound')
    p = subprocess.Popen([*INTERRUPTIBLE, 'speak', 'one more sentence about the river. ' * 400, '-o', str(tmp_path / 'x.wav')], stderr=subprocess.PIPE, text=True)
    t = time.time()
    while p.poll() is None and not list(tmp_path.glob('.x.wav*')) and time.time() - t < 100: time.sleep(.02)
    p.send_signal(how)
    assert p.wait(60) == 130 and p.stderr.read().splitlines() == ['lewm-tts: stopped']
    assert (tmp_path / 'x.wav').read_bytes() == b'the old sound' and len(list(tmp_path.iterdir())) == 1


def test_workers_stopped_in_the_middle(tmp_path):
    "Ctrl-C reaches every process of the group at once."
    (tmp_path / 'l.txt').write_text('one more sentence about the river. and another one about the hill behind it.\n' * 400)
    p = subprocess.Popen([*INTERRUPTIBLE, 'speak', '--list', str(tmp_path / 'l.txt'), '--out-dir', str(tmp_path / 'o'), '--workers', '2'], stderr=subprocess.PIPE, text=True, start_new_session=True)
    t = time.time()
    while p.poll() is None and len(list(tmp_path.glob('o/0*.wav'))) < 4 and time.time() - t < 100: time.sleep(.02)
    os.killpg(p.pid, signal.SIGINT)
    assert p.wait(60) == 130 and p.stderr.read().splitlines() == ['lewm-tts: stopped']
    made = list((tmp_path / 'o').iterdir())
    assert all(re.fullmatch(r'\d{4}\.wav', f.name) for f in made), [f.name for f in made]
    assert 4 <= len(made) < 400 and all(soundfile.info(f).frames > 24000 for f in made)      # whole files only, no .0123.wav.tmp


def test_a_terminal_gets_no_sound():
    import pty
    screen, theirs = pty.openpty()
    p = subprocess.run([*CLI, 'speak', 'hello', '-o', '-'], stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(theirs); os.close(screen)
    assert p.returncode == 2 and 'aplay' in p.stderr and len(p.stderr.splitlines()) == 1


def test_a_voice_prompt(capsys, tmp_path):
    assert main(['speak', 'a few words of mine.', '-o', str(tmp_path / 'me.wav')]) == 0
    assert main(['clone', str(tmp_path / 'me.wav'), str(tmp_path / 'me.safetensors'), '--text', 'a few words of mine.']) == 0
    assert 'me.safetensors' in capsys.readouterr().out
    for i, prompt in enumerate(([], ['--prompt', str(tmp_path / 'me.safetensors')])): assert main(['speak', 'and now others.', '-o', str(tmp_path / f'{i}.wav'), *prompt]) == 0
    assert (tmp_path / '0.wav').read_bytes() != (tmp_path / '1.wav').read_bytes()


def test_a_list_equals_its_lines(tmp_path):
    lines = ['hello.', 'good bye, and thank you for everything.', 'how are you?', 'seven boats left the harbour today.']
    (tmp_path / 'l.txt').write_text('\n'.join(lines))
    assert main(['speak', '--list', str(tmp_path / 'l.txt'), '--out-dir', str(tmp_path / 'o'), '--lanes', '3']) == 0
    assert main(['speak', '--list', str(tmp_path / 'l.txt'), '--out-dir', str(tmp_path / 'two'), '--workers', '2', '--format', 'flac']) == 0
    for i in range(len(lines)):
        a, b = (soundfile.read(tmp_path / f)[0] for f in (f'o/{i:04d}.wav', f'two/{i:04d}.flac'))
        assert len(a) == len(b) and abs(a - b).max() < 2e-3
    for i, line in enumerate(lines):
        assert main(['speak', line, '-o', str(tmp_path / 'x.wav')]) == 0
        a, b = (soundfile.read(f)[0] for f in (tmp_path / 'x.wav', tmp_path / 'o' / f'{i:04d}.wav'))
        assert len(a) == len(b) and abs(a - b).max() < 2e-3, line       # a batch adds in another order


def test_one_bad_line_does_not_take_the_others(capsys, tmp_path, monkeypatch):
    import lewm_tts.engine as engine
    real = engine.verdict
    monkeypatch.setattr(engine, 'verdict', lambda part, letters, *a, **kw: 'planted' if letters == len('good bye.') else real(part, letters, *a, **kw))
    (tmp_path / 'l.txt').write_text('hello there.\ngood bye.\nhow are you?\n')
    line = refused(capsys, 'speak', '--list', tmp_path / 'l.txt', '--out-dir', tmp_path / 'o')
    assert 'line 2' in line and 'planted' in line and 'the other 2' in line
    assert sorted(p.name for p in (tmp_path / 'o').iterdir()) == ['0000.wav', '0002.wav']
    assert '--lanes 0' in refused(capsys, 'speak', '--list', tmp_path / 'l.txt', '--out-dir', tmp_path / 'o', '--lanes', '0')
    assert 'pcm' in refused(capsys, 'speak', '--list', tmp_path / 'l.txt', '--out-dir', tmp_path / 'o', '--format', 'pcm')


def test_help_comes_without_torch():
    code = "import sys\nfrom lewm_tts.cli import main\ntry: main(['--help'])\nexcept SystemExit: print([m for m in ('torch', 'numpy') if m in sys.modules])"
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert p.stdout.splitlines()[-1] == '[]', p.stdout + p.stderr


def test_every_example_can_be_parsed():
    for text in _EXAMPLES.values():
        for line in text.strip().splitlines():
            words = shlex.split(line[line.index('lewm-tts'):].split(' | ')[0])
            assert _parser(words[1]).parse_args(words[1:]).cmd == words[1]


def test_serving_without_its_packages_names_them(tmp_path):
    code = "import sys\nfor m in ('fastapi', 'uvicorn'): sys.modules[m] = None\n" + CLI[2]
    p = subprocess.run([sys.executable, '-c', code, 'serve'], capture_output=True, text=True, timeout=60)
    assert p.returncode == 2 and 'lewm_tts[serve]' in p.stderr and len(p.stderr.splitlines()) == 1, p.stderr


@pytest.mark.parametrize('cmd', ['speak', 'clone', 'serve', 'demo', 'prepare', 'train', 'report', 'train-voice'])
def test_help_has_examples(capsys, cmd):
    with pytest.raises(SystemExit) as e: main([cmd, '--help'])
    assert e.value.code == 0 and 'examples:' in capsys.readouterr().out


def test_bad_training_arguments(capsys, tmp_path):
    assert 'tiny' in refused(capsys, 'train', tmp_path, tmp_path / 'o', '--preset', 'tinny')
    assert 'steps' in refused(capsys, 'train', tmp_path, tmp_path / 'o', '--set', 'stesp=3')
    assert 'int' in refused(capsys, 'train', tmp_path, tmp_path / 'o', '--set', 'steps=many')
    assert 'manifest.json' in refused(capsys, 'train', tmp_path, tmp_path / 'o')
    assert not (tmp_path / 'o').exists()


def test_100000_characters_are_spoken_in_pieces(voice):
    text = 'the quick brown fox, which nobody had seen for a week, jumped over the lazy dog. ' * 1250
    assert len(text) >= 100_000
    pieces = split_text(text)
    assert max(map(len, pieces)) <= 75 and ' '.join(pieces).split() == text.split()
    chunks = voice.stream(text)
    first = next(chunks)
    chunks.close()
    assert len(first.wav) > 0 and first.piece == 0 and not first.last
    assert max(map(len, split_text('x' * 100_000))) <= 75 and ''.join(split_text('x' * 100_000)) == 'x' * 100_000   # an endless word
    assert split_text('a, b, c.') == ['a, b, c.'] and split_text('... !') == []


def test_short_and_long_inputs(voice):
    for text in ('a', 'no', 'yes!', 'stop.', 'good morning', 'thank you', 'see you soon', 'what is this?', '7', 'Z'):
        a = voice.speak(text)
        assert a.ended and .15 < len(a.mel) * 256 / 24000 < 2.5, (text, len(a.mel))
    words = ('the old keeper walked along the river until the light went down behind the hill and then he sat on a stone to eat the bread '
             'that his sister had put into the bag, while the dog slept beside him and the water sang. nobody came that night, so he told '
             'the story to the wind, and the wind, as always, listened.').split()
    assert len(words) >= 60
    a = voice.speak(' '.join(words))
    assert a.ended and len(a.parts) > 3 and 10 < a.seconds < 40 and bool(torch.isfinite(a.wav).all())


def test_same_seed_same_sound(voice):
    a, b, c = (voice.speak('the same sentence.', seed=s, temperature=.5).wav for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_voice_api_errors(voice):
    with pytest.raises(UserError, match='speed'): voice.speak('hello', speed=0)
    with pytest.raises(UserError): voice.speak('  ')


def test_speaking_needs_no_extra(tmp_path):
    "With the optional packages hidden, importing and speaking still work."
    code = ("import sys\nfor m in ('espeakng_loader', 'pocketsphinx', 'jiwer', 'librosa', 'accelerate', 'matplotlib', 'IPython', 'nbdev'): sys.modules[m] = None\n"
            f"from lewm_tts.cli import main\nraise SystemExit(main(['speak', 'it works alone.', '-o', {str(tmp_path / 'x.wav')!r}]))")
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stderr
    assert (tmp_path / 'x.wav').stat().st_size > 20000
