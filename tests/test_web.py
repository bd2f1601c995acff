"The page that speaks by itself: exported, opened in Chromium, its sound held against Python's."
import importlib.util, shutil, sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CHROMIUM

ROOT = Path(__file__).resolve().parent.parent
missing = [w for w, there in (('Chromium (apt-get install chromium)', CHROMIUM), ('the playwright package (the browser extra)', importlib.util.find_spec('playwright')),
                              ('the onnx package (the onnx extra)', importlib.util.find_spec('onnx'))) if not there]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"no test of the page without {', '.join(missing)}")
sys.path.append(str(ROOT/'bench'))


@pytest.fixture(scope='module')
def ort():
    from lewm_tts.core import UserError
    from lewm_tts.page import ort_web
    try: return ort_web()
    except UserError as e: pytest.skip(f'no test of the page: {e}')


def exported(name, folder, ort, int8=False):
    from lewm_tts.engine import Voice
    from lewm_tts.page import export_page
    v = Voice.load(name)
    return v, export_page(v.model, v.vocoder, folder, int8, v.card, ort)


def test_it_says_what_python_says(tmp_path, browser, ort):
    from page import TEXTS, python_sound, visit
    voice, folder = exported('toy-en', tmp_path/'page', ort)
    facts, sounds = visit(browser, folder, TEXTS)
    assert facts['errors'] == [] and facts['elsewhere'] == [] and facts['loaded'].startswith('ready')
    for t, (w, told) in sounds.items():
        ref = python_sound(voice, t)
        assert w.shape == ref.shape and np.abs(w-ref).max() < 2e-3 and np.abs(ref).max() > .1, (t, np.abs(w-ref).max())
        assert 'first sound after' in told
    other = visit(browser, folder, TEXTS[:1], speed=2)[1][TEXTS[0]][0]
    ref = python_sound(voice, TEXTS[0], speed=2.)
    assert other.shape == ref.shape and np.abs(other-ref).max() < 2e-3, 'speed'


def test_speakers_and_small_weights(tmp_path, browser, ort):
    from page import python_sound, visit
    voice, folder = exported('twelve', tmp_path/'page', ort)
    text = 'Good morning.'
    sound = visit(browser, folder, [text], speaker=7)[1][text][0]
    right, wrong = (python_sound(voice, text, speaker=s) for s in (7, 0))
    assert sound.shape == right.shape and np.abs(sound-right).max() < 2e-3
    assert sound.shape != wrong.shape or np.abs(sound-wrong).max() > .05
    _, small = exported('toy-en', tmp_path/'small', ort, int8=True)
    facts, sounds = visit(browser, small, [text])
    assert facts['errors'] == [] and np.abs(sounds[text][0]).max() > .1 and abs(len(sounds[text][0])/24000-1.1) < .2


def test_a_text_without_words_and_a_broken_graph_are_told(tmp_path, browser, ort):
    from page import visit
    _, folder = exported('toy-en', tmp_path/'page', ort)
    facts, sounds = visit(browser, folder, ['?!'])
    assert len(sounds['?!'][0]) == 0 and 'give at least one word' in sounds['?!'][1] and facts['errors'] == []
    (folder/'step.onnx').write_bytes(b'rubbish')
    assert 'could not be loaded' in visit(browser, folder, [])[0]['loaded']
    shutil.rmtree(folder)
