"The autopsy names the disease of every patient in the ward, and lets the healthy ones go."
import json
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
ROOT = Path(__file__).resolve().parent.parent
WARD = ROOT/'data'/'ward'
pytestmark = pytest.mark.skipif(not (ROOT/'lewm_tts'/'autopsy.py').exists(), reason='lewm_tts/autopsy.py is not exported yet')


@pytest.fixture(scope='module')
def texts():
    "Held-out sentences of the toy grammar, as short as those the patients were trained on, and not those of the notebook."
    from lewm_tts.data import espeak_available, generator_sentences
    if not espeak_available(): pytest.skip('needs espeak; run: pip install lewm_tts[toy]')
    torch.set_num_threads(1)
    return [s for s in generator_sentences(400, 3, 'test') if len(s) <= 34][:12]


def patients():
    from lewm_tts.autopsy import WARD as names
    return list(names)


@pytest.mark.parametrize('name', patients())
def test_the_disease_is_named(name, texts):
    from lewm_tts.autopsy import WARD as names, autopsy
    from lewm_tts.model import load_model
    folder = WARD/name
    if not (folder/'model.safetensors').exists(): pytest.skip(f'patient {name} is not in data/ward')
    card = json.loads((folder/'card.json').read_text())
    assert card['disease'] == names[name], 'the card and the list of patients disagree'
    r = autopsy(load_model(folder), texts, title=name)
    assert r.disease == names[name], '\n'+str(r)
    if name == 'healthy': assert not r.alarms
    else: assert r.diagnosis[0].rows and r.diagnosis[0].remedy


def test_nobody_is_left_out():
    "Every model folder in the ward is a patient the autopsy knows, or says that it has no disease to name."
    from lewm_tts.autopsy import WARD as names
    if not WARD.is_dir(): pytest.skip('there is no ward')
    for card in WARD.glob('*/card.json'):
        assert card.parent.name in names or json.loads(card.read_text())['disease'] in ('', 'healthy'), card


def test_the_shipped_voice_is_healthy(texts):
    from lewm_tts.autopsy import autopsy
    from lewm_tts.core import voices_dir
    from lewm_tts.model import load_model
    home = voices_dir()/'toy-en'
    if not (home/'model.safetensors').exists(): pytest.skip('no shipped voice')
    everyday = (ROOT/'data'/'everyday.txt').read_text().splitlines()[:8]
    for some in (texts, everyday):
        r = autopsy(load_model(home), some)
        assert r.disease == 'healthy' and not r.alarms, '\n'+str(r)


def test_one_model_for_every_disease():
    "The list of diseases has no line that nothing can trigger, and no patient without a line."
    from lewm_tts.autopsy import CHECKS, DISEASES, WARD as names
    assert {s for d in DISEASES for s in (*d.signs, *d.also)} <= set(CHECKS)
    assert set(names.values()) - {'healthy'} <= {d.key for d in DISEASES}


@pytest.mark.parametrize('preset', ['tiny', 'mini', 'v3', 'v3b', 'v3c', 'base'])
def test_every_preset_can_be_examined(preset, texts):
    "Untrained, so ill in any case; a bidirectional encoder must be found even so."
    from lewm_tts.autopsy import CHECKS, autopsy
    from lewm_tts.core import PRESETS, make_config
    from lewm_tts.model import LeWMTTS
    assert preset in PRESETS and len(PRESETS) == 6
    torch.manual_seed(0)
    r = autopsy(LeWMTTS(make_config(preset)), texts[:4])
    assert len(r.rows) == len(CHECKS) and all(row.why or row.verdict in ('ok', 'warn', 'ALARM', '') for row in r.rows)
    assert r.disease != 'healthy' and (r.disease == 'leak') == (not make_config(preset).causal)
