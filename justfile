# For people. What a change must pass is .ci/run, which calls cargo directly.

# Formatting, lints and docs, without writing anything.
check:
    cargo fmt --all -- --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# The same, mending what can be mended.
fix:
    cargo fmt --all
    cargo clippy --fix --allow-dirty --workspace --all-targets

# All tests.
test:
    cargo test --locked --workspace

# A cluster of three in one process, with a prompt.
playground:
    cargo run --release -p kv-server -- playground

# Simulated clusters under faults: `just sim 1 500` runs 500 seeds from 1 on.
sim seed="1" runs="100":
    cargo run --release -p kv-tests --bin sim -- --seed {{seed}} --runs {{runs}}

# Plants known bugs one by one: the simulator must find each.
mutants:
    cargo run --release -p kv-tests --bin sim -- --mutants

# The generated gRPC code and its descriptor set, from the protos.
regenerate:
    KV_REGENERATE=1 cargo test -p kv-proto

# The traces of the golden scripts in tests/scripts. What they expect is checked all the same.
regenerate-scripts:
    KV_REGENERATE=1 cargo test -p kv-tests --test scripts

# Advisories, licences, bans, sources.
deny:
    cargo deny check
