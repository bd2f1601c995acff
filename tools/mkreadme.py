"""README.md from nbs/index.ipynb, executed. No quarto: nbdev's own filters and nbconvert.

    python tools/mkreadme.py

Pictures go to README_files/. The last line of README.md holds a hash of the notebook's cells, by which a test sees that it is stale.
"""
import hashlib, json, os, re, shutil, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDGET = 'application/vnd.jupyter.widget-view+json'


def sources(nb_path):
    "(cell type, source) of each cell."
    cells = json.loads(Path(nb_path).read_text(encoding='utf-8'))['cells']
    return [(c['cell_type'], ''.join(c['source'])) for c in cells]


def digest(nb_path): return hashlib.sha256(json.dumps(sources(nb_path)).encode()).hexdigest()


def relink(text, nbs):
    "Links beside the notebook, seen from the project's root: `](00_core.ipynb)` becomes `](nbs/00_core.ipynb)`, `](../LICENSE)` becomes `](LICENSE)`."
    def new(m):
        target = m[1].split('#')[0]
        if re.match(r'\w+:|/|#', m[1]) or not (nbs/target).exists(): return m[0]
        return '](' + os.path.relpath(os.path.join(nbs.name, m[1])) + ')'
    return re.sub(r'\]\(([^)\s]+)\)', new, text)


def expected(nb_path):
    "What a README made from this notebook must contain: (hash line, markdown cells)."
    nb_path = Path(nb_path)
    md = [relink(s, nb_path.parent).strip() for kind, s in sources(nb_path) if kind == 'markdown' and s.strip()]
    return f'<!-- made from nbs/{nb_path.name}, sha256 of its cells {digest(nb_path)} -->', md


def execute(path, skip_flags=(), timeout=600):
    "The notebook at `path` with fresh outputs; cells that the tests skip are left alone here too."
    import nbformat
    from nbconvert.preprocessors import ExecutePreprocessor
    nb = nbformat.read(path, as_version=4)
    for c in nb.cells:
        words = re.findall(r'^#\|\s*([\w-]+)', c.source, re.M)
        skip = set(words) & set(skip_flags) or re.search(r'^#\|\s*eval:\s*false', c.source, re.M) or 'nbdev_export(' in c.source
        if c.cell_type == 'code' and skip: c.metadata['tags'] = [*c.metadata.get('tags', []), 'skip-execution']
    paths = [str(path.parent.parent), os.environ.get('PYTHONPATH', '')]
    os.environ['PYTHONPATH'] = os.pathsep.join(p for p in paths if p)
    ep = ExecutePreprocessor(timeout=timeout, kernel_name='python3', skip_cells_with_tag='skip-execution')
    ep.preprocess(nb, {'metadata': {'path': str(path.parent)}})
    return nb


def strip_outputs(nb, keep=()):
    "Drop what a plain page cannot show: widgets, players, progress bars, warnings. `keep` names mime types to leave in."
    for c in nb.cells:
        if c.cell_type != 'code': continue
        outs = []
        for o in c.outputs:
            data = o.get('data', {})
            if o.output_type == 'stream' and o.name == 'stderr' or WIDGET in data: continue
            if '<audio' in ''.join(data.get('text/html', '')) and 'text/html' not in keep: continue
            # `[<matplotlib.lines.Line2D at 0x7f..>]` says nothing and differs in each run
            plain = ''.join(data.get('text/plain', ''))
            if set(data) == {'text/plain'} and re.fullmatch(r'\[?(<[^<>]* at 0x\w+>,?\s*)+\]?', plain): continue
            if plain: data['text/plain'] = re.sub(r' at 0x[0-9a-f]+', '', plain)
            outs.append(o)
        c.outputs = outs
    nb.metadata.pop('widgets', None)
    return nb


def filtered(nb):
    "Without hidden cells and directives. nbdev's filters, less those that make quarto headers and links to a documentation host."
    from execnb.nbio import dict2nb
    from nbdev.processors import FilterDefaults
    import nbformat

    class Filter(FilterDefaults):
        leave = {'FrontmatterProc', 'add_show_docs', 'insert_warning', 'rm_header_dash', 'clean_show_doc', 'exec_show_docs', 'ai_magics', 'add_links', 'add_fold', 'mv_exports'}
        def base_procs(self): return [p for p in super().base_procs() if p.__name__ not in self.leave]

    proc = Filter().nb_proc(dict2nb(json.loads(nbformat.writes(nb))))
    proc.process()
    res = nbformat.reads(json.dumps(proc.nb), as_version=4)
    for c in res.cells:
        if c.cell_type != 'code': continue
        if re.search(r'^#\|\s*echo:\s*false', c.source, re.M): c.source = ''
        c.source = re.sub(r'^#\|.*\n?', '', c.source, flags=re.M).strip('\n')
    res.cells = [c for c in res.cells if c.source.strip() or c.get('outputs')]
    return res


def write(path, data):
    "Write by temporary file and rename."
    tmp = path.with_name(path.name + '.tmp')
    tmp.write_bytes(data)
    os.replace(tmp, path)


def make_readme(root=ROOT):
    "Execute nbs/index.ipynb under `root` and write README.md and README_files/."
    from nbconvert import MarkdownExporter
    from nbdev.config import get_config
    os.chdir(root)
    cfg = get_config()
    src = root/'nbs'/cfg.readme_nb
    if not src.exists(): raise SystemExit(f'{src} is missing: README.md is made from it')
    nb = filtered(strip_outputs(execute(src, cfg.tst_flags.split())))
    text, res = MarkdownExporter().from_notebook_node(nb, resources={'output_files_dir': 'README_files', 'unique_key': 'README'})
    text = relink(text, src.parent)  # in cells and in the tables that cells made
    text = re.sub(r'^```python\n\n?```\n', '', text, flags=re.M)
    text = re.sub(r'[ \t]+$', '', text, flags=re.M)
    text = re.sub(r'\n{3,}', '\n\n', text).strip() + '\n\n' + expected(src)[0] + '\n'
    pics = root/'README_files'
    if pics.exists(): shutil.rmtree(pics)
    for name, data in res.get('outputs', {}).items():
        (root/name).parent.mkdir(exist_ok=True)
        write(root/name, data)
    write(root/'README.md', text.encode())
    return text


if __name__ == '__main__':
    text = make_readme(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    print(f'README.md: {len(text.splitlines())} lines')
