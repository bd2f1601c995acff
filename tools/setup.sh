#!/usr/bin/env bash
# Make .venv with everything that the Makefile's targets need. Called by make; PYTHON=... chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv

fits() { "$1" -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' >/dev/null 2>&1; }

if [ ! -x "$venv/bin/python" ]; then
  py=${PYTHON:-}
  if [ -z "$py" ]; then
    for p in python3.11 python3.12 python3.13 python3 python; do
      if command -v "$p" >/dev/null && fits "$p"; then py=$p; break; fi
    done
    [ -n "$py" ] || { echo "setup: no Python 3.11, 3.12 or 3.13 found. Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
  fi
  "$py" -c '' 2>/dev/null || { echo "setup: PYTHON=$py does not run. Name a Python 3.11 to 3.13." >&2; exit 2; }
  fits "$py" || { echo "setup: $py is $("$py" -V 2>&1); this project needs Python 3.11 to 3.13: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
  "$py" -m venv "$venv" || { echo "setup: '$py -m venv' failed (on Debian and Ubuntu: apt install python3-venv). Then run make again." >&2; rm -rf "$venv"; exit 2; }
fi
echo "setup: installing into $venv. The first time is about 5 GB with the CUDA parts of torch, and takes some minutes."
quiet=-qq; [ -t 1 ] && quiet=   # a person sees the progress, a log does not
"$venv/bin/python" -m pip install $quiet --disable-pip-version-check --use-pep517 -c constraints.txt -e '.[dev]' </dev/null || {
  echo "setup: the installation failed (see above). Check network and disk space, then run make again; it goes on where it stopped." >&2; exit 2; }
touch "$venv/.ready"
