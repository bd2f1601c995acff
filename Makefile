# Each target makes .venv by itself the first time (Python 3.11-3.13; PYTHON=... chooses one), and again when what it depends on changes.
PYTHON ?=
READY  := .venv/.ready
BIN    := .venv/bin

.PHONY: help demo lab test check train-voice docs readme clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo TEXT="..."   speak TEXT with the voice that ships: out/demo.wav and out/demo.png'
	@echo 'make lab               open the lessons in JupyterLab; LAB_ARGS="--no-browser --port=9999" for more'
	@echo 'make test              every notebook and tests/; NB_FLAGS="slow data" runs flagged cells too'
	@echo 'make check             clean, export, nothing changed, ruff, import order, then the tests'
	@echo 'make train-voice       train the voice that ships from scratch; run it again to resume'
	@echo 'make docs              the notebooks, executed, as web pages in _docs/'
	@echo 'make readme            README.md from nbs/index.ipynb'
	@echo 'make clean             remove what the commands above wrote (not .venv)'

$(READY): setup.py settings.ini constraints.txt tools/setup.sh
	@PYTHON='$(PYTHON)' bash tools/setup.sh

# TEXT reaches the command through the environment and unexpanded, so that apostrophes, quotes and $ arrive as typed
demo: export DEMO_TEXT = $(value TEXT)
demo: $(READY)
	@if [ -n "$$DEMO_TEXT" ]; then exec $(BIN)/lewm-tts demo -- "$$DEMO_TEXT"; else exec $(BIN)/lewm-tts demo; fi

lab: $(READY)
	@exec $(BIN)/jupyter lab $(LAB_ARGS) nbs/index.ipynb

test: $(READY)
	@exec $(BIN)/python tests/run.py </dev/null

check: $(READY)
	@exec $(BIN)/python tools/check.py </dev/null

train-voice: $(READY)
	@exec $(BIN)/lewm-tts train-voice

docs: $(READY)
	@exec $(BIN)/python tools/mkdocs.py </dev/null

readme: $(READY)
	@exec $(BIN)/python tools/mkreadme.py </dev/null

clean:
	rm -rf out _docs _proc build dist .cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find lewm_tts nbs tests tools bench \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
