# Every target does the set-up that it needs, inside this folder: .venv holds today's releases, .venv-webui the versions
# that A1111 1.10.1 pins. Nothing else on the machine is touched.
#
#   make demo              train on the embedded checkpoint, test the result, write the report
#   make test              all tests on today's releases
#   make test-portable     the quick tests of all that computes, with torch's plainest kernels and one thread: no bit may
#                          depend on the processor
#   make faults            100 kills, 10,000 steps, and a fault at every place of a run; half an hour
#   make pictures          the pictures of docs/images, taken anew in Chromium
#   make mutants           a random sample of small faults in the code, each of which the quick tests should find
#   make test-webui-pins   the same tests on the versions that A1111 1.10.1 pins, and the page in Chromium (if there is one)
#   make test-gradio4      the page in Chromium on Forge's gradio 4.40
#   make ui                the Train LoRA page without a WebUI, on the embedded checkpoint
#   make fuzz              20,000 hostile files, settings and requests (FUZZ_CASES=... for another number)
#   make calibrate         how right the verdict is on a LoRA: 20 trainings, a judge that knows the truth; hours, resumes
#   make overfitting       what helps against overfitting: the same trainings with each method, read by that judge; hours, resumes
#   make cases             how right the check of a dataset is, on labelled cases; writes the tables of docs/checks.md
#   make gpu               memory and time at the true sizes of SD 1.5, 2.1 and SDXL; without a GPU, memory only, counted
#   make lint              ruff and mypy
#   make options           write the tables of docs/options.md and docs/kohya.md anew, after a change of the options
#
# PyPI's torch for Linux brings several GB of CUDA. To do without, on a machine that has no GPU:
#   make demo TORCH="torch==2.13.0 --index-url ..."    (the address of the CPU builds is on pytorch.org)

TORCH ?= torch==2.13.0
RUN_PACKAGES ?= diffusers transformers accelerate safetensors pillow numpy psutil
TEST_PACKAGES ?= $(RUN_PACKAGES) peft bitsandbytes==0.50.2 prodigyopt pytest pytest-timeout hypothesis einops omegaconf fastapi httpx \
	scikit-image scikit-learn pillow-heif tensorboard onnx onnxruntime
# LyCORIS, to compare the network types with; its own list of dependencies would bring another torch.
LYCORIS_PACKAGE ?= --no-deps lycoris-lora==4.1.3 toml
# The real ldm classes; its own list of dependencies pins old releases that nothing here needs.
LDM_PACKAGE ?= --no-deps stable-diffusion-sdkit==2.1.5
LINT_PACKAGES ?= ruff mypy
WEBUI_PACKAGES ?= transformers==4.30.2 accelerate==0.21.0 safetensors==0.4.2 pillow==9.5.0 numpy==1.26.2 psutil==5.9.5 \
	diffusers==0.31.0 'huggingface-hub<0.26' einops==0.4.1 omegaconf==2.2.3 fastapi==0.94.0 httpx==0.24.1 \
	gradio==3.41.2 playwright axe-playwright-python==0.1.8 \
	pytest pytest-timeout hypothesis scikit-image==0.24.0 scikit-learn==1.5.2 pillow-heif==0.13.1 tensorboard \
	onnx==1.17.0 onnxruntime==1.19.2
# Forge's page, laid over the same environment. With later releases of its parts gradio 4.40 doesn't start.
GRADIO4_PACKAGES ?= gradio==4.40.0 fastapi==0.104.1 pydantic==2.8.2 'huggingface-hub<0.26' numpy==1.26.2 pillow==9.5.0
PYTEST_ARGS ?=
FUZZ_CASES ?= 20000
# mutmut's settings are in pyproject.toml.
MUTATION_PACKAGES ?= mutmut==3.8.1
MUTANTS ?= 200
SEED ?= 1

# The first that runs: a name on the PATH may be a shim without a Python behind it.
works = $(firstword $(foreach p,$(1),$(shell $(p) -c 'import sys, venv, ensurepip; print("$(p)") if $(2) else 0' 2>/dev/null)))
PYTHON ?= $(call works,python3.11 python3.12 python3.10 python3.13 python3,sys.version_info >= (3 , 10))
WEBUI_PYTHON ?= $(call works,python3.11 python3.10 python3,(3 , 10) <= sys.version_info < (3 , 12))

VENV := .venv
WEBUI_VENV := .venv-webui
GRADIO4 := $(WEBUI_VENV)/gradio4
COMPUTING_TESTS := $(addprefix tests/,demo evaluation frozen_weights hosts lora_tools network training)
FAULT_TESTS := tests/training/test_kills.py tests/training/test_long_runs.py tests/training/test_faults.py \
	tests/training/test_faults_outside.py tests/training/test_shortage.py tests/training/test_resuming.py
PAGE_TESTS := tests/ui/test_tab_browser.py tests/ui/test_captions_browser.py tests/ui/test_describe_browser.py \
	tests/ui/test_walk_browser.py tests/ui/test_page_accessibility.py
MUTMUT := $(VENV)/bin/mutmut
FIRST_MUTANT := lora_trainer.dataset.batches.x_count_batches__mutmut_1
PIP := -m pip install --disable-pip-version-check --quiet

export HF_HUB_OFFLINE := 1
export GRADIO_ANALYTICS_ENABLED := False

.PHONY: demo gpu test test-portable test-webui-pins test-gradio4 faults pictures fuzz mutants calibrate overfitting cases ui lint format options clean

demo: $(VENV)/.run
	$(VENV)/bin/python -m lora_trainer demo

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest --slow $(PYTEST_ARGS)

# ATen, oneDNN and MKL each choose their kernels by the processor.
test-portable: export ATEN_CPU_CAPABILITY = default
test-portable: export ONEDNN_MAX_CPU_ISA = SSE41
test-portable: export MKL_ENABLE_INSTRUCTIONS = SSE4_2
test-portable: export OMP_NUM_THREADS = 1
test-portable: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS) $(COMPUTING_TESTS)

faults: export OMP_NUM_THREADS = 1
faults: $(VENV)/.test
	KILLS=100 STEPS=10000 $(VENV)/bin/python -m pytest --slow -s --timeout=3600 $(PYTEST_ARGS) $(FAULT_TESTS)

pictures: $(WEBUI_VENV)/.test
	$(WEBUI_VENV)/bin/python -m tests.support.pictures docs/images

# The first run makes all mutants and finds out which tests reach which function; the second tries the sample.
mutants: export OMP_NUM_THREADS = 1
mutants: export CUDA_VISIBLE_DEVICES =
mutants: $(VENV)/.mutants
	$(MUTMUT) run --max-children 1 $(FIRST_MUTANT)
	$(MUTMUT) results --all true | $(VENV)/bin/python -c 'import random, sys; \
		names = sorted(line.split(":")[0].strip() for line in sys.stdin if "__mutmut_" in line); \
		print(*random.Random($(SEED)).sample(names, $(MUTANTS)), sep="\n")' > mutants/sample.txt
	xargs --arg-file mutants/sample.txt $(MUTMUT) run --max-children 1

gpu: $(VENV)/.test
	$(VENV)/bin/python -m lora_trainer bench --suite

calibrate: export OMP_NUM_THREADS = 1
calibrate: $(VENV)/.run
	$(VENV)/bin/python -m tests.calibration calibration

overfitting: export OMP_NUM_THREADS = 1
overfitting: $(VENV)/.run
	$(VENV)/bin/python -m tests.overfitting calibration/overfitting

# Pillow's own photographs are in its source archive only.
cases: export OMP_NUM_THREADS = 1
cases: $(VENV)/.test
	$(VENV)/bin/python -m pip download --quiet --no-deps --no-binary :all: --dest build pillow==9.5.0
	$(VENV)/bin/python -m tests.labelled --pillow build/Pillow-9.5.0.tar.gz --docs docs/checks.md

test-webui-pins: $(WEBUI_VENV)/.test
	$(WEBUI_VENV)/bin/python -m pytest $(PYTEST_ARGS)
	$(WEBUI_VENV)/bin/python -m pytest --slow $(PYTEST_ARGS) $(PAGE_TESTS)

test-gradio4: $(GRADIO4)/.installed
	PYTHONPATH=$(GRADIO4) $(WEBUI_VENV)/bin/python -m pytest --slow $(PYTEST_ARGS) $(PAGE_TESTS)

ui: $(WEBUI_VENV)/.test
	$(WEBUI_VENV)/bin/python -m lora_trainer ui

fuzz: $(VENV)/.test
	FUZZ_CASES=$(FUZZ_CASES) $(VENV)/bin/python -m pytest $(PYTEST_ARGS) tests/hostile

lint: $(VENV)/.test $(VENV)/.lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.lint
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

options: $(VENV)/.test
	$(VENV)/bin/python -m lora_trainer.config.documentation docs/options.md
	$(VENV)/bin/python -m tests.support.kohya_page docs/kohya.md

clean:
	rm -rf $(VENV) $(WEBUI_VENV) demo-output mutants calibration

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later with venv was found; install one or give make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.torch: | $(VENV)/.created
	$(VENV)/bin/python -c 'import torch' 2>/dev/null || $(VENV)/bin/python $(PIP) $(TORCH)
	touch $@

$(VENV)/.run: Makefile | $(VENV)/.torch
	$(VENV)/bin/python $(PIP) $(RUN_PACKAGES)
	touch $@

$(VENV)/.test: Makefile | $(VENV)/.torch
	$(VENV)/bin/python $(PIP) $(TEST_PACKAGES)
	$(VENV)/bin/python $(PIP) $(LDM_PACKAGE)
	$(VENV)/bin/python $(PIP) $(LYCORIS_PACKAGE)
	touch $@ $(VENV)/.run

$(VENV)/.mutants: Makefile $(VENV)/.test
	$(VENV)/bin/python $(PIP) $(MUTATION_PACKAGES)
	touch $@

$(VENV)/.lint: Makefile | $(VENV)/.created
	$(VENV)/bin/python $(PIP) $(LINT_PACKAGES)
	touch $@

$(WEBUI_VENV)/.created:
	@test -n "$(WEBUI_PYTHON)" || { echo "No Python 3.10 or 3.11 with venv was found, and A1111's pins need one; give make WEBUI_PYTHON=..." >&2; exit 1; }
	$(WEBUI_PYTHON) -m venv $(WEBUI_VENV)
	touch $@

$(WEBUI_VENV)/.torch: | $(WEBUI_VENV)/.created
	$(WEBUI_VENV)/bin/python -c 'import torch' 2>/dev/null || $(WEBUI_VENV)/bin/python $(PIP) $(TORCH)
	touch $@

$(WEBUI_VENV)/.test: Makefile | $(WEBUI_VENV)/.torch
	$(WEBUI_VENV)/bin/python $(PIP) $(WEBUI_PACKAGES)
	$(WEBUI_VENV)/bin/python $(PIP) $(LDM_PACKAGE)
	$(WEBUI_VENV)/bin/python $(PIP) $(LYCORIS_PACKAGE)
	touch $@

$(GRADIO4)/.installed: Makefile $(WEBUI_VENV)/.test
	rm -rf $(GRADIO4)
	$(WEBUI_VENV)/bin/python $(PIP) --target $(GRADIO4) $(GRADIO4_PACKAGES)
	touch $@
