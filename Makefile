# Each line calls cargo or a script. `make demo` and `make test` set up what they need by themselves.

.PHONY: setup run demo test fault soak test-languages plugin-tour bench bench-quick bench-count bench-wasm neighbours neighbours-quick lint ci

setup: ## Install what is missing: a C compiler, Rust, the wasm32 target
	@scripts/setup

# The whole workspace is built each time: with a part of it, cargo chooses other features for some
# libraries, and would compile wasmtime once more.
run: setup ## Run a router on hookyard.sqlite
	@cargo build --locked --workspace
	@target/debug/hookyard serve

demo: setup ## Show a router at work
	@cargo build --locked --workspace
	@target/debug/hookyard demo --plugin target/guests/wasm32-unknown-unknown/guest/filter.wasm

test: ## Run all tests
	@scripts/setup test
	@scripts/test

fault: ## Do to a router what may happen to one, and print what each fault has come to
	@scripts/setup test
	@scripts/fault

test-languages: ## Take a plugin in each language from nothing to a delivery; loads compilers and libraries
	@scripts/setup languages
	@scripts/languages

plugin-tour: test-languages ## The same: it ends with how long each step has taken, language by language

soak: setup ## Hold a load with failures for MINUTES=10, with figures each minute; nothing may be lost
	@scripts/soak $(or $(MINUTES),10)

bench: ## Measure everything, beside what this machine can do; the first time, compiles everything anew, optimised
	@scripts/setup bench
	@cargo bench --locked --workspace --bench bench

bench-quick: setup ## The ratios that matter, in a minute
	@cargo bench --locked --workspace --bench bench -- quick

bench-count: ## Count what an event costs in instructions; fails when that is over a tenth more than committed
	@scripts/setup bench
	@cargo bench --locked --workspace --bench bench -- count

bench-wasm: setup ## Measure runs of plugins alone
	@cargo bench --locked --workspace --bench bench -- plugins

neighbours: setup ## Attack a router in many ways, and print what a neighbour feels; fails beyond its bounds. ATTACKS="name …"
	@cargo bench --locked --workspace --bench bench -- neighbours $(ATTACKS)

neighbours-quick: setup ## The worst attacks, for a few seconds each; times are shown and not judged
	@cargo bench --locked --workspace --bench bench -- neighbours quick $(ATTACKS)

lint: ## Check the formatting, and clippy natively and for the plugins
	@scripts/setup lint
	@scripts/lint

ci: ## What is run before anything lands
	@.ci/run
