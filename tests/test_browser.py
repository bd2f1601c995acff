"""The lessons in a real browser, as a reader meets them: run all cells, play the sound, move a slider.

Needs Chromium, the playwright package and JupyterLab (`pip install -c constraints.txt -e ".[browser]"`, no `playwright install`); skips where one
is missing. LEWM_TTS_SHOTS=DIR keeps a picture of the console of notebook 10 there: this is how nbs/images/console.png is made.
"""
import importlib.util, json, os, secrets, shutil, socket, subprocess, sys, time, urllib.error, urllib.request
from pathlib import Path

import pytest

from conftest import CHROMIUM

ROOT = Path(__file__).resolve().parent.parent


MISSING = [w for w, ok in (('Chromium (apt-get install chromium)', CHROMIUM), ('the playwright package (the browser extra)', importlib.util.find_spec('playwright')),
    ('JupyterLab (the dev extra)', importlib.util.find_spec('jupyterlab')), ('the shipped voice', (ROOT/'lewm_tts'/'voices'/'toy-en'/'model.safetensors').exists())) if not ok]
pytestmark = pytest.mark.skipif(bool(MISSING), reason='no browser test without ' + ', '.join(MISSING))

LEFT_OUT = shutil.ignore_patterns('.*', '__pycache__', 'out', 'build', 'dist', '_docs', '_proc', '*.egg-info')  # not copied
KERNEL_IDLE = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = """window.ranAll = undefined; window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ranAll = 'done', e => window.ranAll = 'error: ' + e); 0"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.filter(c => c.cell_type === 'code' && c.source.trim()).map(c => ({id: c.id, ran: c.execution_count !== null,
    errors: c.outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)}))"""
PLAY = "a => { a.muted = true; a.loop = true; a.play().catch(e => a.dataset.refused = String(e)); }"  # its promise has no time limit
STATE = """async () => {
    const hash = async src => { let h = 0; for (const b of new Uint8Array(await (await fetch(src)).arrayBuffer())) h = (31*h + b) >>> 0; return h; };
    const img = document.querySelector('img.widget-image'), sounds = [...document.querySelectorAll('audio.jupyter-widgets')];
    return {picture: await hash(img.src), shown: img.complete && img.naturalWidth > 100, sound: await hash(sounds.at(-1).src), seconds: sounds.map(a => a.duration),
            report: [...document.querySelectorAll('.widget-html-content')].map(e => e.innerText).join(' ')}; }"""


def free_port():
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); return s.getsockname()[1]


def write(path, value): path.parent.mkdir(parents=True, exist_ok=True); path.write_text(json.dumps(value))


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    "JupyterLab on a copy of the project (Lab saves by itself), with none of the person's own settings; its address as a format string."
    tmp = tmp_path_factory.mktemp('lab')
    shutil.copytree(ROOT, tmp/'project', ignore=LEFT_OUT)
    write(tmp/'config'/'labconfig'/'page_config.json', {'disabledExtensions': {'@jupyterlab/apputils-extension:announcements': True}})
    write(tmp/'settings'/'@jupyterlab'/'notebook-extension'/'tracker.jupyterlab-settings', {'windowingMode': 'none'})  # every cell is in the page
    dirs = {'JUPYTER_CONFIG_DIR': 'config', 'JUPYTERLAB_SETTINGS_DIR': 'settings', 'JUPYTERLAB_WORKSPACES_DIR': 'workspaces', 'JUPYTER_RUNTIME_DIR': 'runtime', 'JUPYTER_DATA_DIR': 'data', 'IPYTHONDIR': 'ipython'}
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'PYTHONPATH': str(tmp/'project'), **{k: str(tmp/d) for k, d in dirs.items()}}
    port, token = free_port(), secrets.token_hex(8)
    with open(tmp/'log', 'w') as log:
        p = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0', '--allow-root', '--expose-app-in-browser',
            f'--IdentityProvider.token={token}', f"--ServerApp.root_dir={tmp/'project'}"], cwd=tmp/'project', env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until = time.time() + 120
        while True:
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api?token={token}', timeout=2).close(); break
            except (urllib.error.URLError, OSError):
                assert p.poll() is None and time.time() < until, 'JupyterLab did not start:\n' + (tmp/'log').read_text()[-2000:]
                time.sleep(.2)
        yield f'http://127.0.0.1:{port}/lab/tree/nbs/{{}}?token={token}&reset'
    finally:
        p.terminate()  # ends its kernels too
        try: p.wait(15)
        except subprocess.TimeoutExpired: p.kill(); p.wait()


def run_all(browser, lab, notebook, seconds=200):
    "A page with the notebook after Run All; fails with the cell and its error if one broke."
    page = browser.new_page(viewport=dict(width=1400, height=1000))
    page.set_default_timeout(90_000)  # kernels start late on a busy machine
    page.goto(lab.format(notebook))
    page.wait_for_function(KERNEL_IDLE)  # Lab calls itself idle before there is a kernel; running then asks for one and hangs
    page.evaluate(RUN_ALL)
    page.wait_for_function('window.ranAll', timeout=1000*seconds)
    assert page.evaluate('window.ranAll') == 'done'
    cells = page.evaluate(CELLS)
    assert not (bad := {c['id']: c['errors'] for c in cells if c['errors']}), f'{notebook}: {bad}'
    assert cells and not (left := [c['id'] for c in cells if not c['ran']]), f'{notebook}: cells that did not run: {left}'
    return page


def play(page, audio):
    "Assert that a player plays."
    audio.evaluate(PLAY)
    try: page.wait_for_function('a => a.currentTime > .3 || a.error || a.dataset.refused', arg=audio.element_handle(), timeout=15_000)
    finally: state = audio.evaluate('a => ({at: a.currentTime, seconds: a.duration, error: a.error?.message, refused: a.dataset.refused})')
    assert state['at'] > .3 and state['seconds'] > .5, state


def deck(page):
    "What the widgets of a notebook show once they are all there."
    page.wait_for_function("[...document.querySelectorAll('audio.jupyter-widgets')].every(a => a.duration > 0) && document.querySelector('img.widget-image')?.complete")
    return page.evaluate(STATE)


def changed(page, before, what, ready=lambda new: True, seconds=40):
    "What the widgets show as soon as picture and report are others than before, and `ready`."
    until = time.time() + seconds
    while True:
        new = page.evaluate(STATE)
        if new['shown'] and new['picture'] != before['picture'] and new['report'] != before['report'] and ready(new): return new
        assert time.time() < until, f'{what}, but {before} became {new}'
        page.wait_for_timeout(200)


def control(page, kind, label): return page.locator(f'.widget-{kind}', has=page.locator('.widget-label', has_text=label))


def test_index_runs_and_can_be_heard(browser, lab):
    page = run_all(browser, lab, 'index.ipynb')
    play(page, page.locator('.jp-OutputArea audio').first)
    page.close()


def test_speed_slider_of_the_engine_changes_sound_and_picture(browser, lab):
    page = run_all(browser, lab, '11_engine.ipynb')
    before = deck(page)
    assert before['shown'] and before['seconds'][0] > .5 and 'ended by itself' in before['report'], f'the player is not ready to play with after Run All: {before}'
    control(page, 'hslider', 'speed').locator('.noUi-handle').focus()
    for _ in range(4): page.keyboard.press('ArrowRight')  # 1.0 to 1.4
    changed(page, before, 'speed moved', lambda new: (new['seconds'][0] or 9) < .8*before['seconds'][0])
    page.close()


def test_console_of_the_rollout_notebook(browser, lab):
    page = run_all(browser, lab, '10_rollout.ipynb')
    healthy = deck(page)
    assert healthy['shown'] and len(healthy['seconds']) == 3 and 'all green' in healthy['report'], healthy
    menu = control(page, 'dropdown', 'checkpoint').locator('select')
    values = menu.evaluate('m => [...m.options].map(o => o.value)')
    menu.select_option(next((v for v in values if v.startswith('leak (')), values[-1]))  # the ward's, or the untrained one
    ill = changed(page, healthy, 'another checkpoint was chosen', lambda new: 'error red' in new['report'])
    assert ill['sound'] != healthy['sound']
    control(page, 'hslider', 'teacher-force').locator('.noUi-handle').focus()
    for _ in range(4): page.keyboard.press('PageUp')  # by 5
    held = changed(page, ill, 'the run is held for 20 steps', lambda new: control(page, 'hslider', 'teacher-force').locator('.widget-readout').inner_text() == '20')
    assert held['sound'] != ill['sound']
    page.wait_for_timeout(1500)  # let the last redraw arrive
    if folder := os.environ.get('LEWM_TTS_SHOTS'):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.locator('.widget-vbox', has=page.locator('img.widget-image')).first.screenshot(path=Path(folder)/'console.png')
    play(page, page.locator('audio.jupyter-widgets').last)
    page.close()
