"""Is reading order still import order? Exit code 1 names each place where it is not.

    python tools/check_imports.py [ROOT]

No star import of a sibling; no module imports one made by an equal or later notebook (imports inside functions count);
no notebook cell imports a module of a later notebook; every cell has an id of its own. Long exported cells are reported, not failed.
"""
import ast, json, re, sys
from collections import Counter
from pathlib import Path

LONG = 40  # lines of an exported cell above which it is reported
MADE_BY = re.compile(r'File to edit: \S*?([^/\s]+)\.ipynb')


def number(stem):
    "The place of a notebook in the reading order, from the number in front of its name (10, 10b, 10c, 11), or None (index)."
    m = re.match(r'(\d+)([a-z]?)_', stem)
    return int(m[1]) + ((ord(m[2]) - 96) / 100 if m[2] else 0) if m else None


def label(n):
    "The number as it stands in the name: 10.02 is 10b."
    return f'{int(n):02}' + (chr(96 + round(n % 1 * 100)) if n % 1 else '')


def sibling_imports(tree, lib):
    "Yield (line, module, star) for each import of a module of `lib` anywhere in `tree`."
    for n in ast.walk(tree):
        if isinstance(n, ast.Import):
            for a in n.names:
                if a.name.startswith(lib + '.'): yield n.lineno, a.name.split('.')[1], False
        elif isinstance(n, ast.ImportFrom):
            mod = n.module or ''
            if n.level: mod = f'{lib}.{mod}'.rstrip('.')
            if mod.split('.')[0] != lib: continue
            names = [mod.split('.')[1]] if '.' in mod else [a.name for a in n.names]
            for name in names: yield n.lineno, name, n.names[0].name == '*'
        elif isinstance(n, ast.Call) and n.args and isinstance(n.args[0], ast.Constant) and isinstance(n.args[0].value, str):
            called = getattr(n.func, 'attr', getattr(n.func, 'id', ''))
            name = n.args[0].value
            if name.startswith('.'): name = lib + name
            if called in ('import_module', '__import__') and name.startswith(lib + '.'): yield n.lineno, name.split('.')[1], False


def check_modules(lib):
    "(problems, number of each module) of the exported library."
    bad, num, trees = [], {}, {}
    for p in sorted(lib.glob('*.py')):
        if p.stem.startswith('_'): continue
        text = p.read_text(encoding='utf-8')
        made = MADE_BY.search(text[:1000])
        if not made: bad.append(f'{p.name}: not exported from a notebook (no "File to edit" line); make it from one or move it to tools/')
        elif number(made[1]) is None: bad.append(f'{p.name}: its notebook {made[1]}.ipynb has no number')
        else: num[p.stem] = number(made[1])
        trees[p.stem] = ast.parse(text)
    for name, tree in trees.items():
        for line, mod, star in sibling_imports(tree, lib.name):
            if star: bad.append(f'{name}.py:{line}: star import of {mod}; name what you need')
            if mod in num and name in num and num[mod] >= num[name]:
                bad.append(f'{name}.py:{line}: {name} ({label(num[name])}) imports {mod} ({label(num[mod])}); only lower numbers may be imported')
    return bad, num


def cell_tree(src):
    "The syntax tree of a cell without its magics, or None."
    try: return ast.parse(re.sub(r'^(\s*)[%!].*$', r'\1pass', src, flags=re.M))
    except SyntaxError: return None


def check_notebook(path, lib, num):
    "(problems, reports) of one notebook."
    bad, told = [], []
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    for cid, k in Counter(c.get('id') for c in cells).items():
        if not cid: bad.append(f'{path.name}: {k} cell(s) without an id; nbdev_clean writes them')
        elif k > 1: bad.append(f'{path.name}: cell id {cid} stands {k} times; rename {k-1} of them')
    for c in cells:
        src = ''.join(c['source'])
        if c['cell_type'] != 'code': continue
        body = [line for line in src.splitlines() if not line.startswith('#|')]
        if re.search(r'^#\|\s*export', src, re.M) and len(body) > LONG: told.append(f"{path.name} #{c.get('id')}: exported cell of {len(body)} lines, over {LONG}")
        tree, mine = cell_tree(src), number(path.stem)
        if tree is None: continue
        for _, mod, star in sibling_imports(tree, lib):
            if star: bad.append(f"{path.name} #{c.get('id')}: star import of {mod}; name what you need")
            if mine is not None and num.get(mod, -1) > mine: bad.append(f"{path.name} #{c.get('id')}: uses {mod}, which a later notebook ({label(num[mod])}) makes")
    return bad, told


def check(root, lib='lewm_tts'):
    "(problems, reports) of the project at `root`."
    bad, num = check_modules(Path(root)/lib)
    told = []
    for p in sorted((Path(root)/'nbs').glob('*.ipynb')):
        b, t = check_notebook(p, lib, num)
        bad += b; told += t
    for n, k in Counter(number(p.stem) for p in (Path(root)/'nbs').glob('*.ipynb')).items():
        if n is not None and k > 1: bad.append(f'nbs: {k} notebooks have the number {label(n)}')
    return bad, told


def main(argv):
    bad, told = check(argv[0] if argv else Path(__file__).resolve().parent.parent)
    for t in told: print('note:', t)
    for b in bad: print(b)
    print(f'import order: {len(bad)} problem(s), {len(told)} note(s)')
    return int(bool(bad))


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
