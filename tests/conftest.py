"What several test files drive: a browser."
import shutil, subprocess

import pytest


def runs(program):
    "Is it there, and more than a stub that asks for a snap?"
    try: return bool(program) and subprocess.run([program, '--version'], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired): return False


CHROMIUM = next(filter(runs, map(shutil.which, ('/usr/bin/chromium', 'chromium', 'chromium-browser', 'google-chrome'))), None)


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as pw:
        b = pw.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--autoplay-policy=no-user-gesture-required'])
        yield b
        b.close()
