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

# Every directed network of five nodes, held and healed: 8 minutes of CPU.
networks:
    cargo run --release -p kv-tests --bin sim -- --networks --brief

# Fourteen simulated days on two cores, added up in tests/simulated.txt. Every point of the core that runs come to must be reached.
sim-long:
    cargo run --profile dist -p kv-tests --bin sim -- --campaign tests/simulated.txt --days 14 --jobs 2 --brief --points --points-required runs

# A century on two cores. Stop it when you like: what was simulated is in tests/simulated.txt, and the next start goes on.
sim-century:
    cargo run --profile dist -p kv-tests --bin sim -- --campaign tests/simulated.txt --days 36525 --jobs 2 --brief

# The same load on kv, etcd and Redis (Debian packages etcd-server and redis-server), in turn: an hour for all workloads.
peers *args:
    cargo build --profile dist -p kv-server
    cargo run --profile dist -p kv-tests --features peers --bin peers -- {{args}}

# Instructions an operation of fixed loads on the core, counted by callgrind, beside those that are committed. `just instructions --write` commits to new ones.
instructions *args:
    CARGO_INCREMENTAL=0 cargo build --locked --release -p kv-tests --bin instructions
    .ci/instructions {{args}}

# What three nodes cost while nobody asks, with so many shards each: `just idle 30 12 100 1000` measures 30 s of each.
idle secs *shards:
    cargo build --profile dist -p kv-server -p kv-client
    .ci/idle {{secs}} {{shards}}

# Where the CPU of three nodes goes under a load, by stage and as a flame graph: `just flame put 64`, `just flame async 64`, `just flame get 256 gets.svg`.
flame mix out *svg:
    .ci/flame {{mix}} {{out}} {{svg}}

# Time of what each operation passes (codec, log, apply, ring) and of the checker, beside the last run's: `just micro apply` for one group.
micro *args:
    cargo bench -p kv-tests --bench micro -- {{args}}

# The read index on sled, redb and fjall, under the load of checkpoints.
engines records="1000000":
    cargo bench -p kv-tests --features engines --bench engines -- {{records}}

# Ten times the load that a cluster can bear.
overload:
    cargo run --release -p kv-tests --bin sim -- --overload

# Crashes one machine of a recorded run at every step of its disk, in about so many legal states of it.
crash-points states="1000000" seed="1":
    cargo run --release -p kv-tests --bin sim -- --crash-points --states {{states}} --seed {{seed}}

# Real processes under faults: `just chaos --nemesis kill,partition --secs 120 --seed 7`, or `just chaos --list`.
chaos *args:
    cargo build --release -p kv-server
    cargo run --release -p kv-tests --bin chaos -- {{args}}

# Judges a history, or a cluster of one's own: `just verify run.jsonl --cluster 127.0.0.1:7101 --secs 30 --page run.html`.
verify *args:
    cargo run --release -q -p kv-tests --bin check -- {{args}}

# Clients that mean harm, against a real cluster: `just attack --kind pings,idle --secs 5`, or `just attack --list`; `--kind overload`
# offers ten times what the cluster bears. Needs a machine that does nothing else.
attack *args:
    cargo build --release -p kv-server
    cargo run --release -p kv-tests --bin attack -- {{args}}

# Every nemesis for two minutes, one after the other, added up in tests/chaos.jsonl; needs root and its tools.
chaos-each secs="120" seed="1":
    cargo build --release -p kv-server -p kv-tests --bins
    for nemesis in $(target/release/chaos --list | sed -n 's/^\([a-z-]*\)  *[^ ].*/\1/p' | grep -v -x -e each -e nodes); do \
        target/release/chaos --nemesis $nemesis --secs {{secs}} --seed {{seed}} --campaign tests/chaos.jsonl || exit 1; \
    done

# Plants known bugs one by one: the simulator must find each.
mutants:
    @cargo run --release -q -p kv-tests --bin sim -- --mutants

# Writes the tables of RELIABILITY.md anew, from the books in tests/: simulated.txt, chaos.jsonl, mutants.md (`just mutants > tests/mutants.md`), proofs.jsonl.
reliability:
    KV_REGENERATE=1 cargo test -p kv-tests --test reliability

# Fuzzing for long: so many made-up inputs for each target (the three nodes take a tenth), a line for each; some 15 minutes of
# CPU for 10,000,000. `just fuzz 100000 7 log` takes other inputs, for the targets whose names have `log` in them.
fuzz runs="10000000" seed="1" only="":
    .ci/fuzz {{runs}} {{seed}} {{only}}

# What a target makes of one input, such as one that failed and was written to target/fuzz: `just fuzz-one log FILE`.
# Those of the server are in `"kv-server --lib"`.
fuzz-one target input package="kv-tests --test fuzz":
    KV_FUZZ_INPUT={{absolute_path(input)}} cargo test -p {{package}} -- --nocapture {{target}}

# The same with libFuzzer, which is guided by coverage: one target of kv-tests, its corpus, and how many inputs.
fuzz-guided target corpus runs="10000000":
    mkdir -p target/fuzz/{{corpus}}
    RUSTFLAGS="--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    BOLERO_LIBFUZZER_ARGS="../target/fuzz/{{corpus}} corpus/{{corpus}} -runs={{runs}} -max_len=16384" \
    cargo test --release --target x86_64-unknown-linux-gnu -p kv-tests --test fuzz -- --nocapture --test-threads 1 {{target}}

# The generated gRPC code and its descriptor set, from the protos.
regenerate:
    KV_REGENERATE=1 cargo test -p kv-proto

# The traces of the golden scripts in tests/scripts. What they expect is checked all the same.
regenerate-scripts:
    KV_REGENERATE=1 cargo test -p kv-tests --test scripts

# Advisories, licences, bans, sources.
deny:
    cargo deny check
