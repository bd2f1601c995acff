"The server: the official client, bad requests, full queues, killed and slow clients, a clean end; and that every answer is what the voice says offline."
import contextlib, importlib.util, io, itertools, json, os, signal, socket, subprocess, sys, threading, time, wave
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

for module in ('fastapi', 'uvicorn', 'websockets', 'prometheus_client', 'httpx'): pytest.importorskip(module, reason=f'no {module} (pip install lewm_tts[serve,dev])')
import httpx
from websockets.sync.client import connect

import lewm_tts.serve as serving
from lewm_tts.core import UserError, pcm16, voices_dir
from lewm_tts.engine import SpeakError, Voice
from lewm_tts.serve import make_app, running

ROOT = Path(__file__).resolve().parent.parent
TEXT = 'Hello there, how are you? I am well.'
LONG = 'The old clock on the wall rang again, and nobody in the house heard it. '


# ---------------------------------------------------------------------------------------------- the real voice

@pytest.fixture(scope='module')
def voice():
    if not (voices_dir()/'toy-en'/'model.safetensors').exists(): pytest.skip('no shipped voice')
    torch.set_num_threads(1)
    return Voice.load()


@pytest.fixture(scope='module')
def app(voice): return make_app(voice, lanes=4, buffer_s=4.)


@pytest.fixture(scope='module')
def url(app):
    with running(app) as at: yield at


def post(url, timeout=60, **body): return httpx.post(f'{url}/v1/audio/speech', json=body, timeout=timeout)


def meter(url, name):
    lines = httpx.get(f'{url}/metrics').text.splitlines()
    return float(next(x for x in lines if x.startswith(f'lewm_tts_{name} ')).split()[1])


def until(what, seconds=15., every=.02):
    end = time.time()+seconds
    while not what():
        assert time.time() < end, f'not within {seconds} s'
        time.sleep(every)


def same(got, wav):
    "The same sound, but for the last bits: lanes of a batch add up in another order, and the voice hears itself. Other texts or seeds differ by thousands."
    a, b = torch.frombuffer(bytearray(got), dtype=torch.int16).int(), torch.frombuffer(bytearray(pcm16(wav)), dtype=torch.int16).int()
    assert len(a) == len(b), f'{len(a)} samples, offline {len(b)}'
    assert (most := int((a-b).abs().max())) <= 32, f'differs from the offline result by {most} of 32768'


@pytest.mark.parametrize('fmt', ['pcm', 'wav', 'flac', 'mp3', 'opus'])
def test_official_client(voice, url, fmt):
    openai = pytest.importorskip('openai', reason='no openai (pip install lewm_tts[dev])')
    sf = pytest.importorskip('soundfile')
    client = openai.OpenAI(base_url=f'{url}/v1', api_key='none')
    said = client.audio.speech.create(model='tts-1', voice='voice', input=TEXT, response_format=fmt, speed=1.25, extra_body=dict(seed=3, temperature=.3)).content
    want = voice.speak(TEXT, seed=3, speed=1.25, temperature=.3).wav
    if fmt == 'pcm': return same(said, want)
    heard, sr = sf.read(io.BytesIO(said), dtype='int16')
    assert sr == 24000
    if fmt in ('wav', 'flac'): same(heard.tobytes(), want)
    else: assert len(want) <= len(heard) <= len(want)+4000 and abs(int(heard.max())) > 1000   # encoders pad


def test_official_client_streams_and_raises(url):
    openai = pytest.importorskip('openai', reason='no openai (pip install lewm_tts[dev])')
    client = openai.OpenAI(base_url=f'{url}/v1', api_key='none', max_retries=0)
    assert client.models.list().data[0].id == 'lewm-tts'
    with client.audio.speech.with_streaming_response.create(model='lewm-tts', voice='voice', input=TEXT, response_format='pcm') as r: assert len(list(r.iter_bytes())) > 1
    with pytest.raises(openai.BadRequestError, match='nobody'): client.audio.speech.create(model='tts-1', voice='nobody', input='a')
    with pytest.raises(openai.NotFoundError, match='lewm-tts'): client.audio.speech.create(model='whale', voice='voice', input='a')


def test_wav_is_valid_streamed_and_whole(voice, url):
    want = voice.speak('One.', seed=1).wav
    for stream in (True, False):
        r = post(url, input='One.', seed=1, response_format='wav', stream=stream)
        assert ('content-length' in r.headers) == (not stream)
        with wave.open(io.BytesIO(r.content)) as f:
            assert (f.getframerate(), f.getnchannels(), f.getsampwidth()) == (24000, 1, 2)
            assert (f.getnframes() == len(want)) == (not stream)
            same(f.readframes(f.getnframes()), want)


def test_server_sent_events(voice, url):
    import base64
    r = post(url, input='One.', response_format='pcm', stream_format='sse')
    events = [json.loads(x.removeprefix('data: ')) for x in r.text.split('\n\n') if x]
    assert events[-1]['type'] == 'speech.audio.done' and {e['type'] for e in events[:-1]} == {'speech.audio.delta'}
    same(b''.join(base64.b64decode(e['audio']) for e in events[:-1]), voice.speak('One.').wav)


def test_many_at_once_are_neither_lost_nor_mixed_up(voice, url):
    asks = [dict(input=t, seed=i % 3, speed=[1., 1.3][i % 2], temperature=.3) for i, t in enumerate(['One.', 'Two birds.', 'Is it three?', TEXT, 'A small door.', 'The sea is cold today.', 'Yes!', 'Seven old men, and a dog.', 'Nine.', 'Ten'])]
    got = [None]*len(asks)

    def ask(i): got[i] = post(url, response_format='pcm', **asks[i])
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asks))]
    for t in threads: t.start()
    for t in threads: t.join()
    for a, r in zip(asks, got, strict=True):
        assert r.status_code == 200, r.text
        same(r.content, voice.speak(a.pop('input'), **a).wav)
    assert meter(url, 'active_jobs') == 0


def ws_say(ws, parts, **start):
    "One utterance by websocket: (sound, messages)."
    ws.send(json.dumps(dict(type='start', **start)))
    for p in parts: ws.send(json.dumps(dict(type='text', text=p)))
    ws.send('{"type":"end"}')
    sound, told = b'', []
    while not told or told[-1]['type'] not in ('done', 'error'):
        m = ws.recv(timeout=60)
        if isinstance(m, bytes): sound += m
        else: told.append(json.loads(m))
    return sound, told


def test_websocket_takes_text_in_parts(voice, url):
    with connect(url.replace('http', 'ws')+'/v1/audio/stream') as ws:
        for cut in (3, 11):
            sound, told = ws_say(ws, [TEXT[i:i+cut] for i in range(0, len(TEXT), cut)], seed=5, see=True)
            same(sound, voice.speak(TEXT, seed=5).wav)
            chunks = [m for m in told if m['type'] == 'chunk']
            assert told[0]['type'] == 'started' and sum(c['samples'] for c in chunks) == len(sound)//2
            words = [w for c in chunks for w in c['words']]
            assert [w[0].strip('?,.').lower() for w in words] == ['hello', 'there', 'how', 'are', 'you', 'i', 'am', 'well']
            assert all(a[1] <= a[2] <= b[1]+.02 for a, b in itertools.pairwise(words)) and words[-1][2] <= len(sound)/48000+.02
            assert sum(len(c['path']) for c in chunks) > 20 and sum(c['frames'] for c in chunks) > 80
        assert ws_say(ws, ['Well.'], speed=9)[1][-1]['error']['param'] == 'speed'
        assert ws_say(ws, [' ... '])[1][-1]['error']['type'] == 'invalid_request_error'
        assert ws_say(ws, ['And on it goes.'])[1][-1]['type'] == 'done', 'an error ends an utterance, not the connection'
    until(lambda: meter(url, 'active_jobs') == 0)


# ---------------------------------------------------------------------------------------------- bad requests

def raw(url, content, **kw): return httpx.post(f'{url}/v1/audio/speech', content=content, timeout=30, **kw)


@pytest.mark.parametrize('content, status, word', [
    (b'{"input": "a"', 400, 'no JSON'), (b'\xff\xfe', 400, 'no JSON'), (b'[]', 400, 'JSON object'), (b'', 400, 'no JSON'), (b'['*5000, 400, 'JSON'),
    (b'{}', 400, 'input is empty'), (b'{"input": "  "}', 400, 'input is empty'), (b'{"input": 7}', 400, 'input must be a string'),
    (b'{"input": "a", "sped": 2}', 400, "did you mean 'speed'"), (b'{"input": "a", "speed": "fast"}', 400, 'speed must be a number'),
    (b'{"input": "a", "speed": NaN}', 400, 'speed'), (b'{"input": "a", "speed": 1e9}', 400, 'outside'), (b'{"input": "a", "seed": -1}', 400, 'seed -1 is outside'),
    (b'{"input": "a", "seed": 1.5}', 400, 'whole number'), (b'{"input": "a", "temperature": Infinity}', 400, 'temperature'), (b'{"input": "a", "stream": 1}', 400, 'true or false'),
    (b'{"input": "a", "response_format": "aac"}', 400, 'use one of wav'), (b'{"input": "a", "voice": "toy:x"}', 400, 'voice'), (b'{"input": "a", "speaker": 99}', 400, 'speaker'),
    (b'{"input": "\\ud800"}', 400, 'surrogate'), ('{"input": "☃☃"}'.encode(), 400, ''),
    (json.dumps(dict(input='a'*20_001)).encode(), 413, '20,001 characters'), (json.dumps(dict(input='a'*2**20)).encode(), 413, 'longer than')])
def test_bad_requests_get_one_line(url, content, status, word):
    r = raw(url, content)
    e = r.json()['error']
    assert r.status_code == status and word in e['message'] and '\n' not in e['message'], r.text
    assert set(e) == {'message', 'type', 'param', 'code'} and e['type'] == 'invalid_request_error'


def test_a_body_without_length_is_cut_off_too(url):
    assert raw(url, (b'x'*10_000 for _ in range(100))).status_code == 413


def test_unknown_addresses(url):
    assert httpx.get(f'{url}/nothing').json()['error']['type'] == 'invalid_request_error'
    assert httpx.get(f'{url}/v1/audio/speech').status_code == 405
    assert httpx.get(f'{url}/health').json()['status'] == 'ok' and httpx.get(f'{url}/voices').json()['voices'][0]['id'] == 'voice'


def test_other_sites_are_refused(url):
    r = httpx.post(f'{url}/v1/audio/speech', json=dict(input='a'), headers={'Origin': 'https://elsewhere.example'})
    assert r.status_code == 403
    with pytest.raises(Exception, match='403|rejected'): connect(url.replace('http', 'ws')+'/v1/audio/stream', origin='https://elsewhere.example').close()
    own = httpx.post(f'{url}/v1/audio/speech', json=dict(input=''), headers={'Origin': url})
    assert own.status_code == 400


# ---------------------------------------------------------------------------------------------- a voice made of sticks: when things happen is in our hands

class Sticks:
    "Stands in for `engine.Pool`: every step gives each lane a second of sound; a text is as many seconds as it has words; 'sorrow' cannot be said."
    pause = .001

    def __init__(self, voice, lanes=8): self.jobs, self.lanes = deque(), lanes

    def submit(self, text, on_chunk, on_done, **kw):
        if kw.get('seed') == 13: raise UserError('no, not that seed')
        j = SimpleNamespace(pieces=[], i=0, closed=False, done=False, error=None)
        j.feed = lambda t: j.pieces.extend(t.split()); j.close = lambda: setattr(j, 'closed', True); j.cancel = lambda: setattr(j, 'done', True)
        j.chunk, j.ended = on_chunk, on_done
        self.jobs.append(j)
        if text is not None: j.feed(text); j.close()
        return j

    def step(self):
        self.jobs = deque(j for j in self.jobs if not j.done)
        ready = [j for j in self.jobs if j.i < len(j.pieces) or j.closed][:self.lanes]
        for j in ready:
            word = j.pieces[j.i] if j.i < len(j.pieces) else None
            j.i += 1
            if word == 'bug': raise ZeroDivisionError('planted')
            if word == 'sorrow': j.error = SpeakError("'sorrow' could not be spoken: stuck")
            elif word: j.chunk(SimpleNamespace(wav=torch.full((24000,), .25), z=torch.randn(24, 4), mel=torch.zeros(94, 8), piece=0, words=[], last=True))
            if j.error or not word: j.done = True; self.jobs.remove(j); j.ended(j)
        time.sleep(self.pause if ready else 0)
        return bool(ready)


@pytest.fixture
def sticks(monkeypatch):
    "A function that starts a server on sticks."
    monkeypatch.setattr(serving, 'Pool', Sticks)
    v = SimpleNamespace(pieces=lambda text, normalise: text.split(), model=SimpleNamespace(cfg=SimpleNamespace(sr=24000, n_mel=8, hop_s=.01, latent_hz=24, n_speakers=1, preset='sticks'), parameters=lambda: []), vocoder=SimpleNamespace(name='none'))
    with contextlib.ExitStack() as stack:
        def start(pause=.001, grace=20., **kw):
            monkeypatch.setattr(Sticks, 'pause', pause)
            app = make_app(v, **kw)
            url = stack.enter_context(running(app, grace=grace))
            app.state.service.server = app.state.server
            return url, app.state.service
        yield start


def still(what, seconds=.6):
    "The value once it does not change any more."
    while True:
        before = what(); time.sleep(seconds)
        if what() == before: return before


def hang(url, text, read=1, **body):
    "A client that asks, reads `read` bytes of the answer, and then only keeps the line open."
    host, port = url.removeprefix('http://').split(':')
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect((host, int(port)))
    d = json.dumps(dict(input=text, response_format='pcm', **body)).encode()
    s.sendall(b'POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n' % len(d) + d)
    if read: assert s.recv(read)
    return s


def test_token(sticks):
    url, s = sticks(token='sesam')
    for head, status in ((None, 401), ('Bearer sesan', 401), ('Bearer x', 401), ('sesam', 401), ('Bearer sesam', 200), ('Bearer sésam', 401)):
        for path in ('/voices', '/metrics', '/v1/models', '/openapi.json'):
            r = httpx.get(url+path, headers={'Authorization': head.encode()} if head else {})
            assert r.status_code == status, (head, path)
        assert (r.headers.get('www-authenticate') == 'Bearer') == (status == 401)
    assert post(url, input='a').status_code == 401
    assert httpx.get(f'{url}/health').status_code == 200 and 'sesam' not in httpx.get(url).text
    at = url.replace('http', 'ws')+'/v1/audio/stream'
    with connect(at) as ws:
        assert ws_say(ws, [], token='sesan')[1][-1]['error']['code'] == 'invalid_api_key'
        with pytest.raises(Exception, match='1008'): ws.recv(timeout=5)


def test_queue_full_is_429(sticks):
    url, s = sticks(lanes=2, queue=2, buffer_s=1., pause=.01)
    held = [hang(url, 'word '*300, read=i < 2) for i in range(4)]
    until(lambda: s.worker.active == 4)
    r = post(url, input='a')
    assert r.status_code == 429 and int(r.headers['retry-after']) >= 1 and r.json()['error']['type'] == 'rate_limit_error', r.text
    assert meter(url, 'queue_length') == 2 and meter(url, 'active_jobs') == 4
    for h in held: h.close()
    until(lambda: s.worker.active == 0)
    assert post(url, input='a').status_code == 200


def test_killed_clients_free_their_lanes(sticks):
    url, s = sticks(lanes=2, queue=8, pause=.01)
    lines = [hang(url, 'word '*2000, read=i < 2, stream=i != 1, **(dict() if i else dict(stream_format='sse'))) if i != 1 else hang(url, 'word '*2000, read=0, stream=False) for i in range(5)]
    until(lambda: s.worker.active == 5)
    for h in lines: h.close()
    until(lambda: s.worker.active == 0)
    assert not s.worker.pools['voice'].jobs, 'the pool still works for clients that are gone'
    with connect(url.replace('http', 'ws')+'/v1/audio/stream') as ws:
        ws.send('{"type":"start"}'); ws.send(json.dumps(dict(type='text', text='word '*2000)))
        until(lambda: s.worker.active == 1)
        assert ws.recv(timeout=5)
    until(lambda: s.worker.active == 0)


def test_slow_reader_neither_blocks_nor_grows(sticks):
    url, s = sticks(lanes=2, buffer_s=3., max_chars=300_000)
    slow = hang(url, ('w'*99+' ')*2000)
    until(lambda: s.worker.active)
    t, = s.worker.tickets['voice']
    made = still(lambda: t.made)
    for _ in range(3): assert len(post(url, input='one two three', response_format='pcm').content) == 3*48000
    assert t.most <= 5 and t.made == made < 200, 'the buffer is bounded, and nothing is made that nobody reads'
    slow.setblocking(True); got = 0
    while got < 40*48000: got += len(slow.recv(1 << 16))
    until(lambda: t.made > made)
    slow.close()
    until(lambda: s.worker.active == 0)


def test_reader_that_sleeps_for_ever_is_let_go(sticks):
    url, s = sticks(lanes=1, buffer_s=2., patience=.5)
    slow = hang(url, 'word '*2000)
    until(lambda: s.worker.active == 0, 10)
    slow.close()
    with connect(url.replace('http', 'ws')+'/v1/audio/stream') as ws:
        with pytest.raises(Exception, match='1001'): ws.recv(timeout=5)


def test_websocket_changes_of_mind(sticks):
    url, s = sticks(max_chars=300, pause=.01, patience=1.)

    def ended(ws, *messages):
        "Send, and give what the utterance ends with."
        for m in messages: ws.send(m if isinstance(m, (str, bytes)) else json.dumps(m))
        while True:
            m = ws.recv(timeout=10)
            if isinstance(m, str) and (d := json.loads(m))['type'] in ('done', 'error'): return d.get('error', d)
    start, text = dict(type='start'), dict(type='text', text='word '*50)
    with connect(url.replace('http', 'ws')+'/v1/audio/stream') as ws:
        assert ended(ws, start, text, dict(type='cancel'))['code'] == 'cancelled'
        assert ended(ws, start, text, text)['code'] == 'too_long'
        assert 'only after done' in ended(ws, start, text, start)['message']
        assert 'needs "text"' in ended(ws, start, dict(type='text'))['message']
        assert 'was not expected' in ended(ws, start, b'\x00')['message']
        assert 'must be' in ended(ws, '{"type": 7}')['message'] and 'must be' in ended(ws, 'no json')['message']
        assert "did you mean 'speed'" in ended(ws, dict(type='start', sped=1))['message']
        assert ended(ws, start, text)['code'] == 'timeout', 'no text and no end for as long as patience lasts'
        assert ended(ws, start, dict(type='text', text='a b'), dict(type='end'))['seconds'] == 2
        until(lambda: s.worker.active == 0)


def test_failed_sentence_is_said_and_cut(sticks):
    url, s = sticks()
    r = post(url, input='sorrow')
    assert r.status_code == 500 and r.json()['error']['code'] == 'speak_error' and 'sorrow' in r.text
    with pytest.raises(httpx.RemoteProtocolError): post(url, input='joy sorrow', response_format='pcm')
    r = post(url, input='joy sorrow', response_format='pcm', stream=False)
    assert r.status_code == 500 and 'sorrow' in r.text
    assert '"type": "error"' in post(url, input='joy sorrow', stream_format='sse', response_format='pcm').text.split('\n\n')[-2]
    assert post(url, input='a', seed=13).status_code == 400
    assert 'lewm_tts_errors_total{kind="speak_error"} 4.0' in httpx.get(f'{url}/metrics').text


def test_a_bug_ends_jobs_not_the_server(sticks):
    url, s = sticks()
    r = post(url, input='bug')
    assert r.status_code == 500 and 'ZeroDivisionError' in r.text and 'planted' not in r.text
    assert post(url, input='fine').status_code == 200 and s.worker.active == 0


# ---------------------------------------------------------------------------------------------- the process

@contextlib.contextmanager
def process(*args, **more):
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), **more}
    p = subprocess.Popen([sys.executable, '-c', f'import sys; from lewm_tts.serve import serve; sys.exit(serve({", ".join(args)}))'], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = p.stdout.readline()
        assert line.startswith('http://127.0.0.1:'), line + p.stderr.read()
        url = line.split()[0]
        until(lambda: _up(url), 60)
        yield p, url
    finally:
        if p.poll() is None: p.kill()
        p.communicate()


def _up(url):
    try: return httpx.get(f'{url}/health').status_code == 200
    except httpx.TransportError: return False


def test_sigterm_lets_running_jobs_end(voice):
    text = LONG*3
    known = {'Authorization': 'Bearer sesam'}
    with process('port=0', 'lanes=2', 'threads=1', LEWM_TTS_TOKEN='sesam') as (p, url), httpx.Client(base_url=url, timeout=60, headers=known) as client, httpx.Client(base_url=url, headers=known) as late:
        assert httpx.get(f'{url}/voices').status_code == 401 and late.get('/voices').json()['voices'][0]['id'] == 'toy-en'
        with client.stream('POST', '/v1/audio/speech', json=dict(input=text, response_format='pcm')) as r:
            parts = r.iter_bytes()
            got = next(parts)
            p.send_signal(signal.SIGTERM)
            until(lambda: late.get('/health').json()['status'] == 'closing', 5)
            refused = late.post('/v1/audio/speech', json=dict(input='Too late.'))
            assert refused.status_code == 503 and refused.headers['retry-after'] and refused.json()['error']['code'] == 'shutting_down'
            got += b''.join(parts)
        same(got, voice.speak(text).wav)
        assert p.wait(20) == 0 and p.stderr.read() == ''


def test_sigterm_cancels_what_does_not_end(sticks):
    url, s = sticks(pause=.05, grace=.3)
    lines = [hang(url, 'word '*1000), hang(url, 'word '*1000, read=0, stream=False)]
    until(lambda: s.worker.active == 2)
    s.server.handle_exit(signal.SIGTERM, None)
    until(lambda: s.server.should_exit, 5)
    while part := lines[1].recv(1000): answer = part
    assert b'shutting_down' in answer
    for h in lines: h.close()


def test_starting_badly_is_one_line():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        with pytest.raises(UserError, match='choose another --host or --port'): serving.serve(port=s.getsockname()[1])
    with pytest.raises(UserError, match='no voice folder'): serving.serve(['/nowhere'], port=0)


def test_voices_have_names_of_their_own(voice):
    toy = voices_dir()/'toy-en'
    assert list(serving.load_voices([toy, str(toy)])) == ['toy-en', 'toy-en-2']


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda m, find=importlib.util.find_spec: None if m == 'uvicorn' else find(m))
    with pytest.raises(UserError, match=r"needs uvicorn; pip install 'lewm_tts\[serve\]'"): serving.serve()


def test_hosts_are_checked_on_the_local_machine(sticks):
    url, _ = sticks(hosts=('127.0.0.1', 'localhost'))
    assert httpx.get(f'{url}/health', headers={'Host': 'evil.example'}).status_code == 400 and httpx.get(f'{url}/health').status_code == 200
