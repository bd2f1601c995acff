"""The page of lesson 12e in Chromium: bytes, seconds to load and to the first sound, speed, and its sound against Python's.

    python bench/page.py [--voice toy-en] [--out bench/page.json]

Needs the packages playwright and onnx, Chromium, and npm (or --ort FOLDER) for onnxruntime-web. tests/test_web.py uses `visit` too.
"""
import argparse, http.server, json, tempfile, threading
from pathlib import Path

import numpy as np

TEXTS = ['Good morning.', 'Two birds sang at 7:30, and nobody asked a server. Are you sure?', 'On the 3rd of May, 1842, Dr. Brown paid $12.50; it rained.']


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *a): pass


def visit(browser, folder, texts, shot=None, **how):
    "Open the page of `folder` and let it speak: (facts, {text: samples}). Asks for nothing that is not on this machine."
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), lambda *a: Quiet(*a, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page, errors, asked = browser.new_page(viewport=dict(width=900, height=520)), [], []
    page.on('pageerror', lambda e: errors.append(str(e))); page.on('request', lambda r: asked.append(r.url))
    try:
        page.goto(f'http://127.0.0.1:{server.server_port}/')
        page.wait_for_function("/^ready|could not/.test(document.querySelector('#facts').textContent)", timeout=120_000)
        loaded, sounds = page.inner_text('#facts'), {}
        for t in texts:
            page.evaluate('window.lastSound = null'); page.fill('#text', t)
            for k, v in how.items(): page.evaluate(f"document.querySelector('#{k}').value = {json.dumps(str(v))}")
            page.click('#speak'); page.wait_for_function("window.lastSound || document.querySelector('#facts').className == 'bad'", timeout=120_000)
            sounds[t] = np.array(page.evaluate('Array.from(window.lastSound ?? [])'), dtype=np.float32), page.inner_text('#facts')
        if shot: page.screenshot(path=shot)
        return dict(loaded=loaded, errors=errors, elsewhere=[u for u in asked if '//127.0.0.1' not in u and not u.startswith(('blob:', 'data:'))]), sounds
    finally: page.close(); server.shutdown(); server.server_close()


def python_sound(voice, text, **how):
    "The same text by torch, each piece decoded in one go."
    return voice.batch([text], check=False, **how)[0].wav.numpy()


def main():
    import re, torch
    from playwright.sync_api import sync_playwright
    from lewm_tts.core import atomic_path
    from lewm_tts.data import LogMel
    from lewm_tts.engine import Voice
    from lewm_tts.evaluate import mcd_dtw
    from lewm_tts.page import ORT_FILES, ORT_WEB, export_page, ort_web
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument('--voice', default='toy-en'); ap.add_argument('--ort'); ap.add_argument('--out', default='bench/page.json'); ap.add_argument('--shot'); ap.add_argument('--chromium', default='/usr/bin/chromium')
    a = ap.parse_args(); torch.set_num_threads(1); voice = Voice.load(a.voice); ort = ort_web(a.ort)
    out = dict(onnxruntime_web=ORT_WEB, runtime={f: (ort/f).stat().st_size for f in ORT_FILES}, weights={})
    with tempfile.TemporaryDirectory() as tmp, sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=a.chromium, args=['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--autoplay-policy=no-user-gesture-required'])
        for kind in ('float32', 'int8'):
            folder = export_page(voice.model, voice.vocoder, Path(tmp)/kind, kind == 'int8', voice.card, ort)
            facts, sounds = visit(b, folder, TEXTS*2, a.shot if kind == 'float32' else None)
            refs = {t: python_sound(voice, t) for t in TEXTS}
            told = [re.search(r'([\d.]+) s of sound.*after (\d+) ms, ([\d.]+) x', f) for _, f in sounds.values()]
            r = out['weights'][kind] = dict(bytes=sum(p.stat().st_size for p in folder.glob('*.onnx')), load_s=float(re.search(r'after ([\d.]+) s', facts['loaded'])[1]),
                                            first_ms=min(float(m[2]) for m in told), times_faster=max(float(m[3]) for m in told),
                                            largest_difference=max(float(np.abs(w-refs[t]).max()) if w.shape == refs[t].shape else 9. for t, (w, _) in sounds.items()),
                                            mcd_db=max(mcd_dtw(*(LogMel()(torch.from_numpy(x)) for x in (w, refs[t]))).db for t, (w, _) in sounds.items()))
            print(kind, r, facts, flush=True)
        b.close()
    with atomic_path(Path(a.out)) as p: p.write_text(json.dumps(out, indent=1)+'\n')


if __name__ == '__main__': main()
