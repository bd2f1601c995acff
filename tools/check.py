"""The gate, step by step; each step that fails says what to do. The same command for people and machines: make check."""
import hashlib, os, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def run(*cmd):
    "Exit code of `cmd` in the project's root."
    return subprocess.run([str(c) for c in cmd], cwd=ROOT, stdin=subprocess.DEVNULL, env={**os.environ, 'PYTHONWARNINGS': 'ignore::SyntaxWarning'}).returncode


def snapshot():
    "Content of everything that cleaning and exporting may write, as path -> hash. Unlike `git status` it works on a tree with changes."
    fs = [*(ROOT/'nbs').glob('*.ipynb'), *(ROOT/'lewm_tts').glob('*.py'), ROOT/'README.md']
    return {str(f.relative_to(ROOT)): hashlib.sha256(f.read_bytes()).hexdigest() for f in fs if f.exists()}


def main():
    before, bad = snapshot(), []

    def step(name, rc, todo):
        print(f"{'ok    ' if rc == 0 else 'FAILED'} {name}" + (f'\n       -> {todo}' if rc else ''), flush=True)
        if rc: bad.append(name)

    step('clean', run(BIN/'nbdev_clean'), 'a notebook is not readable (see above): repair its JSON, or take the last good version from git')
    step('export', run(BIN/'nbdev_export'), 'nbdev could not read a notebook (see above): mend the cell that it names')
    after = snapshot()
    moved = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    step('nothing changed by clean and export', int(bool(moved)),
         f"these were out of step and are now written anew: {', '.join(moved)}. Look at `git diff`, then commit them. "
         'If lewm_tts/*.py lost an edit: edit the notebook instead, never the module.')
    step('ruff', run(BIN/'ruff', 'check', '--no-cache', '--quiet', '--output-format', 'concise', 'lewm_tts', 'tools', 'tests'),
         'mend the line in the notebook that made the module (its name is in the first lines of the file), then run `make check` again')
    step('import order', run(sys.executable, 'tools/check_imports.py'), 'see each line above: reading order is import order')
    step('tests', run(sys.executable, 'tests/run.py'), 'the failing cell stands above; one file alone: .venv/bin/python tests/run.py NAME')
    print('check: ' + ('all steps passed' if not bad else 'failed: ' + ', '.join(bad)))
    return int(bool(bad))


if __name__ == '__main__': sys.exit(main())
