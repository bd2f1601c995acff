"""The notebooks, executed, as web pages in _docs/. No quarto: nbconvert. A page newer than its notebook and the library is left alone.

    python tools/mkdocs.py
"""
import concurrent.futures, os, re, subprocess, sys
from pathlib import Path

from mkreadme import ROOT, execute, filtered, strip_outputs, write

OUT = ROOT/'_docs'


def make_page(src):
    "Execute one notebook and write its page; players stay, widgets go."
    from nbconvert import HTMLExporter
    from nbdev.config import get_config
    os.chdir(ROOT)
    nb = filtered(strip_outputs(execute(src, get_config().tst_flags.split()), keep=('text/html',)))
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = re.sub(r'\]\(([\w.-]+)\.ipynb(#[^)]*)?\)', r'](\1.html\2)', c.source)
    nb.metadata['title'] = src.stem
    html, _ = HTMLExporter().from_notebook_node(nb, resources={'metadata': {'name': src.stem}})
    write(OUT/f'{src.stem}.html', html.encode())


def contents(nbs):
    "A plain list of the pages, used as the front page while there is no index notebook."
    items = ''.join(f'<li><a href="{p.stem}.html">{p.stem}</a></li>' for p in nbs)
    return f'<!doctype html><meta charset="utf-8"><title>lewm_tts</title><h1>lewm_tts</h1><ul>{items}</ul>'


def main():
    OUT.mkdir(exist_ok=True)
    (OUT/'images').mkdir(exist_ok=True)
    for f in sorted((ROOT/'nbs'/'images').glob('*')): write(OUT/'images'/f.name, f.read_bytes())
    nbs = sorted(p for p in (ROOT/'nbs').glob('*.ipynb') if p.name[0] not in '._')
    lib = max((p.stat().st_mtime for p in (ROOT/'lewm_tts').glob('*.py')), default=0)

    def fresh(p):
        page = OUT/f'{p.stem}.html'
        return page.exists() and page.stat().st_mtime >= max(lib, p.stat().st_mtime)

    def one(p):
        if fresh(p): return p, 0, 'up to date'
        r = subprocess.run([sys.executable, __file__, str(p)], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        return p, r.returncode, 'written' if r.returncode == 0 else r.stderr.strip()

    bad = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for p, rc, word in pool.map(one, nbs):
            bad += rc != 0
            print(f'{p.name}: {word}', flush=True)
    if not (ROOT/'nbs'/'index.ipynb').exists(): write(OUT/'index.html', contents(nbs).encode())
    print(f'{len(nbs) - bad} of {len(nbs)} pages in {OUT.name}/; open {OUT.name}/index.html')
    return int(bool(bad))


if __name__ == '__main__':
    if len(sys.argv) > 1: make_page(Path(sys.argv[1]).resolve())
    else: sys.exit(main())
