"The house keeps its promises: settings, light imports, and the tools that watch the rest."
import ast, importlib.util, json, os, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ('torchaudio', 'librosa', 'matplotlib', 'plotly', 'ipywidgets', 'IPython', 'jupyter_core', 'nbdev', 'accelerate',
         'lewm_tts.training', 'lewm_tts.evaluate', 'lewm_tts.rollout')


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    mod = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = mod  # dataclasses look their module up
    spec.loader.exec_module(mod)
    return mod


check_imports = load(ROOT/'tools'/'check_imports.py')


@pytest.fixture(scope='module')
def cfg():
    cp = ConfigParser(delimiters=['='])
    cp.read(ROOT/'settings.ini')
    return cp['DEFAULT']


def names(req): return {re.split(r'[<>=!~ ;\[]', r.strip())[0].lower().replace('_', '-') for r in req.splitlines() if r.strip()}


# settings and installation

def test_settings_hold_no_inline_comments(cfg):
    for k, v in cfg.items(): assert '#' not in v, f'{k} = {v!r}: a comment needs a line of its own'


def test_version_is_typed_once(cfg):
    init = ROOT/'lewm_tts'/'__init__.py'
    if not init.exists(): pytest.skip('lewm_tts/__init__.py is not exported yet')
    assert re.search(r'__version__ = ["\'](.+?)["\']', init.read_text())[1] == cfg['version']
    assert f"## {cfg['version']}" in (ROOT/'CHANGELOG.md').read_text()


def test_requirements_and_extras(cfg):
    base = names(cfg['requirements'])
    assert {'torch', 'torchaudio', 'vocos', 'numpy', 'safetensors', 'soundfile', 'soxr'} <= base
    assert names(cfg['toy_requirements']) == {'espeakng-loader'} and names(cfg['eval_requirements']) == {'pocketsphinx', 'jiwer'}
    assert not base & {'espeakng-loader', 'pocketsphinx', 'jiwer', 'jupyterlab', 'nbdev'}, 'speaking works with none of the extras'
    assert 'nbdev==2.4.14' in cfg['dev_requirements'] and {'execnb', 'ghapi', 'ruff', 'pytest'} <= names(cfg['dev_requirements'])
    assert 'fastcore<2' in cfg['requirements'], 'the library uses it; 2.x breaks nbdev 2'


def test_setup_py_reads_settings(cfg):
    setup = pytest.importorskip('setuptools') and load(ROOT/'setup.py')
    got = setup.extras(setup.settings())
    assert set(got) == {'toy', 'eval', 'serve', 'prepare', 'onnx', 'ray', 'peers', 'browser', 'dev'} and set(sum((got[k] for k in ('toy', 'eval', 'serve', 'prepare', 'onnx')), [])) <= set(got['dev'])
    assert setup.lines(setup.settings()['console_scripts']) == ['lewm-tts=lewm_tts.cli:main']
    imported = {a.name for n in ast.walk(ast.parse((ROOT/'setup.py').read_text())) if isinstance(n, ast.Import) for a in n.names}
    assert 'pkg_resources' not in imported


def test_every_requirement_is_pinned_in_constraints(cfg):
    pins = names('\n'.join(line for line in (ROOT/'constraints.txt').read_text().splitlines() if not line.startswith('#')))
    for k in [k for k in cfg if k.endswith('requirements')]:
        assert names(cfg[k]) <= pins, f'{k}: {names(cfg[k]) - pins} not in constraints.txt'


def test_engine_imports_light():
    "Speaking must not load plotting, notebook or training packages."
    if not (ROOT/'lewm_tts'/'engine.py').exists(): pytest.skip('lewm_tts/engine.py is not exported yet')
    code = f'import sys, lewm_tts.engine; print([m for m in {HEAVY!r} if m in sys.modules])'
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr
    assert r.stdout.strip() == '[]'


def test_the_command_line_imports_nothing():
    "`--help` must not wait for torch."
    code = "import sys, lewm_tts.cli; print([m for m in ('torch', 'numpy', 'fastcore', 'lewm_tts.core') if m in sys.modules])"
    r = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr
    assert r.stdout.strip() == '[]'


# the Makefile

def test_demo_passes_text_on_as_typed(tmp_path):
    text = """it's "quoted" & $HOME `x` #1 \\ -- ok"""
    (tmp_path/'.venv'/'bin').mkdir(parents=True)
    (tmp_path/'Makefile').write_text((ROOT/'Makefile').read_text())
    for f in ('setup.py', 'settings.ini', 'constraints.txt', 'tools/setup.sh'):
        (tmp_path/f).parent.mkdir(exist_ok=True); (tmp_path/f).touch()
    (tmp_path/'.venv'/'.ready').touch()
    cli = tmp_path/'.venv'/'bin'/'lewm-tts'
    cli.write_text('#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done\n'); cli.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith('MAKE') and k != 'TEXT'}

    def make(*args, **more): return subprocess.run(['make', '-s', *args], cwd=tmp_path, env={**env, **more}, capture_output=True, text=True).stdout

    assert make('demo', f'TEXT={text}') == f'<demo><--><{text}>'
    assert make('demo', TEXT=text) == f'<demo><--><{text}>'
    assert make('demo') == '<demo>'
    assert make('train-voice') == '<train-voice>'


# the checker of the import order

def module(n, name, *body): return f'# AUTOGENERATED! DO NOT EDIT! File to edit: ../nbs/{n:02}_{name}.ipynb.\n' + '\n'.join(body) + '\n'


def plant(root, nbs=None, **modules):
    "A project with a good `core` (0) and `data` (2), plus `modules` as name=(number, *lines)."
    (root/'lewm_tts').mkdir(); (root/'nbs').mkdir()
    good = dict(core=(0, 'import os'), data=(2, 'from .core import x', 'def f():', '    from . import core', '    import lewm_tts.core'))
    for name, (n, *body) in {**good, **modules}.items():
        (root/'lewm_tts'/f'{name}.py').write_text(module(n, name, *body))
    for name, cells in (nbs or {}).items(): write_nb(root/'nbs'/f'{name}.ipynb', cells)
    return check_imports.check(root)


def write_nb(path, cells):
    cs = [dict(cell_type='code', id=i, metadata={}, source=s, outputs=[], execution_count=None) for i, s in cells]
    path.write_text(json.dumps(dict(cells=cs, metadata={'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'}}, nbformat=4, nbformat_minor=5), indent=1))


def test_checker_is_silent_on_a_good_project(tmp_path):
    nbs = {'00_core': [('a', 'import os'), ('b', '%matplotlib inline\nx=1')], '02_data': [('a', 'from lewm_tts.core import x')], 'index': [('a', 'from lewm_tts.data import f')]}
    assert plant(tmp_path, nbs) == ([], [])


@pytest.mark.parametrize('body, word', [
    (['from .core import *'], 'star import of core'),
    (['from lewm_tts.core import *'], 'star import of core'),
    (['from .encoder import x'], 'data (02) imports encoder (04)'),
    (['def f():', '    from lewm_tts.encoder import x'], 'data (02) imports encoder (04)'),
    (['from . import core, encoder'], 'data (02) imports encoder (04)'),
    (['import lewm_tts.encoder as e'], 'data (02) imports encoder (04)'),
    (['import importlib; importlib.import_module("lewm_tts.encoder")'], 'data (02) imports encoder (04)'),
    (['from .data import f'], 'data (02) imports data (02)')])
def test_checker_catches_imports(tmp_path, body, word):
    bad, _ = plant(tmp_path, data=(2, *body), encoder=(4, 'x = 1'))
    assert len(bad) == 1 and word in bad[0], bad


@pytest.mark.parametrize('nbs, word', [
    ({'00_core': [('a', '1'), ('a', '2')]}, 'cell id a stands 2 times'),
    ({'00_core': [(None, '1')]}, 'without an id'),
    ({'00_core': [('a', 'from lewm_tts.data import f')]}, 'which a later notebook (02) makes'),
    ({'02_data': [('a', 'from lewm_tts.core import *')]}, 'star import of core'),
    ({'02_data': [('a', '1')], '02_other': [('a', '1')]}, '2 notebooks have the number 02')])
def test_checker_catches_notebooks(tmp_path, nbs, word):
    bad, _ = plant(tmp_path, nbs)
    assert len(bad) == 1 and word in bad[0], bad


def test_checker_reports_long_cells_and_stray_modules(tmp_path):
    bad, told = plant(tmp_path, {'00_core': [('a', '#| export\n' + 'x=1\n'*41), ('b', '#| export\n' + 'x=1\n'*40), ('c', 'x=1\n'*60)]})
    assert not bad and len(told) == 1 and 'exported cell of 41 lines' in told[0]
    (tmp_path/'lewm_tts'/'stray.py').write_text('x = 1\n')
    assert 'stray.py: not exported' in check_imports.check(tmp_path)[0][0]
    r = subprocess.run([sys.executable, ROOT/'tools'/'check_imports.py', tmp_path], capture_output=True, text=True)
    assert r.returncode == 1 and 'stray.py' in r.stdout


def test_this_project_keeps_the_order():
    bad, _ = check_imports.check(ROOT)
    assert not bad, '\n'.join(bad)


# the runner

def run(root, *args, **env):
    base = {k: v for k, v in os.environ.items() if k not in ('NB_FLAGS', 'NB_TIMEOUT', 'JOBS')}
    return subprocess.run([sys.executable, ROOT/'tests'/'run.py', '--root', root, *args], env={**base, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200)


@pytest.fixture
def project(tmp_path):
    for d in ('nbs', 'lewm_tts', 'tests'): (tmp_path/d).mkdir()
    (tmp_path/'settings.ini').write_text((ROOT/'settings.ini').read_text())
    (tmp_path/'lewm_tts'/'__init__.py').touch()
    write_nb(tmp_path/'nbs'/'00_good.ipynb', [('a', 'import lewm_tts'), ('b', '#| slow\n1/0')])
    return tmp_path


def test_runner_passes_a_good_project(project):
    (project/'tests'/'test_two.py').write_text('import pytest\ndef test_a(): pass\n@pytest.mark.skip(reason="no such machine")\ndef test_b(): pass\n')
    r = run(project)
    assert r.returncode == 0, r.stdout + r.stderr
    assert r.stdout.splitlines()[-1] == '2 passed, 0 failed, 1 skipped'
    assert 'slowest notebooks: 00_good.ipynb' in r.stdout and 'no such machine' in r.stdout


def test_runner_reports_failures(project):
    write_nb(project/'nbs'/'01_bad.ipynb', [('a', 'x = 41'), ('b', 'assert x == 42, "planted"')])
    (project/'tests'/'test_two.py').write_text('def test_a(): pass\ndef test_b(): assert 1 == 2\n')
    (project/'tests'/'test_broken.py').write_text('import no_such_module\n')
    r = run(project)
    assert r.returncode == 1
    assert r.stdout.splitlines()[-1] == '2 passed, 3 failed'
    assert 'assert x == 42' in r.stdout and 'planted' in r.stdout, 'the failing cell is shown'
    assert 'failed: 01_bad.ipynb, test_broken.py, test_two.py' in r.stdout


def test_runner_runs_flagged_cells_when_asked(project):
    r = run(project, NB_FLAGS='slow')
    assert r.returncode == 1 and 'ZeroDivisionError' in r.stdout and r.stdout.splitlines()[-1] == '0 passed, 1 failed'


def test_runner_kills_what_hangs_and_what_dies(project):
    write_nb(project/'nbs'/'01_hangs.ipynb', [('a', 'import time\ndef wait_for_ever(): time.sleep(1000)'), ('b', 'wait_for_ever()')])
    write_nb(project/'nbs'/'02_dies.ipynb', [('a', 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)')])
    r = run(project, NB_TIMEOUT='40')
    assert r.returncode == 1 and r.stdout.splitlines()[-1] == '1 passed, 2 failed', r.stdout
    assert 'killed after 40 s' in r.stdout and 'wait_for_ever' in r.stdout and 'died of signal 9' in r.stdout


def test_runner_with_nothing_to_run_is_a_failure(tmp_path):
    r = run(tmp_path)
    assert r.returncode == 1 and r.stdout.splitlines()[-1] == '0 passed, 0 failed'


def test_the_shipped_voice_is_small():
    "At most 4 M parameters, 16 MB of weights, 8 MB of them the vocoder."
    from lewm_tts.core import voices_dir
    from lewm_tts.model import load_model
    folder = voices_dir()/'toy-en'
    size = {f: (folder/f).stat().st_size for f in ('model.safetensors', 'vocoder.safetensors')}
    assert sum(size.values()) <= 16e6 and size['vocoder.safetensors'] <= 8e6
    assert sum(p.numel() for p in load_model(folder).parameters()) <= 4_000_000
