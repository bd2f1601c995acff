"""The server's page in a real browser: text is typed, sound is really playing, the pictures grow; tokens, comparison, keyboard.

Needs Chromium and the playwright package, as tests/test_browser.py does; skips where one is missing. LEWM_TTS_SHOTS=DIR keeps a picture of the page there.
"""
import importlib.util, io, os, time, wave
from pathlib import Path

import pytest
import torch

from conftest import CHROMIUM

from lewm_tts.core import voices_dir


def there(m): return importlib.util.find_spec(m) is not None


MISSING = [w for w, ok in (('Chromium (apt-get install chromium)', CHROMIUM), ('the playwright package (the browser extra)', there('playwright')), ('the shipped voice', (voices_dir()/'toy-en'/'model.safetensors').exists()),
    ('fastapi, uvicorn, websockets, prometheus_client (the serve extra)', all(map(there, ('fastapi', 'uvicorn', 'websockets', 'prometheus_client'))))) if not ok]
pytestmark = pytest.mark.skipif(bool(MISSING), reason='no test of the page without ' + ', '.join(MISSING))

INK = """s => { const c = document.querySelector(s), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set();
    let lit = 0; for (let i = 0; i < d.length; i += 4) { if (d[i+3]) lit++; seen.add(d[i]+256*d[i+1]+65536*d[i+2]); } return {lit: 4*lit/d.length, colours: seen.size}; }"""


@pytest.fixture(scope='module')
def voice():
    from lewm_tts.engine import Voice
    torch.set_num_threads(1)
    return Voice.load()


@pytest.fixture
def open_page(browser, voice):
    "A function that starts a server and opens its page; a page that throws or asks anybody else for anything fails."
    from lewm_tts.serve import make_app, running
    left, wrong = [], []

    def start(**kw):
        server = running(make_app({'toy-en': voice, 'other': voice}, lanes=2, **kw))
        url = server.__enter__()
        page = browser.new_page(viewport=dict(width=1180, height=800))
        page.set_default_timeout(60_000)
        page.on('pageerror', lambda e: wrong.append(str(e)))
        page.on('request', lambda r: None if r.url.startswith((url, url.replace('http', 'ws'), 'blob:', 'data:')) else wrong.append(r.url))
        page.goto(url)
        left[:] = [page, server]
        return page
    yield start
    left[0].close()
    left[1].__exit__(None, None, None)
    assert not wrong, wrong


def wait(page, what, seconds=60):
    "Until an expression is true. (Playwright's own way needs `eval`, which the page forbids.)"
    until = time.time()+seconds
    while not page.evaluate(f'() => {what}'):
        assert time.time() < until, what
        page.wait_for_timeout(50)


def shoot(page, name):
    if folder := os.environ.get('LEWM_TTS_SHOTS'): Path(folder).mkdir(parents=True, exist_ok=True); page.screenshot(path=Path(folder)/name)


def test_type_hear_see_and_download(open_page, voice):
    page = open_page()
    wait(page, "document.querySelector('#state').textContent === '2 voices'")
    blank = page.evaluate(INK, '.mel')
    page.locator('#text').fill('Two birds sang at 7:30, and nobody in the old house heard them. Then it was quiet.')
    page.keyboard.press('Control+Enter')
    wait(page, 'panes[0].playing && panes[0].at() > .3 && ctx.heard > 5')       # the clock runs and the analyser sees a signal
    at = page.evaluate('() => [ctx.currentTime, panes[0].at()]')
    page.wait_for_timeout(400)
    later = page.evaluate('() => [ctx.currentTime, panes[0].at()]')
    assert later[0] > at[0]+.2 and later[1] > at[1]+.2 and page.evaluate('() => ctx.state') == 'running'
    assert '7:30' in page.locator('.words').inner_text(), 'words as they were typed'
    wait(page, "document.querySelector('.words .now')")
    shoot(page, 'page.png')
    wait(page, 'panes[0].done && !panes[0].busy')
    mel, path = page.evaluate(INK, '.mel'), page.evaluate(INK, '.path')
    assert blank['lit'] < .02 and mel['lit'] > .5 and mel['colours'] > 100 and .003 < path['lit'] < .6, (blank, mel, path)
    with page.expect_download() as d: page.locator('a.save').click()
    want = voice.speak('Two birds sang at 7:30, and nobody in the old house heard them. Then it was quiet.').wav
    with wave.open(io.BytesIO(Path(d.value.path()).read_bytes())) as f: assert (f.getframerate(), f.getnframes()) == (24000, len(want))
    assert d.value.suggested_filename == 'lewm_tts_toy-en_0.wav'
    page.keyboard.press('Escape')
    assert not page.evaluate('() => panes[0].playing')
    page.locator('.play').click()
    wait(page, 'panes[0].playing')


def test_compare_two(open_page):
    page = open_page()
    wait(page, 'voices.length === 2')
    page.locator('#text').fill('Here I am, and everybody can hear me.')
    page.locator('#compare').check()
    second = page.locator('.pane').nth(1)
    assert second.locator('.voice').input_value() == 'other'
    second.locator('.speed').focus(); second.locator('.speed').press('End')                  # 2: by keyboard alone
    page.emulate_media(color_scheme='dark')
    page.locator('#speak').click()
    wait(page, 'panes.every(p => p.done && p.n)')
    a, b = page.evaluate('() => panes.map(p => p.n)')
    assert b < .8*a, 'each pane has its own knobs'
    wait(page, 'panes[1].playing')                                              # after the first has ended, by itself
    shoot(page, 'compare.png')
    page.locator('#compare').uncheck()
    assert page.locator('.pane').count() == 1


def test_token_and_errors_are_shown(open_page):
    page = open_page(token='sesam', max_chars=200)
    wait(page, "document.querySelector('#state').textContent === 'needs a token'")
    page.locator('#token').fill('wrong'); page.locator('#speak').click()
    wait(page, "document.querySelector('.facts').textContent.includes('token')")
    page.locator('#token').fill('sesam'); page.locator('#token').press('Tab')
    wait(page, "document.querySelector('#state').textContent === '2 voices'")
    page.locator('#text').fill('a'*201); page.locator('#speak').click()
    wait(page, "document.querySelector('.facts.bad')?.textContent.includes('201 characters')")
    page.locator('#text').fill('Well.'); page.locator('#speak').click()
    wait(page, 'panes[0].done && panes[0].n')
    assert 'TOKEN' in page.locator('#curl').text_content() and 'sesam' not in page.content()
