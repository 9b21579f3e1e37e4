//! A shard's state itself through checkpoints: applied, frozen, written, loaded again at any moment, and equal to one that
//! never stopped.

use kv_core::{
    checkpoint::job::{CheckpointEvent, CheckpointJob},
    command::{Action, Command, CommandOutcome, Condition, SessionStamp, Write},
    shard_map::Arc,
    state::{ShardState, Tree, record::StateHeader},
    types::{Epoch, Key, LogIndex, Position, Sequence, SessionId, Term, Value},
};

use crate::bench::{Bench, Load, REPLICA, SHARD};

fn initial() -> StateHeader {
    StateHeader {
        index: LogIndex(1),
        term: Term(1),
        arc: Some(Arc { first: Position(0), last: Position(u64::MAX) }),
        epoch: Epoch(1),
        terms: vec![(Term(1), LogIndex(1))],
        configurations: vec![(LogIndex(1), kv_core::configuration::Configuration::default())],
        ..StateHeader::default()
    }
}

fn command(random: &mut fastrand::Rng) -> Command {
    if random.u8(0..20) == 0 {
        return Command::OpenSession;
    }
    let sequence = random.u64(1..40);
    let stamp = SessionStamp {
        session: SessionId(random.u64(1..6)),
        sequence: Sequence(sequence),
        floor: Sequence(sequence.saturating_sub(10)),
    };
    Command::Write(Write {
        key: Key::new(format!("key{}", random.u8(0..40))).expect("it is short"),
        action: if random.u8(0..4) == 0 {
            Action::Delete
        } else {
            Action::Put(Value::new(vec![random.u8(..); random.usize(0..50)]).expect("it is short"))
        },
        condition: if random.bool() { Condition::Always } else { Condition::Absent },
        return_previous: random.bool(),
        session: random.bool().then_some(stamp),
    })
}

struct Shard {
    bench: Bench,
    state: ShardState,
}

impl Shard {
    fn load(mut bench: Bench, at_least: LogIndex) -> Self {
        let initial = (at_least == LogIndex(1)).then(initial);
        let Load::Loaded(footer, sessions) = bench.load(at_least, None, initial) else { panic!() };
        let state = ShardState::from_header(footer.header, sessions, Vec::new()).expect("what was written decodes");
        Self { bench, state }
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<CommandOutcome> {
        let mut outcomes = Vec::new();
        let index = self.state.applied().0.next();
        let tree = Tree::new(&self.bench.store, REPLICA);
        self.state.apply(&tree, index, Term(1), commands, &mut outcomes).expect("the tree does not fail");
        outcomes
    }

    fn checkpoint(&mut self) -> LogIndex {
        let (table, header) = self.state.freeze();
        let index = header.index;
        self.bench.worker.submit(CheckpointJob::Write { shard: SHARD, replica: REPLICA, table, header });
        let events = self.bench.run();
        assert!(
            matches!(events[..], [CheckpointEvent::Durable { .. }, CheckpointEvent::Inserted { .. }]),
            "{events:?}"
        );
        self.state.drop_frozen(index);
        index
    }

    fn digest(mut self) -> String {
        if self.state.is_changed() {
            self.checkpoint();
        }
        match self.bench.restart().load(LogIndex(1), None, Some(initial())) {
            Load::Loaded(footer, _) => footer.digest.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
pub(crate) fn a_state_that_is_loaded_again_and_again_ends_as_one_that_never_was() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut steady = Shard::load(Bench::new(), LogIndex(1));
        let mut shaken = Shard::load(Bench::new(), LogIndex(1));
        let mut log: Vec<Vec<Command>> = Vec::new();
        let mut newest = LogIndex(1);
        for _ in 0..60 {
            let commands: Vec<Command> = (0..random.u8(0..5)).map(|_| command(&mut random)).collect();
            assert_eq!(steady.apply(&commands), shaken.apply(&commands));
            log.push(commands);
            if random.u8(0..4) == 0 {
                newest = shaken.checkpoint();
            }
            if random.u8(0..8) == 0 {
                shaken.bench.disk.crash(&mut random);
                if random.bool() {
                    shaken.bench.store.lose();
                }
                shaken = Shard::load(shaken.bench.restart(), newest);
                assert_eq!(shaken.state.applied().0, newest);
                let above = usize::try_from(newest.0 - 1).unwrap();
                for commands in &log[above..] {
                    shaken.apply(commands);
                }
            }
        }
        assert_eq!(steady.digest(), shaken.digest());
    }
}
