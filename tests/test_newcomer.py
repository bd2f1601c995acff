"My folder, my voice: the three commands of the README, on 24 real recordings."
import json, subprocess, sys

import pytest
import soundfile

from lewm_tts.core import recordings_dir, voices_dir

REC = recordings_dir()
MINI = REC and (REC/'LJSpeech-mini').is_dir() and REC/'LJSpeech-mini'
pytestmark = [pytest.mark.skipif(not MINI, reason='no LJSpeech-mini among the recordings (LEWM_TTS_DATA)'),
              pytest.mark.skipif(not (voices_dir()/'toy-en'/'model.safetensors').exists(), reason='no shipped voice to begin with')]


def run(*argv):
    r = subprocess.run([sys.executable, '-c', 'from lewm_tts.cli import main; raise SystemExit(main())', *map(str, argv)], capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout + r.stderr


def test_three_commands_from_a_folder_to_a_voice(tmp_path):
    "Few steps: the path is tested, not the voice."
    run('prepare', MINI, tmp_path/'corpus')
    assert (tmp_path/'corpus'/'card.html').is_file()
    run('train', tmp_path/'corpus', tmp_path/'me', '--init', 'toy-en', '--set', 'steps=4', '--every', 2)
    card = json.loads((tmp_path/'me'/'card.json').read_text())
    assert (tmp_path/'me'/'vocoder.safetensors').is_file() and card
    run('speak', 'This is me.', '--voice', tmp_path/'me', '-o', tmp_path/'me.wav')
    wav, sr = soundfile.read(tmp_path/'me.wav')
    assert sr == 24000 and .4 < len(wav)/sr < 4 and abs(wav).max() > .02
