# make run   the notebooks 01 to 03 on the built-in sample, or on transfer/raw-data.zip, and an HTML report
#                make run PARAMETERS='-p defect_share 0.02'  and any other parameter of notebook 02
#                make run REPORT=report/second  keeps the first report, to compare
#                make run PREPARATION='-p group_look_alikes False'  and any other parameter of notebook 01
# make test  every test
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
TORCH_BACKEND ?=
BIN := .venv/bin
READY := .venv/.ready
# It holds the folder for which .venv was made: one that was moved, or whose Python is gone, is made anew.
ifneq "$(shell test -x $(BIN)/python && cat $(READY) 2>/dev/null)" "$(CURDIR)"
.PHONY: $(READY)
endif
EXPORT := PYDEVD_DISABLE_FILE_VALIDATION=1 IPYTHONDIR="$(CURDIR)/.venv/ipython" \
	JUPYTER_DATA_DIR="$(CURDIR)/.venv/share/jupyter" JUPYTER_RUNTIME_DIR="$(CURDIR)/.venv/runtime" \
	JUPYTER_CONFIG_DIR="$(CURDIR)/.venv/etc" MPLCONFIGDIR="$(CURDIR)/.venv/matplotlib" PATH="$(CURDIR)/$(BIN):$$PATH"
REPORT ?= report
# What tells a reader nothing: which cell runs, and that the kernel, which listens to this machine alone, does so by TCP.
QUIETER := 2>&1 | grep --line-buffered -Ev '^(Executing|Ending) Cell|Kernel is running over TCP'
PAPERMILL := set -o pipefail; $(EXPORT) $(BIN)/papermill --log-output --no-progress-bar --cwd .

# Your own photos take the place of the sample, and get networks that start from ImageNet. What starts from nothing
# needs larger steps, and learns from smaller pictures as well.
RAW_DATA ?= $(if $(wildcard transfer/raw-data.zip),transfer/raw-data.zip,sample)
START := $(or $(WEIGHTS),$(if $(filter-out sample,$(RAW_DATA)),imagenet,none))
ifeq ($(START),none)
ARCHITECTURES ?= [small_cnn, mobilenet_v3_small]
TRAINING ?= -y '{image_height: 104, image_width: 160, batch_size: 16, fine_tuning_epochs: 24, fine_tuning_rate: 0.002}'
else
ARCHITECTURES ?= [resnet18, efficientnet_b0, mobilenet_v3_large]
TRAINING ?=
endif

# A first look is short: the sample's boxes are not unrolled. Give PREPARATION= and they are.
PREPARATION ?= $(if $(filter-out sample,$(RAW_DATA)),,-p unroll_boxes False)
STEPS := 01-DataPreparation 02-ModelTraining 03-ModelInterpretability
# What one notebook hands to the next is not to be set for one of them alone.
FIXED := $(firstword $(findstring output_archive,$(PREPARATION) $(PARAMETERS)) $(findstring data_archive,$(PARAMETERS)) \
	$(patsubst %,defect,$(filter defect defect: {defect: '{defect:,$(PARAMETERS))))

export RAW_DATA  # for the shell, which takes it as it stands, quotes and all
ifneq ($(origin DEFECT),undefined)  # it may be empty, which asks for no decision
export DEFECT
DEFECT_SET := -r defect "$$DEFECT"
endif

.PHONY: help run test test-unit test-notebooks test-real test-oldest lint results results-series bench bench-large pictures stamp pins clean

help:
	@grep -E '^# (make|  )' Makefile | sed 's/^# //'

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: install it, or give PYTHON=path"; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version): about 6 GB the first time, a minute on a fast line"
	@test -x $(BIN)/python -a "$$(cat $(READY) 2>/dev/null || echo "$(CURDIR)")" = "$(CURDIR)" || \
		{ rm -rf .venv && $(PYTHON) -m venv .venv; }
	@command -v uv >/dev/null || test -x $(BIN)/uv || { \
		{ $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip; } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check uv; }
	@PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip install --python $(BIN)/python --quiet --constraint constraints.txt \
		$(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) --editable '.[notebooks,dev,onnx]'
	@echo "$(CURDIR)" > $@

run: $(READY)
	@test -z "$(FIXED)" || { echo "Notebook 03 would not know of another $(FIXED): give DEFECT=, or copy the archives in transfer/"; exit 1; }
	@echo "1 of 4  Preparing the data from $$RAW_DATA"
	@! test "$(REPORT)" -ef notebooks || { echo "REPORT=$(REPORT) holds the notebooks themselves: name another folder"; exit 1; }
	@mkdir -p "$(REPORT)" && rm -f $(foreach name,$(STEPS),"$(REPORT)/$(name).ipynb" "$(REPORT)/$(name).html") "$(REPORT)/index.html"
	@$(PAPERMILL) notebooks/01-DataPreparation.ipynb "$(REPORT)/01-DataPreparation.ipynb" -r raw_data "$$RAW_DATA" \
		$(PREPARATION) $(QUIETER)
	@echo "2 of 4  Training, which takes longest"
	@$(PAPERMILL) notebooks/02-ModelTraining.ipynb "$(REPORT)/02-ModelTraining.ipynb" \
		-y '{architectures: $(ARCHITECTURES), weights: $(START)}' $(TRAINING) $(PARAMETERS) $(DEFECT_SET) $(QUIETER)
	@echo "3 of 4  Explaining"
	@$(PAPERMILL) notebooks/03-ModelInterpretability.ipynb "$(REPORT)/03-ModelInterpretability.ipynb" $(DEFECT_SET) $(QUIETER)
	@echo "4 of 4  Writing the report"
	@$(EXPORT) $(BIN)/python -m helpers.report $(foreach name,$(STEPS),"$(REPORT)/$(name).ipynb") --folder "$(REPORT)"

test: test-unit test-notebooks

# make test-unit  modules, commands, conventions and headless runs; make test-notebooks  every notebook, tiny
test-unit: $(READY)
	@echo "Unit tests, a process for each processor"
	@OMP_NUM_THREADS=1 $(EXPORT) $(BIN)/python -m pytest -n auto --dist worksteal

test-notebooks: $(READY)
	@echo "Every notebook, with the tiny values of its parameters cell: the first makes the data of all others"
	@$(EXPORT) $(BIN)/python -m pytest --nbmake notebooks/01-*.ipynb
	@echo "02 and 03 with arrays in files, as for photos that memory cannot hold; 04 to 07 with arrays in memory"
	@printf '%s\n' 'HELPERS_MEMORY_BYTES=1 $(BIN)/python -m pytest --nbmake notebooks/0[23]-*.ipynb' \
		'$(BIN)/python -m pytest --nbmake notebooks/0[4-7]-*.ipynb' | $(EXPORT) OMP_NUM_THREADS=1 xargs -P 2 -I{} bash -c '{}'

# make test-real  the notebooks on the real sets of ../shared, cut short
test-real: $(READY)
	@echo "The notebooks on the real sets of ../shared, two at a time, the longest first"
	@printf '%s\n' packages trashnet caltech cifar | $(EXPORT) OMP_NUM_THREADS=$$(( ($$(getconf _NPROCESSORS_ONLN) + 1) / 2 )) \
		xargs -P 2 -I{} bash -c '$(BIN)/python -m pytest tests/real/test_{}.py'

# make test-oldest  the unit tests with the oldest versions that pyproject.toml admits, in an environment of their own
test-oldest: $(READY)
	@echo "Setting up .venv-oldest, about 6 GB"
	@rm -rf .venv-oldest && PATH="$$PATH:$(CURDIR)/$(BIN)" uv venv --quiet --python 3.11 .venv-oldest
	@PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip install --python .venv-oldest/bin/python --quiet --resolution lowest-direct \
		$(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) --editable '.[notebooks,dev,onnx]'
	@echo "Unit tests; a warning of an old version is no error here"
	@OMP_NUM_THREADS=1 PATH="$(CURDIR)/.venv-oldest/bin:$$PATH" \
		.venv-oldest/bin/python -m pytest -n auto --dist worksteal -o filterwarnings=default

# make lint  ruff on code and notebooks
lint: $(READY)
	@$(BIN)/ruff check && $(BIN)/ruff format --check

# make results PACKAGES=packages.zip WEIGHTS='{mobilenet_v2: file.pth}'  accuracy and attribution, docs/results.md (45 minutes with bfloat16 in hardware)
results: $(READY)
	@test -n "$(PACKAGES)" -a -n "$(WEIGHTS)" || { echo "make results PACKAGES=packages.zip WEIGHTS='{mobilenet_v2: file.pth}'"; exit 1; }
	@$(EXPORT) $(BIN)/python benchmarks/packages.py '$(PACKAGES)' --weights '$(WEIGHTS)' \
		--training '{fine_tuning_epochs: 18, folds: 5, repeats: 3}'

# make results-series CALTECH=caltech101.zip TRASHNET=trashnet.zip CIFAR=cifar10.zip WEIGHTS=mobilenet_v2.pth
#                     accuracy of notebooks 04 to 07, docs/results.md (about three hours)
results-series: $(READY)
	@$(EXPORT) $(BIN)/python benchmarks/series.py $(if $(CALTECH),--caltech '$(CALTECH)') \
		$(if $(TRASHNET),--trashnet '$(TRASHNET)') $(if $(CIFAR),--cifar '$(CIFAR)') $(if $(WEIGHTS),--weights '$(WEIGHTS)')

# make bench PHOTOS=trashnet.zip WEIGHTS=mobilenet_v2.pth CIFAR=cifar10.zip  speed against others, docs/benchmarks.md (an hour)
bench: $(READY)
	@test -n "$(PHOTOS)" -a -n "$(WEIGHTS)" -a -n "$(CIFAR)$(PARTS)" || { echo "make bench PHOTOS=trashnet.zip WEIGHTS=mobilenet_v2.pth CIFAR=cifar10.zip"; exit 1; }
	@PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip install --python $(BIN)/python --quiet --constraint constraints.txt --editable '.[bench]'
	@$(EXPORT) $(BIN)/python benchmarks/speed.py '$(PHOTOS)' '$(WEIGHTS)' $(if $(CIFAR),--cifar '$(CIFAR)') $(if $(PARTS),--parts $(PARTS))

# make bench-large  time and memory for 1,000 to 100,000 images, docs/large-sets.md
bench-large: $(READY)
	@$(EXPORT) $(BIN)/python benchmarks/large_sets.py

# make pictures  run the sample anew, also in transfer/, and put two of its figures into docs/ for the README
pictures: $(READY)
	@$(MAKE) run RAW_DATA=sample
	@$(EXPORT) $(BIN)/python benchmarks/pictures.py

# make stamp REPOSITORY=owner/name  write the repository's address into badges and set-up cells
stamp:
	@[[ "$(REPOSITORY)" =~ ^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$$ && "$(REPOSITORY)" != *.git ]] || \
		{ echo "make stamp REPOSITORY=owner/name, without an address before it or .git behind"; exit 1; }
	@old=$$(sed -n 's|^Repository = "https://github.com/\(.*\)"|\1|p' pyproject.toml) && \
		sed -i.bak "s|$$old|$(REPOSITORY)|g" pyproject.toml README.md notebooks/*.ipynb && \
		rm -f pyproject.toml.bak README.md.bak notebooks/*.bak && \
		{ test ! -f $(READY) || touch $(READY); } && echo "Stamped $(REPOSITORY) in place of $$old"

# make pins  find the newest versions that fit pyproject.toml and write them to constraints.txt
pins: $(READY)
	@PATH="$$PATH:$(CURDIR)/$(BIN)" uv pip compile pyproject.toml --extra notebooks --extra dev --extra onnx --universal --python-version 3.11 --upgrade --quiet \
		--no-annotate --no-header --no-emit-index-url --no-emit-find-links --output-file constraints.txt

# make clean  take the environment, the report and builds away
clean:
	rm -rf .venv .venv-oldest report build *.egg-info
