"README.md is made from nbs/index.ipynb, and still says what the notebook says."
import importlib.util, json, re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INDEX, README = ROOT/'nbs'/'index.ipynb', ROOT/'README.md'
STALE = 'README.md is stale: run `make readme` and commit README.md and README_files/'

spec = importlib.util.spec_from_file_location('mkreadme', ROOT/'tools'/'mkreadme.py')
mkreadme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mkreadme)
needs_index = pytest.mark.skipif(not INDEX.exists(), reason='nbs/index.ipynb is not there yet')


def missing(readme, index):
    "What a README made from `index` would hold and `readme` does not."
    stamp, cells = mkreadme.expected(index)
    # the exporter trims line ends and squeezes blank lines
    flat = lambda s: re.sub(r'\s+', ' ', s)
    text = flat(readme)
    return [s for s in [stamp, *cells] if flat(s) not in text]


@needs_index
def test_readme_says_what_the_index_says():
    assert README.exists(), STALE
    assert not missing(README.read_text(encoding='utf-8'), INDEX), STALE


@needs_index
def test_readme_pictures_exist():
    pics = re.findall(r'\]\((README_files/[^)]+)\)', README.read_text(encoding='utf-8'))
    gone = [p for p in pics if not (ROOT/p).is_file()]
    extra = {f'README_files/{p.name}' for p in (ROOT/'README_files').glob('*')} - set(pics) if (ROOT/'README_files').exists() else set()
    assert not gone and not extra, STALE


@needs_index
def test_readme_names_both_commands():
    text = README.read_text(encoding='utf-8')
    assert 'make demo' in text and 'make test' in text


def notebook(path, cells):
    cs = [dict(cell_type=k, id=f'c{i}', metadata={}, source=s, **({} if k == 'markdown' else dict(outputs=[], execution_count=None))) for i, (k, s) in enumerate(cells)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=cs, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')), nbformat=4, nbformat_minor=5)))


def test_a_planted_index_becomes_a_readme(tmp_path, monkeypatch):
    "Text and pictures stay; hidden cells, directives, widgets, flagged cells and warnings do not; a change makes it stale."
    monkeypatch.chdir(tmp_path)
    (tmp_path/'settings.ini').write_text((ROOT/'settings.ini').read_text())
    index = tmp_path/'nbs'/'index.ipynb'
    cells = [('markdown', '# planted\n\n> a subtitle with `code`'), ('markdown', 'See [core](00_core.ipynb) and [away](https://example.invalid/00_core.ipynb).'),
             ('code', '#| hide\nprint("hidden words")'), ('code', '#| slow\nprint("never run"); 1/0'), ('code', 'print("plain words")'),
             ('code', 'class Thing: pass\n[Thing(), Thing()]'), ('code', '[1, Thing()]'),
             ('code', 'import sys, ipywidgets\nprint("warned", file=sys.stderr)\nipywidgets.IntSlider()'),
             ('code', '#| echo: false\nimport base64\nfrom IPython.display import Image\nImage(base64.b64decode('
                      '"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="))')]
    notebook(index, cells)
    notebook(tmp_path/'nbs'/'00_core.ipynb', [('markdown', '# core')])
    text = mkreadme.make_readme(tmp_path)
    assert text == (tmp_path/'README.md').read_text()
    assert not missing(text, index)
    assert '](nbs/00_core.ipynb)' in text and '](https://example.invalid/00_core.ipynb)' in text
    assert '\n    plain words' in text and '[1, <__main__.Thing>]' in text
    for word in ('hidden words', '#|', '\n    never run', 'IntSlider(value', '\n    warned', 'b64decode', '```python\n```', ' at 0x', '[<__main__'): assert word not in text, word
    pics = list((tmp_path/'README_files').glob('*.png'))
    assert len(pics) == 1 and f'README_files/{pics[0].name}' in text
    notebook(index, [cells[0], ('markdown', 'Another sentence.'), *cells[2:]])
    assert len(missing(text, index)) == 2  # the hash and the new sentence
