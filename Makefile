# The hub's commands; each one is `python3 -m hub.launcher COMMAND` (see docs/operation.md).
PORT ?= 8000
VAR ?= $(CURDIR)/var
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && exit; \
	done; echo python3)
export PORT VAR

COMMANDS = setup demo serve stop test bench lock

.PHONY: help $(COMMANDS)
help:
	@echo "make demo    everything, with a demonstration trial, at http://127.0.0.1:$(PORT)"
	@echo "make serve   an empty hub with one administrator"
	@echo "make stop    end what make demo or make serve left in the background"
	@echo "make test    every check and test"
	@echo "make bench   the benchmarks"
	@echo "make setup   only install; make lock: resolve the dependencies again"
	@echo "PORT= (8000) and VAR= (var) choose the port and the folder of the state."

$(COMMANDS):
	@exec "$(PYTHON)" -m hub.launcher --end-with-parent $@
