"""Many clients at once for minutes: is every answer the right one, and does the server stay as it was?

    python bench/soak.py [--seconds 120] [--clients 64] [--lanes 16] [--threads 2] [--json bench/soak.json]

Starts `serve` as a process of its own and first makes every utterance offline (`Voice.speak`, one lane). Then the clients ask without a break: plain and streamed requests,
websockets that send their text in parts, and, `--rude` of a hundred, clients that hang up in the middle or read slowly. An answer is right if it has the samples of its own
offline result: equal bit for bit after rounding to 16 bits, or off by at most `--tolerance` of 32768 (lanes of a batch may add up in another order). It is mixed up if it
fits another utterance, and lost if it never came. Memory is the server's RSS, once a second.
"""
import argparse, asyncio, hashlib, json, os, platform, random, subprocess, sys, time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import torch
from websockets.asyncio.client import connect

from lewm_tts.core import atomic_path, pcm16
from lewm_tts.engine import Voice

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ['One.', 'Two birds sang.', 'Is it three already?', 'Hello there, how are you?', 'A small door opened, and nobody came in.', 'The sea is cold today.', 'Yes!', 'Seven old men and a dog walked home.',
         'At 7:30 the train left, and the station was quiet again.', 'Come in. Sit down. It is warm here.', 'The old clock on the wall rang again, and nobody in the house heard it.', 'Good night, and thank you.']


def offline(voice):
    "{(text, seed, speed): 16-bit samples}, all of different content."
    out = {}
    for i, t in enumerate(TEXTS):
        for seed, speed, temperature in ((0, 1., 0.), (i+1, 1.2, .3)):
            out[t, seed, speed, temperature] = np.frombuffer(pcm16(voice.speak(t, seed=seed, speed=speed, temperature=temperature).wav), '<i2')
    return out


def judge(got, key, want, tolerance):
    "'same', 'close', 'mixed up' or 'wrong', and the largest difference."
    a, b = np.frombuffer(got, '<i2'), want[key]
    if len(a) == len(b) and (most := int(np.abs(a.astype(int)-b).max())) <= tolerance: return ('close' if most else 'same'), most
    prints = {hashlib.sha256(v.tobytes()).hexdigest() for k, v in want.items() if k != key}
    return ('mixed up' if hashlib.sha256(got).hexdigest() in prints else 'wrong'), -1


async def ask(client, url, key, how):
    "One request: (sound, seconds to the first sound)."
    text, seed, speed, temperature = key
    body, t0, parts, first = dict(seed=seed, speed=speed, temperature=temperature), time.perf_counter(), [], None
    if how == 'websocket':
        async with connect(url.replace('http', 'ws')+'/v1/audio/stream', open_timeout=60) as ws:
            await ws.send(json.dumps(dict(type='start', **body)))
            for i in range(0, len(text), 7): await ws.send(json.dumps(dict(type='text', text=text[i:i+7])))
            await ws.send('{"type":"end"}')
            async for m in ws:
                if isinstance(m, bytes): first = first or time.perf_counter()-t0; parts.append(m); continue
                m = json.loads(m)
                if m['type'] == 'error': raise RuntimeError(m['error']['message'])
                if m['type'] == 'done': break
        return b''.join(parts), first
    body |= dict(input=text, response_format='pcm', stream=how != 'whole')
    async with client.stream('POST', '/v1/audio/speech', json=body) as r:
        if r.status_code == 429: return None, None
        if r.status_code != 200: raise RuntimeError(f'{r.status_code} {(await r.aread()).decode()[:200]}')
        async for b in r.aiter_bytes():
            first = first or time.perf_counter()-t0; parts.append(b)
            if how == 'hang up': return b'', first
            if how == 'slow': await asyncio.sleep(.2)
    return b''.join(parts), first


async def one_client(i, url, want, until, log, a):
    rng = random.Random(i)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=4)) as client:
        while time.time() < until:
            key = rng.choice(list(want))
            how = rng.choice(['hang up', 'slow']) if rng.random() < a.rude/100 else rng.choice(['stream', 'whole', 'websocket'])
            try: got, first = await ask(client, url, key, how)
            except Exception as e: log['lost'].append(f'{how}: {type(e).__name__} {e}'[:200]); continue
            if got is None: log['busy'] += 1; await asyncio.sleep(.5); continue
            verdict, most = ('hung up', 0) if how == 'hang up' else judge(got, key, want, a.tolerance)
            log['verdicts'][verdict] += 1; log['how'][how] += 1; log['diff'] = max(log['diff'], most); log['first'].append(first); log['audio_s'] += len(got)/48000


async def watch(pid, until, rss):
    "Resident megabytes of the server."
    while time.time() < until:
        status = Path(f'/proc/{pid}/status').read_text() if Path(f'/proc/{pid}').exists() else ''
        rss += [int(x.split()[1])/1024 for x in status.splitlines() if x.startswith('VmRSS')]
        await asyncio.sleep(1)


async def soak(url, pid, want, a):
    log = dict(verdicts=Counter(), how=Counter(), lost=[], busy=0, diff=0, first=[], audio_s=0., rss=[])
    t0, cpu0 = time.time(), cpu(pid)
    until = t0+a.seconds
    await asyncio.gather(watch(pid, until, log['rss']), *(one_client(i, url, want, until, log, a) for i in range(a.clients)))
    log['wall_s'], log['cpu_s'] = time.time()-t0, cpu(pid)-cpu0
    await asyncio.sleep(1)
    async with httpx.AsyncClient() as c: text = (await c.get(f'{url}/metrics')).text
    log['active_after'] = float(next(x for x in text.splitlines() if x.startswith('lewm_tts_active_jobs ')).split()[1])
    return log


def cpu(pid):
    "CPU seconds of a process."
    f = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(f[11])+int(f[12]))/os.sysconf('SC_CLK_TCK')


def report(log, a, code):
    first, rss = sorted(log['first']), log['rss']
    at = lambda q: round(first[min(len(first)-1, int(q*len(first)))], 3)
    quarter = rss[len(rss)//4:] or rss
    return dict(clients=a.clients, lanes=a.lanes, threads=a.threads, seconds=a.seconds, cores=os.cpu_count(), machine=platform.machine(), torch=torch.__version__,
        answers=sum(log['verdicts'].values()), verdicts=dict(log['verdicts']), kinds=dict(log['how']), lost=len(log['lost']), lost_examples=log['lost'][:5], told_to_wait=log['busy'],
        largest_difference_of_32768=log['diff'], first_sound_s=dict(p50=at(.5), p95=at(.95), worst=at(1)), audio_s=round(log['audio_s'], 1), wall_s=round(log['wall_s'], 1),
        audio_per_wall_second=round(log['audio_s']/log['wall_s'], 2), server_cpu_s=round(log['cpu_s'], 1), rss_mb=dict(start=round(rss[0]), quarter=round(quarter[0]), most=round(max(rss)), end=round(rss[-1])),
        grew_mb=round(np.mean(quarter[-5:])-np.mean(quarter[:5]), 1), active_after=log['active_after'], exit_code=code)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, default in (('seconds', float, 120.), ('clients', int, 64), ('lanes', int, 16), ('threads', int, 2), ('rude', float, 10.), ('tolerance', int, 32)): ap.add_argument('--'+name, type=kind, default=default)
    ap.add_argument('--json', type=Path)
    a = ap.parse_args()
    torch.set_num_threads(1)
    want = offline(Voice.load())
    assert len({v.tobytes() for v in want.values()}) == len(want), 'utterances must differ, or a mix-up could not be seen'
    code = f'from lewm_tts.serve import serve; raise SystemExit(serve(port=0, lanes={a.lanes}, queue={a.clients}, threads={a.threads}))'
    server = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        url = server.stdout.readline().split()[0]
        for _ in range(300):
            try: httpx.get(f'{url}/health'); break
            except httpx.TransportError: time.sleep(.1)
        log = asyncio.run(soak(url, server.pid, want, a))
    finally: server.terminate(); rc = server.wait(30)
    out = report(log, a, rc)
    print(json.dumps(out, indent=1))
    if a.json:
        with atomic_path(a.json) as p: p.write_text(json.dumps(out, indent=1)+'\n')
    good = out['lost'] == 0 and not {'mixed up', 'wrong'} & set(out['verdicts']) and out['active_after'] == 0 and rc == 0 and out['grew_mb'] < 64
    print('all answers right, none lost, nothing left over' if good else 'NOT GOOD')
    return int(not good)


if __name__ == '__main__': sys.exit(main())
