"""The engine under attack: random traffic in a `Pool`, bit equality, flat memory, guards, absurd wishes and texts, files, prompts.

LEWM_TTS_SOAK=1 runs it longer: more random traffic, and ten minutes of sound for the test of memory."""
import gc, itertools, math, os, random, re, resource, threading, time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from safetensors.torch import save_file

from lewm_tts.core import UserError, make_config, voices_dir
from lewm_tts.engine import FORMATS, How, Pool, Prompt, SpeakError, Voice
from lewm_tts.live import load_vocos
from lewm_tts.model import LeWMTTS

SHIPPED = voices_dir() / 'toy-en'
SOAK = bool(os.environ.get('LEWM_TTS_SOAK'))
if not SHIPPED.is_dir(): pytest.skip(f'no voice in {SHIPPED}: the engine has nothing to speak with', allow_module_level=True)
torch.set_num_threads(1)
VOICE = Voice.load()
HOP = VOICE.model.cfg.hop / VOICE.model.cfg.sr  # seconds per mel frame

TEXT = 'The old baker sold nine apples. Anna found it. Three birds followed.'
SAID, HI = VOICE.speak(TEXT), VOICE.speak('Hi.')
PROMPT = VOICE.clone(SAID.wav[:2*24000])
# One sentence beside others goes through larger matrix products, which add in another order. The difference passes through a rollout of up to
# 100 steps: 6e-4 is the most that hundreds of random jobs showed, nearly always it stays below 1e-4. A wrong history or latent is off by .2 and more.
TOLERANCE = 5e-3


def bits(chunks): return torch.cat([c.wav for c in chunks])


def same(a, b): return a.shape == b.shape and bool((a == b).all())


def one_line(e): return isinstance(e, UserError) and '\n' not in str(e) and 10 < len(str(e)) < 400


# --- random traffic -------------------------------------------------------------------------------------------------------------------------

TEXTS = ['a', 'Hi.', 'Anna found it.', 'Three birds followed the boat. Anna found it.', 'wait [pause 0.3] here', '7 of 12 at $5.', 'one👍two', '[pause 0.1] so',
         'no [pause 0]', 'Dr. Smith, e.g., sold it; then left.', 'the tired baker sold nine apples in the garden, and nobody knew why it was so very cold.']
WISHES = st.fixed_dictionaries(dict(seed=st.sampled_from([0, -7]), speed=st.sampled_from([1, 1, 2.5]), temperature=st.sampled_from([0, 0, .3]),
                                    prompt=st.sampled_from([None, None, PROMPT]), carry=st.booleans(), hold=st.booleans(), retries=st.sampled_from([0, 2])))
ALONE, WORST = {}, [0.]


def alone(text, wish):
    "What the voice says by itself; `hold` and `retries` make no difference to a piece that passes."
    key = text, *(id(v) if k == 'prompt' else v for k, v in wish.items() if k not in ('hold', 'retries'))
    if key not in ALONE: ALONE[key] = VOICE.speak(text, **wish)
    return ALONE[key]


def check_job(job):
    "All that must hold for a job that ended well."
    want, sr, chunks = alone(job.asked, job.wish), 24000, job.chunks
    assert job.error is None and job.done
    order = [(c.piece, c.last) for c in chunks]
    assert [p for p, _ in order] == sorted(p for p, _ in order)
    for i in range(len(job.pieces)): assert [l for p, l in order if p == i][-1:] == [True] and sum(l for p, l in order if p == i) == 1, f'piece {i} has no end or two'
    wav = bits(chunks)
    assert wav.shape == want.wav.shape and wav.abs().max() <= 1
    diff = float((wav-want.wav).abs().max()) if len(wav) else 0.
    WORST[0] = max(WORST[0], diff)
    assert diff < TOLERANCE, f'{job.asked!r} {job.wish} differs by {diff}'
    parts = [c.part for c in chunks if c.part]
    assert len(parts) == len(want.parts) == sum(bool(p.text) for p in job.pieces)
    for a, b in zip(parts, want.parts, strict=True): assert same(a.dur, b.dur) and same(a.pos, b.pos) and len(a.z) == len(b.z) and a.ended
    if parts:
        assert same(torch.cat([c.z for c in chunks]), torch.cat([p.z for p in parts])) and same(torch.cat([c.mel for c in chunks]), torch.cat([p.mel for p in parts]))
    words, seconds = [w for c in chunks for w in c.words], len(wav)/sr
    assert [w.text for w in words] == [w.text for w in want.words]
    for a, b in itertools.pairwise(words): assert a.start <= a.end <= b.start+1e-6
    assert not words or (words[0].start >= 0 and words[-1].end <= seconds+HOP)


class Traffic(RuleBasedStateMachine):
    "Jobs come, are fed, are cancelled and end in any order; at the end every one of them must have said exactly its own."
    @initialize(lanes=st.integers(1, 5), whole=st.sampled_from([False, False, True]))
    def begin(self, lanes, whole): self.pool, self.jobs, self.gone, self.ended = Pool(VOICE, lanes, whole=whole), [], [], []

    def ask(self, text, wish, whole):
        chunks = []
        job = self.pool.submit(text if whole else None, chunks.append, self.ended.append, **wish)
        job.asked, job.wish, job.chunks, job.left = text, wish, chunks, None if whole else text
        self.jobs.append(job)

    @rule(text=st.sampled_from(TEXTS), wish=WISHES, whole=st.booleans())
    def submit(self, text, wish, whole): self.ask(text, wish, whole)

    @rule(text=st.sampled_from(['', '?!', 'wait [pause 99] here', '👍']), whole=st.booleans())
    def submit_nonsense(self, text, whole):
        before = len(self.pool)
        if whole:
            with pytest.raises(UserError): self.pool.submit(text)
            assert len(self.pool) == before
        else:
            job, failed = self.pool.submit(None, None, self.gone.append), 0
            for f in (lambda: job.feed(text), job.close):
                try: f()
                except UserError: failed += 1
            assert failed

    def feed(self, job, n):
        job.feed(job.left[:n]); job.left = job.left[n:]
        if not job.left: job.close(); job.left = None

    @precondition(lambda self: any(j.left for j in self.jobs))
    @rule(data=st.data(), n=st.integers(0, 30))
    def feed_one(self, data, n): self.feed(data.draw(st.sampled_from([j for j in self.jobs if j.left])), n)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data):
        job = data.draw(st.sampled_from(self.jobs)); self.jobs.remove(job)
        if job in self.ended: return check_job(job)
        job.cancel(); job.seen = len(job.chunks); self.gone.append(job)

    @rule(n=st.integers(1, 60))
    def step(self, n):
        for _ in range(n): self.pool.step()

    @invariant()
    def packed(self):
        p = getattr(self, 'pool', None)
        if not p: return
        f = p.fast
        assert len(p.takes) == len(f.t) == len(f.n) <= f.lanes and len(p) == len(p.takes)+len(p.waiting)
        assert f.mask.shape[3] <= 2*f.size and f.text_k.shape[4] <= 2*(4*75+2) and f.rows.shape[1] <= 2*VOICE.model.cap(4*75+2)
        for j in self.gone: assert not hasattr(j, 'seen') or len(j.chunks) == j.seen, 'a cancelled job still talks'

    def teardown(self):
        if not hasattr(self, 'pool'): return
        for j in self.jobs:
            while j.left is not None: self.feed(j, 7)
        for _ in range(20000):
            if not self.pool.step(): break
        assert len(self.pool) == 0 and not self.pool.fast.t and not self.pool.takes, 'a lane is never given back'
        assert sum(j in self.ended for j in self.jobs) == len(self.jobs)
        for j in self.jobs: check_job(j)


def test_random_traffic():
    run_state_machine_as_test(Traffic, settings=settings(max_examples=150 if SOAK else 8, stateful_step_count=20, deadline=None, derandomize=not SOAK, database=None,
                                                         suppress_health_check=list(HealthCheck)))
    print(f'largest difference to the voice alone: {WORST[0]:.1e}')
    assert 0 < WORST[0], 'nothing was spoken'


def test_a_prompt_is_heard_whole_beside_a_short_neighbour():
    "The clock of a pool that has just begun is younger than the prompt is long."
    for first in (0, 1, 5, 40):
        pool, out, other = Pool(VOICE, 3), [], []
        pool.submit('Three birds followed.', other.append)
        for _ in range(first): pool.step()
        pool.submit('Anna found it.', out.append, prompt=PROMPT)
        while pool.step(): pass
        assert (bits(out)-alone('Anna found it.', dict(prompt=PROMPT)).wav).abs().max() < TOLERANCE
        assert (bits(other)-alone('Three birds followed.', {}).wav).abs().max() < TOLERANCE


def test_text_from_many_threads_while_one_steps():
    pool, out, errors = Pool(VOICE, 4), {}, []
    def talk(i):
        try:
            for k in range(3):
                job = pool.submit(None, out.setdefault((i, k), []).append)
                for part in re.findall('.{1,5}', TEXTS[9]): job.feed(part)
                job.close()
        except Exception as e: errors.append(e)
    threads = [threading.Thread(target=talk, args=(i,)) for i in range(3)]
    for t in threads: t.start()
    while any(t.is_alive() for t in threads): pool.step()
    while pool.step(): pass
    want = alone(TEXTS[9], {}).wav
    assert not errors and len(out) == 9 and len(pool) == 0
    for chunks in out.values(): assert (bits(chunks)-want).abs().max() < TOLERANCE


def test_a_listener_that_fails_ends_its_own_job_only():
    pool, out, ends = Pool(VOICE, 2), [], []
    def broken(chunk): raise RuntimeError('the listener fell over')
    bad = pool.submit(TEXT, broken, ends.append); pool.submit(TEXT, out.append, ends.append)
    while pool.step(): pass
    assert isinstance(bad.error, RuntimeError) and len(ends) == 2 and len(pool) == 0
    assert (bits(out)-SAID.wav).abs().max() < TOLERANCE


def test_cancel_from_inside_a_callback():
    pool, out, ends = Pool(VOICE, 2), [], []
    job = pool.submit('[pause 0.1] ' + TEXT, lambda c: (out.append(c), len(out) > 1 and job.cancel()), ends.append)
    while pool.step(): pass
    assert len(out) == 2 and not ends and job.done and len(pool) == 0


def test_a_job_that_cannot_be_closed_leaves_the_pool():
    pool, ends = Pool(VOICE, 1), []
    job = pool.submit(None, None, ends.append); job.feed(' ?! ')
    with pytest.raises(UserError, match='nothing to speak'): job.close()
    pool.step()
    assert len(pool) == 0 and ends == [job] and one_line(job.error)


@pytest.mark.parametrize('lanes', [0, -1, 1.5, None, 'two'])
def test_lanes_are_counted(lanes):
    with pytest.raises(UserError, match='lanes'): Pool(VOICE, lanes)
    with pytest.raises(UserError, match='lanes'): VOICE.batch(['hello'], lanes=lanes)


def test_batch_takes_a_list_of_texts():
    assert VOICE.batch([]) == []
    for bad in ('hello', None, 5, ['a', None], [b'a'], ['fine', '']):
        with pytest.raises(UserError): VOICE.batch(bad)
    a = VOICE.batch(['a', TEXT], threads=-1, lanes=1)
    assert (a[1].wav-SAID.wav).abs().max() < TOLERANCE


def infant(**kw):
    "A voice that has learned nothing: right shapes, random weights."
    torch.manual_seed(0)
    m = LeWMTTS(make_config('tiny', layers=1, **kw))
    if m.cfg.align != 'pointer': m.pred.stop.bias.data.fill_(-9)      # least of all how to end
    return Voice(m, load_vocos(SHIPPED))


@pytest.mark.parametrize('kw', [dict(prenet_drop=.5), dict(head='energy'), dict(head='gauss', window=0), dict(chunk=2), dict(n_speakers=3), dict(align='guided')], ids=str)
def test_every_kind_of_voice_says_the_same_in_company(kw):
    v, texts = infant(**kw), ['six', 'Anna found it. So did I.', 'no']
    wishes = [dict(check=False, temperature=t, seed=5, speaker=s % v.model.cfg.n_speakers) for t, s in ((0, 0), (.5, 1), (.5, 2))]
    pool, out = Pool(v, 3), [[] for _ in texts]
    for text, chunks, wish in zip(texts, out, wishes, strict=True): pool.submit(text, chunks.append, **wish)
    while pool.step(): pass
    for text, chunks, wish in zip(texts, out, wishes, strict=True):
        a = v.speak(text, **wish)
        assert same(a.wav, bits(v.stream(text, **wish))) and a.wav.shape == bits(chunks).shape and (a.wav-bits(chunks)).abs().max() < 1e-6


def test_a_piece_too_short_for_the_vocoder_ends_its_own_job_only():
    v = infant(downsample=1); pool, out = Pool(v, 2), []
    short = pool.submit('no', speed=4, check=False); pool.submit('one two three four five', out.append, check=False)
    while pool.step(): pass
    assert one_line(short.error) and '2 mel frames' in str(short.error) and (bits(out)-v.speak('one two three four five', check=False).wav).abs().max() < 1e-6 and len(pool) == 0


# --- bit equality ---------------------------------------------------------------------------------------------------------------------------

def test_every_way_of_asking_gives_the_same_bits():
    assert same(bits(VOICE.stream(TEXT)), SAID.wav)
    assert same(bits(VOICE.stream(TEXT, hold=True)), SAID.wav)
    assert same(bits(VOICE.stream(iter(TEXT))), SAID.wav)
    assert same(VOICE.speak(TEXT[i:i+7] for i in range(0, len(TEXT), 7)).wav, SAID.wav)
    assert same(VOICE.speak([TEXT, '', ' ']).wav, SAID.wav)
    long = TEXT + ' ' + ' '.join(f'{w} birds.' for w in ('one', 'two', 'six')) + ' '*5000 + 'Anna found it.'      # longer than one bite
    words = [w.text for c in VOICE.stream(long, seed=3, temperature=.3, speed=2) for w in c.words]
    assert words == long.split() and same(bits(VOICE.stream(long, seed=3, temperature=.3, speed=2)), VOICE.speak(iter(long), seed=3, temperature=.3, speed=2).wav)


def test_what_was_said_before_leaves_no_trace():
    for text, wish in ('zz '*60, dict(check=False)), ('a', dict(speed=.25)), ('hi', dict(prompt=PROMPT)), (TEXT, dict(carry=True, temperature=2, check=False)):
        VOICE.speak(text, **wish)
    with pytest.raises(UserError): VOICE.speak('wait [pause what] here')
    VOICE.batch([TEXT[:31], 'a b c'])
    assert same(VOICE.speak(TEXT).wav, SAID.wav) and same(Voice.load().speak(TEXT).wav, SAID.wav)


def test_two_streams_of_one_voice_do_not_disturb_each_other():
    other, a, b = 'Hello there. '+TEXT[:31], [], []
    for x, y in itertools.zip_longest(VOICE.stream(TEXT), VOICE.stream(other)): a += [x]*(x is not None); b += [y]*(y is not None)
    assert same(bits(a), SAID.wav) and same(bits(b), VOICE.speak(other).wav)


def test_a_stream_dropped_half_way_leaves_nothing_behind():
    n = len(VOICE.idle)
    for _ in range(3):
        for k in (1, 3):
            g = VOICE.stream(TEXT)
            for _ in range(k): next(g)
            del g
    gc.collect()
    assert len(VOICE.idle) == max(1, n) and all(len(p) == 0 and not p.fast.t for p in VOICE.idle)
    assert same(VOICE.speak(TEXT).wav, SAID.wav)


def test_a_text_that_breaks_off_leaves_nothing_behind():
    def text(): yield 'Anna found it. Three'; raise OSError('the line is dead')
    with pytest.raises(OSError, match='the line is dead'): list(VOICE.stream(text()))
    assert all(len(p) == 0 for p in VOICE.idle) and same(VOICE.speak(TEXT).wav, SAID.wav)


def test_threads_may_share_a_voice():
    got, threads = torch.get_num_threads(), []
    ok = [[] for _ in range(3)]
    for mine in ok: threads.append(threading.Thread(target=lambda mine=mine: mine.extend(same(VOICE.speak(TEXT).wav, SAID.wav) for _ in range(2))))
    for t in threads: t.start()
    for t in threads: t.join()
    assert ok == [[True]*2]*3 and torch.get_num_threads() == got


@pytest.mark.parametrize('align', ['guided', 'free'])
def test_words_of_a_voice_that_finds_its_own_way(align):
    "Its durations are known at the end of a piece only: streamed or held, the marks are the same."
    v = infant(align=align)
    a = v.speak('one two. six', check=False); chunks = list(v.stream('one two. six', check=False))
    assert same(bits(chunks), a.wav) and len(chunks) > 4
    assert [w for c in chunks for w in c.words] == a.words and len(a.words) == 3 and a.words[-1].end <= a.seconds+HOP


# --- flat memory ----------------------------------------------------------------------------------------------------------------------------

def test_memory_is_flat():
    "45 seconds of sound (ten minutes with LEWM_TTS_SOAK) may not need more than 10 MB above what the first ten seconds needed."
    process, lines = psutil.Process(), itertools.cycle([TEXT+' ', 'Wait [pause 0.2] here, 7 of 1,234 at $5. ', 'one two three\n'])
    def endless():
        for line in lines: yield line
    seconds, start, most = 0., None, 0
    g = VOICE.run(endless(), speed=4, temperature=.3)
    for job, c in g:
        seconds += len(c.wav)/24000
        if start is None and seconds > 10: start = process.memory_info().rss
        elif start: most = max(most, process.memory_info().rss-start)
        pool = job.pool
        assert len(pool) <= 1 and len(job.reader.buf) < 1000 and all(len(t.held) < 20 for t in pool.takes)
        if seconds > (600 if SOAK else 45): break
    g.close()
    print(f'{most/2**20:.1f} MB more after {seconds:.0f} s of sound')
    assert most < 10*2**20, f'{most/2**20:.1f} MB more'
    f = pool.fast
    assert f.ring.shape[4] <= max(128, f.size) and f.rows.shape[1] < 5000 and sum(map(len, VOICE.idle)) == 0


@pytest.mark.parametrize('bite', ['The old baker sold nine red apples. ', 'a', '7', 'a. ', '👍 a', '\n', 'é'])
def test_a_megabyte_is_heard_at_once(bite):
    text = 'Hi. '+bite*(10**6//len(bite))
    t0, g = time.process_time(), VOICE.stream(text)
    first = next(g); took = time.process_time()-t0; g.close()
    assert len(first.wav) and took < 3, f'{took:.1f} s until the first sound'


# --- guards ---------------------------------------------------------------------------------------------------------------------------------

def ill(monkeypatch, how):
    "Make every piece come out wrong; returns the seeds that were tried."
    draw, push, tries = Pool.draw, type(VOICE.live).push, []
    def sick(self, out):
        rows = draw(self, out); tries.extend(t.attempt for t in self.takes if not t.rows)
        return {'stuck': rows*0+.5, 'wild': rows*50, 'nan': rows*math.nan}.get(how, rows)
    def mute(self, state, z, last=False): state, mel, wav = push(self, state, z, last); return state, mel*0-11, wav*0
    monkeypatch.setattr(Pool, 'draw', sick)
    if how == 'silent': monkeypatch.setattr(type(VOICE.live), 'push', mute)
    if how in ('endless', 'short'):
        real = type(VOICE.model).durations
        monkeypatch.setattr(type(VOICE.model), 'durations', lambda *a, **k: real(*a, **k)*(50 if how == 'endless' else .05))
    return tries


WHY = dict(stuck='stuck for', wild='out of bounds', nan='not finite', silent='silent for', endless='no end', short='too short')


@pytest.mark.parametrize('how', WHY)
def test_a_piece_that_comes_out_wrong_is_tried_again_and_refused(monkeypatch, how):
    text = 'Anna found it.' if how != 'endless' else 'The.'
    tries = ill(monkeypatch, how)
    with pytest.raises(SpeakError, match=WHY[how]) as e: VOICE.speak(text, retries=2)
    assert one_line(e.value) and repr(text) in str(e.value) and '3 tries' in str(e.value) and tries == [0, 1, 2]
    tries.clear()
    with pytest.raises(SpeakError, match=WHY[how]): VOICE.speak(text, retries=0)
    assert tries == [0]
    tries.clear(); a = VOICE.speak(text, check=False)
    assert tries == [0] and a.seconds > 0 and a.tries == 0
    monkeypatch.undo()
    assert same(VOICE.speak('Hi.').wav, HI.wav), 'the illness stayed in the voice'


def test_what_was_handed_out_cannot_be_taken_back(monkeypatch):
    tries, got = ill(monkeypatch, 'wild'), []
    with pytest.raises(SpeakError):
        for c in VOICE.stream(TEXT, hold=False): got.append(c)
    assert len(got) > 1 and tries == [0] and not any(c.last for c in got)
    tries.clear(); got.clear()
    with pytest.raises(SpeakError):
        for c in VOICE.stream(TEXT, hold=True): got.append(c)
    assert got == [] and tries == [0, 1, 2]
    assert len(list(VOICE.stream(TEXT, check=False))) > 3


def test_a_second_try_that_is_well_is_heard(monkeypatch):
    draw = Pool.draw
    def sick(self, out):
        rows = draw(self, out)
        for i, t in enumerate(self.takes): rows[i] *= 1+50*(t.attempt == 0 and t.i == 1)
        return rows
    monkeypatch.setattr(Pool, 'draw', sick)
    a = VOICE.speak(TEXT)
    assert a.tries == 1 and len(a.parts) == len(SAID.parts) and same(a.parts[0].z, SAID.parts[0].z) and a.ended
    assert [w.text for w in a.words] == [w.text for w in SAID.words]


def test_one_sick_job_does_not_infect_its_neighbours(monkeypatch):
    draw = Pool.draw
    def sick(self, out):
        rows = draw(self, out)
        for i, t in enumerate(self.takes): rows[i] *= math.nan if t.job.how.seed == 13 else 1
        return rows
    monkeypatch.setattr(Pool, 'draw', sick)
    pool, out = Pool(VOICE, 2), [[] for _ in range(6)]
    jobs = [pool.submit('Anna found it.', out[i].append, seed=13 if i%2 else 0) for i in range(6)]
    while pool.step(): pass
    for i, job in enumerate(jobs):
        if i%2: assert isinstance(job.error, SpeakError) and 'not finite' in str(job.error)
        else: assert (bits(out[i])-alone('Anna found it.', {}).wav).abs().max() < TOLERANCE


# --- absurd wishes and texts ----------------------------------------------------------------------------------------------------------------

NAN, INF = math.nan, math.inf
ABSURD = dict(seed=[None, 'x', NAN, INF, 1.5, [1], torch.zeros(3)], speed=[NAN, INF, -INF, 0, -1, 4.01, '1', None, 1j, np.ones((20, 20))], temperature=[NAN, INF, -1, 26, 'hot', None],
              speaker=[-1, 1, 10**30, .5, NAN, None, 'a'], retries=[-1, 101, 10**30, None, 'x', INF, 2.5], prompt=['x.safetensors', 5, {}, np.zeros((3, 48))])


@pytest.mark.parametrize('name', ABSURD)
def test_absurd_wishes_are_refused_in_one_line(name):
    for value in ABSURD[name]:
        for ask in (lambda **k: VOICE.speak('hello', **k), lambda **k: list(VOICE.stream('hello', **k)), lambda **k: VOICE.batch(['hello'], **k), lambda **k: Pool(VOICE).submit('hello', **k)):
            with pytest.raises(UserError) as e: ask(**{name: value})
            assert one_line(e.value) and name in str(e.value), str(e.value)
    assert same(VOICE.speak('Hi.').wav, HI.wav), 'a refused wish did harm'


def test_a_slow_voice_may_take_its_time():
    "Letters spelled at a quarter of the speed: the cap on the length of a piece grows with what was asked for."
    a = VOICE.speak('xyz, qrs, tuv.', speed=.25)
    assert a.ended and a.tries == 0 and a.seconds > 4*.9*VOICE.speak('xyz, qrs, tuv.').seconds - 2


def test_unknown_wishes_name_the_known_ones():
    with pytest.raises(UserError, match="'pitch'") as e: VOICE.speak('hello', pitch=2)
    assert all(k in str(e.value) for k in How.__dataclass_fields__)


@pytest.mark.parametrize('wish', [dict(seed=-1), dict(seed=10**30), dict(seed=np.int64(2**62)), dict(seed=np.uint8(255)), dict(seed=True), dict(speed=np.float32(1.5)), dict(speed=4), dict(speed=.25),
                                  dict(temperature=25, check=False), dict(retries=100), dict(normalise=None), dict(check=''), dict(carry=1, hold=0)])
def test_odd_but_sensible_wishes_are_granted(wish):
    a = VOICE.speak('hello there', **wish)
    assert .1 < a.seconds < 8 and same(a.wav, VOICE.speak('hello there', **wish).wav)


@pytest.mark.parametrize('text', [None, 5, 3.5, b'hello', bytearray(b'hello'), [1, 2], [b'a'], ['hello', None], iter([b'hello']), object(), np.zeros(3)], ids=repr)
def test_what_is_no_text_is_refused(text):
    with pytest.raises(UserError) as e: VOICE.speak(text)
    assert one_line(e.value) and 'text' in str(e.value)


@pytest.mark.parametrize('normalise', [True, False])
@pytest.mark.parametrize('text', ['', ' \n', '.', '?!', '-', '👍', '\0', '\ud800', 'a\ud800b', 'hi\0there', 'a', 'I', 'é', 'ß', '1', '\u202ehello', 'שלום עולם', 'مرحبا', 'a\u0301\u0301', 'x'*90,
                                  '9'*30, '[pause', '[pause]', '[pause 61]', '[pause -1]', '[pause x]', 'hi [pause 1', '<b>hi</b>', 'one👍two', '\x1b[31mred', '\ufeffhi', 'A.B.C.', '1e309', '½', '๑๒๓', '\u2028a'], ids=ascii)
def test_strange_texts_are_spoken_or_refused(text, normalise):
    try: a = VOICE.speak(text, normalise=normalise, speed=2)
    except UserError as e: assert one_line(e)
    else:
        assert a.wav.isfinite().all() and a.seconds < 60 and a.ended
        assert not re.search(r'\w', text) or a.seconds > .1


def test_ten_thousand_digits():
    n = 0
    for c in itertools.islice(VOICE.stream('9'*10**4, speed=4), 12): n += len(c.wav)
    assert n > 2*24000


# --- files ----------------------------------------------------------------------------------------------------------------------------------

def left(folder): return sorted(p.name for p in Path(folder).iterdir())


@pytest.mark.parametrize('kind', FORMATS)
def test_files_hold_what_was_said(tmp_path, kind):
    said = VOICE.speak_to(TEXT, tmp_path/f'A.{kind.upper()}'); SAID.save(tmp_path/f'b.{kind}')
    for name in left(tmp_path):
        wav, sr = soundfile.read(tmp_path/name, dtype='float32')
        assert sr == 24000 and wav.shape == SAID.wav.shape and said['seconds'] == len(wav)/sr
        near = np.abs(wav-SAID.wav.numpy())
        assert near.max() < 1e-4 if kind in ('wav', 'flac') else np.corrcoef(wav, SAID.wav.numpy())[0, 1] > .98
    assert said['words'] == SAID.words and said['ended'] and len(left(tmp_path)) == 2


@pytest.mark.parametrize('kind', FORMATS)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, kind):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
        for write in (lambda p: VOICE.speak_to(TEXT[:31], p), SAID.save, lambda p: PROMPT.save(p.with_suffix('.safetensors'))):
            with pytest.raises(UserError, match='free some space') as e: write(tmp_path/f'a.{kind}')
            assert one_line(e.value) and str(tmp_path) in str(e.value)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(tmp_path) == []


def test_places_where_nothing_can_be_written(tmp_path):
    (tmp_path/'file').write_text(''); (tmp_path/'folder.wav').mkdir()
    for path in ('/proc/x.wav', tmp_path/'file'/'x.wav', tmp_path/'folder.wav', tmp_path/('x'*300+'.wav'), tmp_path/'x.aac', tmp_path/'x', tmp_path):
        with pytest.raises(UserError) as e: VOICE.speak_to('hi', path)
        assert one_line(e.value) or len(str(path)) > 300
    assert left(tmp_path) == ['file', 'folder.wav']


@pytest.mark.parametrize('kind', FORMATS)
def test_an_interrupted_file_does_not_appear(tmp_path, kind):
    def stop(done, known): raise KeyboardInterrupt
    (tmp_path/f'a.{kind}').write_text('the old one')
    with pytest.raises(KeyboardInterrupt): VOICE.speak_to(TEXT, tmp_path/f'a.{kind}', progress=stop)
    assert left(tmp_path) == [f'a.{kind}'] and (tmp_path/f'a.{kind}').read_text() == 'the old one'
    assert all(len(p) == 0 for p in VOICE.idle)


# --- prompts --------------------------------------------------------------------------------------------------------------------------------

TEN, ABOUT = torch.tensor([10., 10.]), dict(format='lewm_tts prompt', text='')


def prompt_file(path, meta=ABOUT, **tensors):
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata=meta)
    return path


def test_a_damaged_prompt_names_its_file(tmp_path):
    p = PROMPT.save(tmp_path/'p.safetensors'); good = p.read_bytes()
    assert same(Prompt.load(p).z, PROMPT.z)
    rng = random.Random(0)
    for bad in (*(good[:n] for n in (0, 7, 8, 50, len(good)-1)), rng.randbytes(500), b'\xff'*8+b'{}', good+b'more'):
        p.write_bytes(bad)
        with pytest.raises(UserError, match='clone') as e: Prompt.load(p)
        assert one_line(e.value) and str(p) in str(e.value)
    for p in (tmp_path/'none.safetensors', tmp_path):
        with pytest.raises(UserError, match='clone'): Prompt.load(p)


@pytest.mark.parametrize('what', ['narrow', 'nan', 'inf', 'huge', 'empty', 'no width', '3d', 'dur nan', 'dur negative', 'dur zero', 'dur too long', 'dur of another text', 'dur 2d', 'no dur', 'no meta', 'other format'])
def test_a_prompt_that_makes_no_sense_is_refused(tmp_path, what):
    z = PROMPT.z
    t = {'narrow': dict(z=z[:, :40], dur=TEN), 'nan': dict(z=z*NAN, dur=TEN), 'inf': dict(z=z/0, dur=TEN), 'huge': dict(z=z*1e30, dur=TEN), 'empty': dict(z=z[:0], dur=TEN),
         'no width': dict(z=z[:, :0], dur=TEN), '3d': dict(z=z[None], dur=TEN), 'dur nan': dict(z=z, dur=TEN*NAN), 'dur negative': dict(z=z, dur=-TEN), 'dur 2d': dict(z=z, dur=TEN[None]),
         'dur of another text': dict(z=z, dur=torch.ones(7)), 'no dur': dict(z=z), 'no meta': dict(z=z, dur=TEN), 'other format': dict(z=z, dur=TEN), 'dur zero': dict(z=z, dur=TEN*0), 'dur too long': dict(z=z, dur=TEN*1e9)}[what]
    meta = {'no meta': None, 'other format': dict(format='x')}.get(what, ABOUT)
    with pytest.raises(UserError, match='prompt') as e: VOICE.speak('hello', prompt=Prompt.load(prompt_file(tmp_path/'p.safetensors', meta, **t)))
    assert one_line(e.value)
    assert same(VOICE.speak('Hi.').wav, HI.wav)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16, torch.int8])
def test_a_prompt_of_another_dtype_is_read(tmp_path, dtype):
    p = Prompt.load(prompt_file(tmp_path/'p.safetensors', z=PROMPT.z.to(dtype), dur=TEN.to(dtype)))
    assert p.z.dtype == p.dur.dtype == torch.float32 and VOICE.speak('hello there', prompt=p).ended


def test_long_and_short_prompts_are_spoken_from():
    for z in (PROMPT.z[:1], PROMPT.z.repeat(40, 1)): assert VOICE.speak('hello there', prompt=Prompt(z, TEN)).ended


@pytest.mark.parametrize('name,kw', [('stereo.wav', dict(n=2)), ('phone.wav', dict(rate=8000)), ('int16.wav', dict(subtype='PCM_16')), ('u8.wav', dict(subtype='PCM_U8')), ('a.mp3', {}), ('a.ogg', {}), ('studio.flac', dict(rate=96000, n=2))])
def test_any_recording_can_be_cloned(tmp_path, name, kw):
    import soxr
    wav = soxr.resample(SAID.wav.numpy()[:48000], 24000, rate := kw.pop('rate', 24000))
    soundfile.write(tmp_path/name, np.stack([wav]*kw.pop('n', 1), 1), rate, **kw)
    p, q = VOICE.clone(tmp_path/name), VOICE.clone(SAID.wav[:48000])
    assert abs(len(p.z)-len(q.z)) <= 1
    if rate >= 24000: assert float(torch.cosine_similarity(p.z[:40], q.z[:40], dim=1).median()) > .8      # a telephone lacks what the encoder hears above 4 kHz
    assert VOICE.speak('hello there', prompt=p).ended


W = SAID.wav.numpy()


@pytest.mark.parametrize('wav,why', [(W[:2400], '.5 to 30 s'), (np.tile(W, 20)[:60*24000], '.5 to 30 s'), (np.zeros(48000), 'silent'), (W*NAN, 'broken'), (np.stack([W, W]), 'one channel'), ((W*32767).astype(np.int16), 'scale'),
                                     (W[:0], '.5 to 30 s'), ([[1.], [2., 3.]], 'samples'), (None, 'samples'), (5, 'prompt'), (b'abc', 'samples'), (np.array(['a']), 'samples')], ids=range(12))
def test_sound_that_is_no_prompt_is_refused(wav, why):
    with pytest.raises(UserError, match=why) as e: VOICE.clone(wav)
    assert one_line(e.value)


def test_recordings_that_are_no_prompt_are_refused(tmp_path):
    soundfile.write(tmp_path/'long.wav', np.tile(W, 20)[:60*24000], 24000); soundfile.write(tmp_path/'empty.wav', W[:0], 24000); (tmp_path/'zero.wav').write_bytes(b''); (tmp_path/'text.wav').write_text(TEXT)
    for path in (tmp_path/'long.wav', tmp_path/'empty.wav', tmp_path/'zero.wav', tmp_path/'text.wav', tmp_path/'none.wav', tmp_path, ''):
        with pytest.raises(UserError) as e: VOICE.clone(path)
        assert one_line(e.value)


@pytest.mark.parametrize('text', ['!!!', 'a'*1000, 'word '*10**5, 5, b'abc'], ids=lambda t: str(t)[:5])
def test_a_text_that_does_not_belong_to_the_sound_is_refused(text):
    with pytest.raises(UserError) as e: VOICE.clone(SAID.wav[:48000], text)
    assert one_line(e.value)


def test_a_prompt_remembers_the_voice_itself_not_its_address():
    "A second voice may live where a first one died."
    p = Prompt(PROMPT.z, TEN)
    a = p.history(VOICE, 0)[1]
    assert any(k[0] is VOICE for k in p._made)
    torch.manual_seed(1)
    for _ in range(3):
        v = Voice(LeWMTTS(make_config('tiny', layers=1)), VOICE.vocoder); h = p.history(v, 0)[1]
        assert same(h, v.model.memory(torch.tensor([[1, 2]]))[0].detach()) and not same(h, a)
        del v; gc.collect()
