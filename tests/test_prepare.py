"Recordings into clips: every kind of bad file ends in a reason, a kill changes nothing, the same folder gives the same bytes."
import argparse, importlib.util, json, os, shutil, signal, subprocess, sys, time
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import lewm_tts.clips as C
import lewm_tts.recordings as R
from lewm_tts.core import UserError, recordings_dir
from lewm_tts.data import Corpus, espeak_available, speak_espeak

LISTENS = importlib.util.find_spec('pocketsphinx') is not None


def babble(seconds, seed=0, sr=24000, quiet=.2):
    "Syllables of a buzz between two stretches of room noise: enough of speech for everything but a recogniser."
    r = np.random.default_rng(seed)
    t = np.arange(round(seconds * sr)) / sr
    f0 = 110 + 10 * (seed % 9)
    v = sum(np.sin(2 * np.pi * f0 * k * t + r.uniform(0, 6)) / k for k in range(1, 12) if f0 * k < sr / 2.2)
    v = .1 * v * (.55 + .45 * np.sin(2 * np.pi * 4 * t))
    pad = round(quiet * sr)
    return (np.r_[np.zeros(pad), v, np.zeros(pad)] + 2e-4 * r.standard_normal(len(v) + 2 * pad)).astype(np.float32)


def put(folder, name, wav=None, text='a few plain words', sr=24000, **kw):
    folder.mkdir(parents=True, exist_ok=True)
    if wav is not None: sf.write(folder / name, wav, sr, **kw)
    if text is not None: (folder / name).with_suffix('.txt').write_text(text, encoding='utf-8')
    return folder / name


def rows(out, name): return pq.read_table(out / f'{name}.parquet').to_pylist()


def contents(out):
    "Every file but the journal, whose order is that of the processes."
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob('*')) if p.is_file() and p.name != 'journal.jsonl'}


def sparse_wav(path, seconds, sr=4000):
    "Silence that takes no room on the disk."
    n = seconds * sr * 2
    with open(path, 'wb') as f:
        f.write(b'RIFF' + (n + 36).to_bytes(4, 'little') + b'WAVEfmt ' + (16).to_bytes(4, 'little') + (1).to_bytes(2, 'little') * 2
                + sr.to_bytes(4, 'little') + (2 * sr).to_bytes(4, 'little') + b'\2\0\x10\0' + b'data' + n.to_bytes(4, 'little'))
        f.truncate(44 + n)


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    "One folder with all that can go wrong, and some that does not."
    src, out = tmp_path_factory.mktemp('mixed'), tmp_path_factory.mktemp('out') / 'clips'
    good = babble(1.5)
    put(src, 'good.wav', good)
    put(src, 'stereo48.flac', np.stack([babble(1.5, 1, 48000)] * 2, 1), sr=48000)
    put(src, 'phone8.wav', babble(1.5, 2, 8000), sr=8000, subtype='PCM_U8')
    put(src, 'float.wav', babble(1.5, 3, 44100), sr=44100, subtype='FLOAT')
    put(src, 'lossy.mp3', babble(1.5, 4)); put(src, 'vorbis.ogg', babble(1.5, 5)); put(src, 'deep24.wav', babble(1.5, 6), subtype='PCM_24')
    put(src, 'mirrored.wav', np.stack([babble(1.5, 7), -babble(1.5, 7)], 1))
    put(src, 'misnamed.wav', babble(1.5, 8), format='FLAC')
    put(src, 'twin.flac', sf.read(src / 'good.wav')[0]); put(src, 'twin_other.flac', sf.read(src / 'good.wav')[0], 'quite another text')
    put(src, 'empty.wav'); (src / 'empty.wav').touch()
    put(src, 'noise.wav'); (src / 'noise.wav').write_bytes(np.random.default_rng(0).bytes(5000))
    put(src, 'letter.wav'); (src / 'letter.wav').write_text('Dear Anna,')
    whole = put(src, 'short.wav', babble(1.5, 9)).read_bytes(); (src / 'short.wav').write_bytes(whole[:len(whole) // 2])
    whole = put(src, 'short.flac', babble(1.5, 10)).read_bytes(); (src / 'short2.flac').write_bytes(whole[:len(whole) // 2])
    (src / 'short.flac').unlink(); put(src, 'short2.flac')
    put(src, 'headonly.wav', np.zeros(0, np.float32))
    put(src, 'nan.wav', np.full(24000, np.nan, np.float32), subtype='FLOAT')
    put(src, 'silent.wav', np.zeros(24000, np.float32))
    put(src, 'blink.wav', babble(.1, 11, quiet=0))
    put(src, 'mute.wav', babble(1.5, 12), text=None)
    put(src, 'latin.wav', babble(1.5, 13), text=None); (src / 'latin.txt').write_bytes('caf\xe9'.encode('latin-1'))
    put(src, 'blank.wav', babble(1.5, 14), ' \n'); put(src, 'dots.wav', babble(1.5, 15), '... !')
    put(src, 'novel.wav', babble(1.5, 16), 'far too many words for so short a sound ' * 4)
    put(src, 'flat.wav', np.clip(4 * babble(1.5, 17), -.2, .2))
    put(src, 'song.m4a', text=None); (src / 'song.m4a').write_bytes(b'\0\0\0 ftypM4A ')
    put(src, 'night.wav'); sparse_wav(src / 'night.wav', 3 * 3600)
    put(src, 'sleep.wav', text='all the words of a long night ' * 300); sparse_wav(src / 'sleep.wav', 3 * 3600)
    return src, out, R.prepare(src, out, workers=2, progress=False, aligner='auto')


REASONS = {
    'twin': 'same sound as good', 'twin_other': 'with another text', 'empty': 'empty file', 'noise': 'not a sound file', 'letter': 'not a sound file',
    'short': 'cut short', 'headonly': 'no samples', 'nan': 'NaN', 'silent': 'silent', 'blink': 'are needed', 'mute': 'no text beside it',
    'latin': 'not UTF-8', 'blank': 'is empty', 'dots': 'nothing to speak', 'novel': 'not what is said', 'flat': 'clipped', 'song': 'convert it',
    'night': 'give the whole transcript', 'sleep': 'silent' if LISTENS else 'longer than'}
KEPT = ['good', 'stereo48', 'phone8', 'float', 'lossy', 'vorbis', 'deep24', 'mirrored', 'misnamed']


@pytest.mark.parametrize('name', REASONS)
def test_reason(mixed, name):
    got = {r['id']: r['reason'] for r in rows(mixed[1], 'set_aside')}
    assert REASONS[name] in got[name], got[name]
    assert any(name == i for _, i, _ in mixed[2].set_aside) and REASONS[name].split()[-1] in (mixed[1] / 'report.txt').read_text()


def test_truncated_flac(mixed):
    got = {r['id']: r['reason'] for r in rows(mixed[1], 'set_aside')}
    assert 'cut short' in got['short2'] or 'damaged' in got['short2'], got['short2']


@pytest.mark.parametrize('name', KEPT)
def test_kept(mixed, name):
    "Any rate, width and container becomes the same kind of clip: 24 kHz, one loudness, 50 to 80 ms of quiet."
    src, out, rep = mixed
    r = next((r for r in rows(out, 'manifest') if r['id'] == name), None)
    if LISTENS and r is None:      # a recogniser rightly finds no words in a buzz: the clip is made and measured all the same
        r = next(r for r in rows(out, 'set_aside') if r['id'] == name)
        assert 'do not match' in r['reason']
    wav, sr = sf.read(out / r['path'], dtype='float32')
    assert sr == 24000 and wav.ndim == 1 and abs(C.loudness(wav) - -23) < 1.5 and np.abs(wav).max() < .9
    lv = C.level(wav, sr); on = np.flatnonzero(lv > lv.max() - 18)
    assert .03 <= on[0] * .01 <= .08 and .05 <= len(wav) / sr - (on[-1] + 1) * .01 <= .11
    assert len(r['sha256']) == 64 and r['text'] == 'a few plain words' and r['normalised'] == 'a few plain words'
    if name == 'misnamed': assert 'FLAC' in r['note']


def test_counts(mixed):
    "Each recording ends in exactly one of the two lists, and the report adds up."
    src, out, rep = mixed
    a, b = rows(out, 'manifest'), rows(out, 'set_aside')
    assert {r['id'] for r in a}.isdisjoint(r['id'] for r in b) and {r['id'] for r in [*a, *b]} == {*KEPT, *REASONS, 'short2'}
    assert rep.clips == len(a) and sum(rep.reasons.values()) == len(b) and rep.takes == len(a) + len(b)


# --- a folder that is all right, made once with nobody listening ---

@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    "Sixty clips of two speakers, in three batches."
    src = tmp_path_factory.mktemp('plain')
    for i in range(60): put(src / ('ann' if i % 3 else 'bob'), f'c{i}.wav', babble(.6 + .01 * i, i, 16000, .1), f'word number {i} again', sr=16000)
    out = tmp_path_factory.mktemp('ref') / 'clips'
    return src, out, R.prepare(src, out, progress=False, aligner='even')


def test_same_bytes(plain, tmp_path):
    src, out, rep = plain
    assert rep.exit_code == 0 and rep.clips == 60 and rep.splits['test'] >= 1
    R.prepare(src, tmp_path / 'b', workers=1, progress=False, aligner='even')
    a, b = contents(out), contents(tmp_path / 'b')
    assert a.keys() == b.keys() and [k for k in a if a[k] != b[k]] == []
    assert {'manifest.parquet', 'set_aside.parquet', 'manifest.json', 'card.html', 'card.png', 'report.txt'} <= a.keys()


def test_corpus(plain):
    "What comes out is a corpus to train on: durations that fill the mel, sound as in the clip, held-out texts in a folder of their own."
    src, out, rep = plain
    train, test = Corpus(out), Corpus(out / 'test')
    assert len(train) == rep.splits['train'] and len(test) == rep.splits['test']
    assert not set(train.texts) & set(test.texts)
    names = json.loads((out / 'manifest.json').read_text())['speakers']
    who = {r['normalised']: r['speaker'] for r in rows(out, 'manifest')}
    for u in [*train.select([0, 7, len(train) - 1]), *test]:
        assert abs(float(u.dur.sum()) - len(u.mel)) < 1e-2 and len(u.dur) == len(u.ids) and names[u.speaker] == who[u.text]
    r = next(r for r in rows(out, 'manifest') if r['normalised'] == train[0].text)
    wav = sf.read(out / r['path'], dtype='int16')[0]
    assert np.array_equal((train[0].wav.numpy() * 32767).round().astype(np.int16), wav)


def test_again_is_free(plain):
    src, out, _ = plain
    before = {p: p.stat().st_mtime_ns for p in (out / 'audio').rglob('*.flac')}
    R.prepare(src, out, progress=False, aligner='even')
    assert {p: p.stat().st_mtime_ns for p in (out / 'audio').rglob('*.flac')} == before


KILL = """
import sys, time, lewm_tts.recordings as R
real = R.prepare_batch
def slow(*a):
    rows = real(*a); time.sleep(.3); return rows
R.prepare_batch = slow
R.prepare(sys.argv[1], sys.argv[2], workers=1, progress=False, aligner='even')
"""


def test_killed(plain, tmp_path):
    "kill -9 between batches, and a torn line in the journal: running again gives the very same files."
    src, ref, _ = plain
    out = tmp_path / 'k'
    p = subprocess.Popen([sys.executable, '-c', KILL, str(src), str(out)], start_new_session=True)
    t = time.time()
    while not (out / 'journal.jsonl').exists() and time.time() - t < 60 and p.poll() is None: time.sleep(.01)
    os.killpg(p.pid, signal.SIGKILL); p.wait()
    done = (out / 'journal.jsonl').read_bytes()
    assert 0 < done.count(b'\n') < 3 and not (out / 'manifest.parquet').exists()
    with open(out / 'journal.jsonl', 'ab') as f: f.write(done[:200])                       # a line that the kill cut in two
    (out / 'audio' / 'ann' / '.c1.flac.x7f3_q.flac').write_bytes(b'half')                  # and a file
    first = next(out / r['path'] for r in json.loads(done.split(b'\n')[0])['rows']); was = first.stat().st_mtime_ns
    R.prepare(src, out, progress=False, aligner='even')
    assert contents(out) == contents(ref) and first.stat().st_mtime_ns == was


def test_lost_audio(plain, tmp_path):
    "A clip that somebody deleted is made again."
    src, ref, _ = plain
    out = tmp_path / 'c'; shutil.copytree(ref, out)
    sorted((out / 'audio').rglob('*.flac'))[5].unlink()
    R.prepare(src, out, progress=False, aligner='even')
    assert contents(out) == contents(ref)


def test_changed(tmp_path):
    "A new text, another recipe or a new sound is seen, although the folder was prepared before."
    src, out = tmp_path / 'in', tmp_path / 'out'
    for i in range(3): put(src, f'c{i}.wav', babble(1, i), 'some words')
    go = lambda **kw: (R.prepare(src, out, workers=1, progress=False, aligner='even', **kw), {r['id']: r for r in rows(out, 'manifest')})[1]
    a = go(); (src / 'c1.txt').write_text('other words'); b = go()
    assert [a[k]['sha256'] == b[k]['sha256'] for k in a] == [True] * 3 and b['c1']['normalised'] == 'other words'
    assert {u.text for u in Corpus(out)} == {'some words', 'other words'}
    c = go(loudness=-30.)
    assert all(c[k]['sha256'] != b[k]['sha256'] and c[k]['gain'] < b[k]['gain'] - 5 for k in b)
    put(src, 'c2.wav', babble(1.2, 5), None); (src / 'c0.wav').unlink(); d = go(loudness=-30.)
    assert set(d) == {'c1', 'c2'} and d['c2']['seconds'] > c['c2']['seconds'] and len(Corpus(out)) == 2


def test_ray(plain, tmp_path, monkeypatch):
    "Two Ray workers, one of them killed in the middle of its work: the same files as without Ray."
    pytest.importorskip('ray')
    src, ref, _ = plain
    real, flag = R.prepare_batch, str(tmp_path / 'killed')

    def dies_once(takes, s, o, recipe):
        if not os.path.exists(flag):
            open(flag, 'w').close(); real(takes[:5], s, o, recipe); os.kill(os.getpid(), signal.SIGKILL)
        return real(takes, s, o, recipe)
    monkeypatch.setattr(R, 'prepare_batch', dies_once)
    R.prepare(src, tmp_path / 'r', workers=2, engine='ray', progress=False, aligner='even')
    assert os.path.exists(flag) and contents(tmp_path / 'r') == contents(ref)


# --- layouts ---

def test_tables(tmp_path):
    "LJSpeech, a TSV and a JSONL side by side; a bad line spoils only itself."
    lj, ts, js = tmp_path / 'lj', tmp_path / 'ts', tmp_path / 'js'
    for i in range(3): put(lj / 'wavs', f'L{i}.wav', babble(1, i), None); put(ts, f't{i}.wav', babble(1, 3 + i), None); put(js / 'clips', f'j{i}.flac', babble(1, 6 + i), None)
    (lj / 'metadata.csv').write_bytes(b'L0|Dr. 5 "quoted|doctor five quoted\nL1|caf\xe9|caf\xe9\nL9|not there|not there\nL2|plain words|\n')
    (ts / 'list.tsv').write_text('file\tspeaker\tsentence\tsplit\nt0.wav\tzoe\thello there\ttest\nt1.wav\tyan\t\ttrain\nt2\tzoe\tgood day to you\ttrain\n')
    (js / 'data.jsonl').write_text('{"audio_filepath": "clips/j0.flac", "text": "one line"}\n{broken\n{"audio": "j1", "text": "two lines", "speaker": 7}\n')
    rep = R.prepare(tmp_path, tmp_path / 'out', progress=False, aligner='even')
    kept, aside = {r['id']: r for r in rows(tmp_path / 'out', 'manifest')}, {r['id']: r['reason'] for r in rows(tmp_path / 'out', 'set_aside')}
    assert set(kept) == {'L0', 'L2', 't0', 't2', 'j0', 'j1'}
    assert kept['L0']['normalised'] == 'doctor five quoted' and kept['L0']['text'].startswith('Dr.') and kept['t0']['split'] == 'test'
    assert (kept['t0']['speaker'], kept['j1']['speaker'], kept['L0']['speaker']) == ('zoe', '7', 'lj')
    assert 'line 2: byte 7 is not UTF-8' in aside['L1'] and "no sound file for 'L9'" in aside['L9'] and 'no text in list.tsv, line 3' in aside['t1']
    assert any('data.jsonl, line 2 is no JSON' in v for v in aside.values()) and 'no text beside it' in aside['j2']
    assert rep.exit_code == 0


def test_fsdd_names(tmp_path):
    "Digits by name: the speaker from the name, takes 0 to 4 held out."
    for s in ('ann', 'bob'):
        for k in (0, 4, 5, 12): put(tmp_path / 'recordings', f'7_{s}_{k}.wav', babble(.5, k + 20 * (s == 'bob'), 8000, 0), None, sr=8000)
    R.prepare(tmp_path, tmp_path / 'out', progress=False)
    got = {r['id']: (r['speaker'], r['split'], r['normalised']) for r in rows(tmp_path / 'out', 'manifest')}
    assert got == {f'7_{s}_{k}': (s, 'test' if k < 5 else 'train', 'seven') for s in ('ann', 'bob') for k in (0, 4, 5, 12)}
    c = Corpus(tmp_path / 'out'); assert sorted(u.speaker for u in c) == [0, 0, 1, 1]
    assert sum('7_ann' in k for k in contents(tmp_path / 'out')) == 4      # its own output below the source is no recording


@pytest.mark.skipif(not (LISTENS and espeak_available()), reason='needs pocketsphinx and espeak')
def test_long_take(tmp_path):
    "Two takes with one transcript: cut at pauses, each clip with its own words; what was not read, and what is not in the text, does no harm."
    text = ['The old farmer found a small wooden box near the river.', 'My sister carried the broken lamp into the kitchen this morning.', 'Every summer the captain repaired his narrow boat in the harbor.',
            'A nervous driver returned the heavy basket to the village market.', 'The painter admired seven golden apples on the round table.']
    gap = np.random.default_rng(0).standard_normal(16000).astype('f4') * 3e-4
    said = [np.r_[speak_espeak(t.lower())[0], gap] for t in text]
    other = np.r_[speak_espeak('please remember that wednesday is a holiday for all of the banks')[0], gap]
    put(tmp_path / 'in', 'part1.wav', np.r_[gap, said[0], said[1], other], None); put(tmp_path / 'in', 'part2.wav', np.r_[said[2], said[3], said[4]], None)
    (tmp_path / 'in' / 'reading.txt').write_text(' '.join([*text[:2], 'This whole sentence was never read aloud by anyone at all.', *text[2:]]))
    rep = R.prepare(tmp_path / 'in', tmp_path / 'out', progress=False, least=1.5, longest=6.)
    kept = rows(tmp_path / 'out', 'manifest')
    assert [r['text'] for r in kept if r['text'] in text] == text, [r['text'] for r in kept] + [r['reason'] for r in rows(tmp_path / 'out', 'set_aside')]
    assert all(r['confidence'] > .5 and 1.5 <= r['seconds'] <= 6.2 for r in kept) and len(kept) == 5 and rep.exit_code == 0
    [lost] = rows(tmp_path / 'out', 'set_aside')
    assert lost['source'] == 'part1.wav' and ('heard' in lost['reason'] or 'match' in lost['reason'])


@pytest.mark.skipif(not (LISTENS and espeak_available()), reason='needs pocketsphinx and espeak')
def test_word_times(tmp_path):
    "The recogniser and the time warp find words that espeak timed itself."
    text = 'the painter carried a small wooden basket to the village'
    wav, true = speak_espeak(text); wav = wav + 1e-3 * np.random.default_rng(1).standard_normal(len(wav)).astype('f4')
    got = C.align_words(C.Listener(), wav, text)
    assert [w.text for w in got.words] == text.split() and got.confidence > .5
    assert np.median([abs(a.start - b[1]) for a, b in zip(got.words, true, strict=True)]) < .05
    bent = C.align_espeak(wav, text)
    assert np.median([abs(a.start - b[1]) for a, b in zip(bent.words, true, strict=True)]) < .05
    wrong = C.align_words(C.Listener(), wav, 'nobody expected so many letters from uncle henry')
    assert wrong is None or wrong.confidence < .2


@pytest.mark.skipif(not espeak_available(), reason='needs espeak')
def test_hindi(tmp_path):
    "Another language: its own letters, digits read out, words timed by espeak's own voice."
    put(tmp_path / 'in', 'a.wav', speak_espeak('मेरे पास दो सौ पचास किताबें हैं', 'hi', 150)[0], 'मेरे पास २५० किताबें हैं।')
    rep = R.prepare(tmp_path / 'in', tmp_path / 'out', progress=False, lang='hi')
    [r] = rows(tmp_path / 'out', 'manifest')
    assert (r['normalised'], r['aligner'], r['text']) == ('मेरे पास दो सौ पचास किताबें हैं.', 'espeak', 'मेरे पास २५० किताबें हैं।') and len(r['words']) == 7 and rep.exit_code == 0
    u = Corpus(tmp_path / 'out')[0]; assert len(u.dur) == len(r['normalised'].encode()) + 2 and float(u.dur.min()) > 0


# --- bad calls ---

def test_calls(tmp_path, plain):
    src = plain[0]
    for kw, why in [(dict(engine='x'), 'unknown engine'), (dict(loud=1), 'unknown option'), (dict(aligner='me'), 'unknown aligner'), (dict(held_out=1.), 'held_out'), (dict(least=20.), 'least'),
                    (dict(lang='fr', aligner='pocketsphinx'), 'English only')]:
        with pytest.raises(UserError, match=why): R.prepare(src, tmp_path / 'o', progress=False, **kw)
    with pytest.raises(UserError, match='no folder'): R.prepare(tmp_path / 'none', tmp_path / 'o')
    with pytest.raises(UserError, match='no recordings'): R.prepare(tmp_path, tmp_path / 'o')
    with pytest.raises(UserError, match='is the folder of the recordings'): R.prepare(src, src)
    (tmp_path / 'q').mkdir(); (tmp_path / 'q' / 'manifest.json').write_text('{"request": {}}')
    with pytest.raises(UserError, match='another corpus'): R.prepare(src, tmp_path / 'q')
    with R._alone(tmp_path / 'busy'), pytest.raises(UserError, match='another run'): R.prepare(src, tmp_path / 'busy', progress=False, aligner='even')


def test_exit_codes(tmp_path, plain, capsys):
    "0: something to train on; 1: nothing; the reasons are printed."
    p = argparse.ArgumentParser(); R.add_arguments(p)
    put(tmp_path / 'in', 'a.wav', babble(1), None)
    assert R.main_prepare(p.parse_args([str(tmp_path / 'in'), str(tmp_path / 'out'), '--quiet'])) == 1
    said = capsys.readouterr().out
    assert 'no text beside it' in said and 'nothing usable' in said and not (tmp_path / 'out' / 'manifest.json').exists()
    put(tmp_path / 'in', 'a.wav', text='some words')
    assert R.main_prepare(p.parse_args([str(tmp_path / 'in'), str(tmp_path / 'out'), '--quiet', '--aligner', 'even'])) == 0
    with pytest.raises(UserError, match='workers'): R.main_prepare(p.parse_args(['a', 'b', '--workers', '0']))


# --- real recordings, where there are any ---

@pytest.mark.skipif(recordings_dir() is None or not (recordings_dir() / 'LJSpeech-mini').exists() or not LISTENS, reason='no LJSpeech-mini, or no pocketsphinx')
def test_ljspeech_mini(tmp_path):
    src = tmp_path / 'lj'; (src / 'wavs').mkdir(parents=True); full = recordings_dir() / 'LJSpeech-mini'
    lines = (full / 'metadata.csv').read_text().splitlines()[:5]
    for line in lines: os.symlink(full / 'wavs' / f"{line.split('|')[0]}.wav", src / 'wavs' / f"{line.split('|')[0]}.wav")
    a, b = lines[3].split('|'), lines[4].split('|')
    (src / 'metadata.csv').write_text('\n'.join([*lines[:3], '|'.join([a[0], *b[1:]]), '|'.join([b[0], *a[1:]])]))     # two texts exchanged
    rep = R.prepare(src, tmp_path / 'out', progress=False)
    assert [r['id'][-1] for r in rows(tmp_path / 'out', 'manifest')] == ['1', '2', '3'] and rep.aligners == {'pocketsphinx': 3}
    assert all('match' in r['reason'] or 'not what is said' in r['reason'] for r in rows(tmp_path / 'out', 'set_aside'))
