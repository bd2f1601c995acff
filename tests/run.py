"""Run every notebook and every tests/test_*.py, each in a fresh process; the last line is `N passed, N failed`.

    python tests/run.py                    everything
    python tests/run.py 04 test_house      only files whose name holds one of these words
    NB_FLAGS="slow data" python tests/run.py    cells flagged `#| slow` and `#| data` too
    NB_TIMEOUT=900, JOBS=4                 seconds a file may take (600), files at a time (2)
"""
import argparse, concurrent.futures, faulthandler, json, os, re, signal, subprocess, sys, tempfile, threading, time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {k: '1' for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NUMBA_NUM_THREADS')}
TIMES = '.cache/test_times.json'  # seconds of the last run, to start the longest first


@dataclass
class Result:
    path: Path
    passed: int = 0
    failed: int = 0
    skipped: list = field(default_factory=list)
    secs: float = 0.
    log: str = ''


def find(root, words=()):
    "Notebooks and test files under `root`, those whose name holds one of `words` if there are any."
    fs = [*(root/'nbs').glob('*.ipynb'), *(root/'tests').glob('test_*.py')]
    return sorted(f for f in fs if f.name[0] not in '._' and (not words or any(w in f.name for w in words)))


def guess(path, times):
    "Seconds `path` will take: those of the last run, else a rough guess from its size."
    if path.name in times: return times[path.name]
    return 60. if path.suffix == '.py' else path.read_text(encoding='utf-8').count('"cell_type": "code"') / 2


def one_notebook(path, until):
    "In a fresh process: run one notebook through nbdev's own runner."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    cfg = get_config()
    faulthandler.dump_traceback_later(max(until - time.time(), .1), exit=True)  # ends a hanging notebook and says where it hangs
    ok, _ = test_nb(path, skip_flags=cfg.tst_flags.split(), force_flags=os.environ.get('NB_FLAGS', '').split(), basepath=cfg.config_path)
    faulthandler.cancel_dump_traceback_later()
    return 0 if ok else 1


def read_junit(xml, res):
    "Counts of a pytest run; False when it left no usable report."
    try: cases = list(ET.parse(xml).iter('testcase'))
    except (OSError, ET.ParseError): return False
    for c in cases:
        skip = c.find('skipped')
        if c.find('failure') is not None or c.find('error') is not None: res.failed += 1
        elif skip is not None: res.skipped.append(f"{c.get('name') or c.get('classname')}: {skip.get('message', '')}")
        else: res.passed += 1
    return bool(cases)


class Runner:
    "Runs files in fresh processes, kills those that take too long, and everything on Ctrl-C."
    def __init__(self, root, limit):
        self.root, self.limit, self.live, self.lock, self.stopped = root, limit, set(), threading.Lock(), False

    def kill(self, p):
        try: os.killpg(p.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError): pass

    def stop(self):
        with self.lock:
            self.stopped = True
            for p in self.live: self.kill(p)

    def __call__(self, path):
        res = Result(path)
        with tempfile.TemporaryDirectory() as tmp:
            log, xml = Path(tmp)/'log', Path(tmp)/'junit.xml'
            nb = path.suffix == '.ipynb'
            cmd = [sys.executable, '-W', 'ignore::SyntaxWarning', str(Path(__file__).resolve()), '--one', str(path), '--until', str(time.time() + self.limit)] if nb else \
                [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--color=no', f'--junitxml={xml}', str(path)]
            env = {**os.environ, **ONE_THREAD, 'MPLBACKEND': 'Agg', 'PYTHONUNBUFFERED': '1'}
            env.setdefault('LEWM_TTS_CACHE', str(self.root/'.cache'/'lewm_tts'))  # what a person cached elsewhere decides no test
            start = time.time()
            with open(log, 'wb') as out:
                with self.lock:
                    if self.stopped: return res
                    p = subprocess.Popen(cmd, cwd=self.root, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
                    self.live.add(p)
                try: p.wait(self.limit + 5*nb)  # a notebook ends by itself at the limit
                except subprocess.TimeoutExpired: self.kill(p); p.wait()
                finally:
                    with self.lock: self.live.discard(p)
            res.secs, text = time.time() - start, log.read_text(encoding='utf-8', errors='replace')
            if nb: res.passed, res.failed = int(p.returncode == 0), int(p.returncode != 0)
            else:
                got = read_junit(xml, res)
                if not res.failed and (not got or p.returncode not in (0, 5)): res.failed = 1  # it broke off, or found no test
            if p.returncode and res.secs >= self.limit: self.kill(p); text += f'\nkilled after {self.limit:.0f} s, the limit for one file (NB_TIMEOUT=... raises it)\n'
            elif p.returncode < 0: text += f'\ndied of signal {-p.returncode}\n'
            if res.failed: res.log = text
        return res


def say(res):
    "One line for a file that ended, with its output if it failed."
    word = 'FAILED' if res.failed else 'passed' if res.passed else 'skipped'
    more = f'  ({res.passed} passed, {res.failed} failed)' if res.path.suffix == '.py' else ''
    print(f'{word:8}{res.path.name:32}{res.secs:6.1f} s{more}', flush=True)
    for s in res.skipped: print(f'        skipped {s}')
    if res.failed: print(re.sub(r'^', '    | ', res.log.strip(), flags=re.M), flush=True)


def main(argv=None):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('words', nargs='*', help='run only files whose name holds one of these words')
    ap.add_argument('--root', type=Path, default=ROOT, help='the project to test')
    ap.add_argument('--jobs', type=int, default=int(os.environ.get('JOBS') or 2), help='files at a time')
    ap.add_argument('--limit', type=float, default=float(os.environ.get('NB_TIMEOUT') or 600), help='seconds a file may take')
    ap.add_argument('--one', type=Path, help=argparse.SUPPRESS)
    ap.add_argument('--until', type=float, default=0., help=argparse.SUPPRESS)
    a = ap.parse_args(argv)
    if a.one: return one_notebook(a.one, a.until)
    root, start = a.root.resolve(), time.time()
    files = find(root, a.words)
    if not files: print(f'nothing to run in {root} for {a.words or "nbs/*.ipynb and tests/test_*.py"}')
    memo = root/TIMES
    try: times = json.loads(memo.read_text())
    except (OSError, ValueError): times = {}
    files.sort(key=lambda f: -guess(f, times))
    run, done = Runner(root, a.limit), []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: with everything it started
    with concurrent.futures.ThreadPoolExecutor(max(1, a.jobs)) as pool:
        try:
            for fut in concurrent.futures.as_completed([pool.submit(run, f) for f in files]):
                done.append(fut.result()); say(done[-1])
        except KeyboardInterrupt:
            run.stop(); pool.shutdown(wait=True, cancel_futures=True)
            print('interrupted', file=sys.stderr)
            return 130
    try:
        memo.parent.mkdir(exist_ok=True)
        memo.write_text(json.dumps({**times, **{r.path.name: round(r.secs, 1) for r in done}}, indent=1, sort_keys=True))
    except OSError: pass  # a read-only checkout: only the order of the next run is lost
    nbs = sorted((r for r in done if r.path.suffix == '.ipynb'), key=lambda r: -r.secs)[:5]
    if nbs: print('\nslowest notebooks: ' + ', '.join(f'{r.path.name} {r.secs:.1f} s' for r in nbs))
    bad = [r.path.name for r in done if r.failed]
    if bad: print('failed: ' + ', '.join(sorted(bad)))
    print(f'{time.time()-start:.0f} s in all')
    passed, failed, skipped = sum(r.passed for r in done), sum(r.failed for r in done), sum(len(r.skipped) for r in done)
    print(f'{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''), flush=True)
    return int(bool(failed) or not files)


if __name__ == '__main__': sys.exit(main())
