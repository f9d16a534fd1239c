# Everything is reached from here. Nothing is written outside the checkout: programs go to bin/,
# clients and their packages to .cache/ (both ignored by git).
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)

.PHONY: build test test-go test-clients realinput bench soak lint clean

build: bin/milena

.PHONY: bin/milena
bin/milena:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/milena ./cmd/milena

# Every test: the Go tests with the race detector, the linters, and the real clients, which are
# installed through their package managers into .cache/.
test:
	test/all

test-go:
	$(GO) test ./...

lint:
	test/lint

test-clients: build
	test/clients/run
	BROKER=milena3 test/clients/run

# The main job on real input, full size: over two million lines, three SIGKILLs.
realinput: build
	test/realinput/run

# The long variants of the sweeps, the fuzzers and the seeds; with SEEDS=n, n runs of the simulated cluster.
soak:
ifdef SEEDS
	SEEDS=$(SEEDS) LIMIT=$${LIMIT:-86400} test/sim/run
else
	MILENA_SOAK=1 $(GO) test -timeout 2h ./...
endif

bench: build
	bench/run

clean:
	rm -rf bin .cache
