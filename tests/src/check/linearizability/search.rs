//! The search for an order: Wing and Gong's, with Lowe's memo.
//!
//! A configuration is (what took effect, the register). One that was seen before and led nowhere is not entered again. The set
//! of what took effect is never stored: each step has a random 128-bit number, a set is the exclusive or of its members'
//! numbers, and the memo holds the hash of set and register. Two configurations that are taken for one would need a collision
//! of 128 bits (below 10^-22 for 10^8 configurations).
//!
//! Three observations keep it nearly free of branching, none of which changes the verdict:
//! - a step that only looks, and finds what it was told, may as well take effect at once;
//! - writes with known revisions take effect in the order of these;
//! - writes of unknown outcome that nobody saw and that do the same thing are interchangeable, so the earliest goes first; and
//!   they are tried only where nothing else goes on.
//!
//! What a step does to which state is a [`Model`]: our own register with its revisions here, a plain one for histories that
//! others made.

use std::collections::{BTreeMap, HashSet};

use kv_core::types::Revision;
use xxhash_rust::xxh3::xxh3_128;

use super::steps::{Change, Effect, Step, Steps};

/// How many operations of the longest beginning of an order are described.
const DESCRIBED_MAX: usize = 12;

/// What came of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order exists.
    Linearizable,
    /// None exists. Holds the operations of the longest beginning of one.
    NotLinearizable(Vec<u64>),
    /// None can exist, for a reason that needs no search.
    Impossible(String),
    /// Given up.
    Undecided,
}

impl Verdict {
    /// The verdict for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Linearizable => "an order exists".into(),
            Self::NotLinearizable(order) if order.is_empty() => "none of them can be the first".into(),
            Self::NotLinearizable(order) => {
                let shown = &order[order.len().saturating_sub(DESCRIBED_MAX)..];
                let omitted = if shown.len() < order.len() { "... " } else { "" };
                let shown: Vec<_> = shown.iter().map(u64::to_string).collect();
                format!("the longest beginning of an order is {omitted}{}; nothing can follow", shown.join(" "))
            }
            Self::Impossible(why) => why.clone(),
            Self::Undecided => "given up".into(),
        }
    }
}

/// What steps do to a state.
pub trait Model: Ord {
    /// The state; its default is the one before all steps.
    type State: Copy + Eq + Default;

    /// The state after a step, or `None` if the step can't happen there.
    fn after(&self, state: Self::State) -> Option<Self::State>;

    /// A hash of the state without collisions worth speaking of.
    fn hash(state: &Self::State) -> u128;

    /// Whether the step, where it leaves the state as it is, may as well happen at once.
    fn looks(&self) -> bool;

    /// The step's place among those of which it is known in which order they happen.
    fn rank(&self) -> Option<u64>;
}

impl Model for Effect {
    type State = Register;

    fn after(&self, state: Register) -> Option<Register> {
        state.after(self)
    }

    fn hash(state: &Register) -> u128 {
        state.hash()
    }

    fn looks(&self) -> bool {
        match self {
            Self::Write(Change { delete: true, revision: Some(Revision(0)), .. }) => true,
            Self::Write(_) => false,
            Self::Read(_) | Self::Conflict { .. } => true,
        }
    }

    fn rank(&self) -> Option<u64> {
        match self {
            Self::Write(Change { revision: Some(revision), .. }) if *revision != Revision(0) => Some(revision.0),
            _ => None,
        }
    }
}

/// The register as the steps so far left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register {
    present: bool,
    /// The write that put what it holds, if that is one which can be seen.
    named: Option<u64>,
    /// The revision of what it holds, if that is known.
    revision: Option<Revision>,
    /// The lowest revision that the last change can have had.
    floor: u64,
}

impl Register {
    /// The register after a step, or `None` if the step can't happen here.
    fn after(self, effect: &Effect) -> Option<Self> {
        match effect {
            Effect::Read(entry) => self.holds(*entry).then_some(self),
            Effect::Conflict { condition, current } => {
                let fails = condition.is_some_and(|required| required != *current);
                if fails { self.at(*current) } else { None }
            }
            Effect::Write(change) => self.changed(change),
        }
    }

    fn holds(&self, entry: Option<(u64, Revision)>) -> bool {
        match entry {
            None => !self.present,
            Some((write, revision)) => self.present && self.named == Some(write) && self.revision == Some(revision),
        }
    }

    /// The register if its revision is `revision`, 0 for an empty one. A revision that was open becomes known.
    fn at(mut self, revision: Revision) -> Option<Self> {
        if revision == Revision(0) || !self.present {
            return (self.present == (revision != Revision(0))).then_some(self);
        }
        match self.revision {
            Some(known) => (known == revision).then_some(self),
            None if revision.0 < self.floor => None,
            None => {
                self.revision = Some(revision);
                self.floor = revision.0;
                Some(self)
            }
        }
    }

    fn changed(self, change: &Change) -> Option<Self> {
        if change.previous.is_some_and(|previous| !self.holds(previous)) {
            return None;
        }
        let before = match change.condition {
            Some(required) => self.at(required)?,
            None => self,
        };
        if change.delete && !before.present {
            return change.revision.is_none_or(|revision| revision == Revision(0)).then_some(before);
        }
        let floor = match change.revision {
            Some(revision) if revision.0 <= before.floor => return None,
            Some(revision) => revision.0,
            None => before.floor + 1,
        };
        let (named, revision) = if change.delete { (None, None) } else { (change.named, change.revision) };
        Some(Self { present: !change.delete, named, revision, floor })
    }

    fn hash(&self) -> u128 {
        let mut bytes = [0; 27];
        bytes[0] = u8::from(self.present);
        bytes[1] = u8::from(self.named.is_some());
        bytes[2] = u8::from(self.revision.is_some());
        bytes[3..11].copy_from_slice(&self.named.unwrap_or(0).to_le_bytes());
        bytes[11..19].copy_from_slice(&self.revision.unwrap_or_default().0.to_le_bytes());
        bytes[19..27].copy_from_slice(&self.floor.to_le_bytes());
        xxh3_128(&bytes)
    }
}

/// Searches for an order of the steps.
#[must_use]
pub fn search<E: Model>(steps: &Steps<E>, steps_max: u64) -> Verdict {
    Search::new(steps).run(steps_max)
}

struct Search<'a, E: Model> {
    must: &'a [Step<E>],
    /// Calls and answers of what is still to take effect, as a list that steps are lifted out of and put back into.
    list: List,
    /// What may take effect, gathered by what it does.
    classes: Vec<Class<'a, E>>,
    /// For writes with known revisions: how many come before.
    rank: Vec<Option<usize>>,
    ranks_done: usize,
    register: E::State,
    set: u128,
    seen: HashSet<u128>,
    path: Vec<Frame<E::State>>,
    left: usize,
}

struct Class<'a, E> {
    effect: &'a E,
    /// Operations with the events of their calls, ascending.
    members: Vec<(u64, u64)>,
    used: usize,
}

#[derive(Clone, Copy)]
enum Choice {
    Must(usize),
    May(usize),
}

struct Frame<S> {
    choice: Choice,
    /// Nothing else needs to be tried in its place.
    forced: bool,
    before: S,
}

impl<'a, E: Model> Search<'a, E> {
    fn new(steps: &'a Steps<E>) -> Self {
        let mut classes: BTreeMap<&E, Vec<(u64, u64)>> = BTreeMap::new();
        for step in &steps.may {
            classes.entry(&step.effect).or_default().push((step.from, step.id));
        }
        let classes = classes
            .into_iter()
            .map(|(effect, mut members)| {
                members.sort_unstable();
                Class { effect, members, used: 0 }
            })
            .collect();
        let ranked = |(i, step): (usize, &Step<E>)| Some((step.effect.rank()?, i));
        let mut known: Vec<_> = steps.must.iter().enumerate().filter_map(ranked).collect();
        known.sort_unstable();
        let mut rank = vec![None; steps.must.len()];
        for (place, (_, i)) in known.into_iter().enumerate() {
            rank[i] = Some(place);
        }
        Self {
            must: &steps.must,
            list: List::new(&steps.must),
            classes,
            rank,
            ranks_done: 0,
            register: E::State::default(),
            set: 0,
            seen: HashSet::new(),
            path: Vec::new(),
            left: steps.must.len(),
        }
    }

    fn run(mut self, steps_max: u64) -> Verdict {
        let mut longest = Vec::new();
        let mut deepest = 0;
        let mut after: Option<Choice> = None;
        for _ in 0..steps_max {
            if self.left == 0 {
                return Verdict::Linearizable;
            }
            let next = match after.take() {
                None => self.forced().or_else(|| self.next_after(None).map(|choice| (choice, false))),
                Some(tried) => self.next_after(Some(tried)).map(|choice| (choice, false)),
            };
            if let Some((choice, forced)) = next {
                if !self.enter(choice, forced) {
                    // Seen before, so it leads nowhere. In place of a forced step nothing else can do better.
                    if forced {
                        match self.back() {
                            Some(tried) => after = Some(tried),
                            None => return Verdict::NotLinearizable(longest),
                        }
                    } else {
                        after = Some(choice);
                    }
                }
                continue;
            }
            if self.path.len() > deepest || longest.is_empty() {
                deepest = self.path.len();
                longest = self.order();
            }
            match self.back() {
                Some(tried) => after = Some(tried),
                None => return Verdict::NotLinearizable(longest),
            }
        }
        Verdict::Undecided
    }

    /// A step that only looks and finds what it was told.
    fn forced(&self) -> Option<(Choice, bool)> {
        let mut at = self.list.first_call(None);
        while let Some(i) = at {
            if self.must[i].effect.looks() && self.must[i].effect.after(self.register) == Some(self.register) {
                return Some((Choice::Must(i), true));
            }
            at = self.list.first_call(Some(i));
        }
        None
    }

    /// The next choice that is possible, after one that was tried.
    fn next_after(&self, tried: Option<Choice>) -> Option<Choice> {
        let first_class = match tried {
            Some(Choice::May(class)) => class + 1,
            Some(Choice::Must(_)) | None => {
                let mut at = self.list.first_call(match tried {
                    Some(Choice::Must(i)) => Some(i),
                    _ => None,
                });
                while let Some(i) = at {
                    let in_turn = self.rank[i].is_none_or(|rank| rank == self.ranks_done);
                    if in_turn && self.must[i].effect.after(self.register).is_some() {
                        return Some(Choice::Must(i));
                    }
                    at = self.list.first_call(Some(i));
                }
                0
            }
        };
        let end = self.list.first_answer(self.must);
        (first_class..self.classes.len()).map(Choice::May).find(|choice| {
            let Choice::May(class) = choice else { return false };
            let class = &self.classes[*class];
            let called = class.members.get(class.used).is_some_and(|(from, _)| *from < end);
            // A step that changes nothing may as well not happen.
            called && class.effect.after(self.register).is_some_and(|register| register != self.register)
        })
    }

    /// Lets a choice take effect, unless what it leads to was seen before.
    fn enter(&mut self, choice: Choice, forced: bool) -> bool {
        let register = self.effect(choice).after(self.register).expect("only possible choices are made");
        let set = self.set ^ self.number(choice);
        if !self.seen.insert(set ^ E::hash(&register)) {
            return false;
        }
        self.path.push(Frame { choice, forced, before: self.register });
        self.set = set;
        self.register = register;
        match choice {
            Choice::Must(i) => {
                self.list.lift(i);
                self.left -= 1;
                self.ranks_done += usize::from(self.rank[i].is_some());
            }
            Choice::May(class) => self.classes[class].used += 1,
        }
        true
    }

    /// Takes steps back up to one in whose place something else may be tried, and returns that one.
    fn back(&mut self) -> Option<Choice> {
        loop {
            let frame = self.path.pop()?;
            match frame.choice {
                Choice::Must(i) => {
                    self.list.put_back(i);
                    self.left += 1;
                    self.ranks_done -= usize::from(self.rank[i].is_some());
                }
                Choice::May(class) => self.classes[class].used -= 1,
            }
            self.register = frame.before;
            self.set ^= self.number(frame.choice);
            if !frame.forced {
                return Some(frame.choice);
            }
        }
    }

    fn effect(&self, choice: Choice) -> &'a E {
        match choice {
            Choice::Must(i) => &self.must[i].effect,
            Choice::May(class) => self.classes[class].effect,
        }
    }

    /// The random number of a choice: of the step, or of the class's next member.
    fn number(&self, choice: Choice) -> u128 {
        let (kind, a, b) = match choice {
            Choice::Must(i) => (0_u8, i, 0),
            Choice::May(class) => (1, class, self.classes[class].used),
        };
        let mut bytes = [kind; 17];
        bytes[1..9].copy_from_slice(&(a as u64).to_le_bytes());
        bytes[9..17].copy_from_slice(&(b as u64).to_le_bytes());
        xxh3_128(&bytes)
    }

    fn order(&self) -> Vec<u64> {
        let mut used = vec![0; self.classes.len()];
        let id = |frame: &Frame<E::State>| match frame.choice {
            Choice::Must(i) => self.must[i].id,
            Choice::May(class) => {
                used[class] += 1;
                self.classes[class].members[used[class] - 1].1
            }
        };
        self.path.iter().map(id).collect()
    }
}

/// Calls and answers in the order of their events, doubly linked. Node 2i + 1 is the call of step i, 2i + 2 its answer; 0 is
/// the head.
struct List {
    next: Vec<usize>,
    before: Vec<usize>,
}

impl List {
    fn new<E>(steps: &[Step<E>]) -> Self {
        let mut nodes: Vec<_> = (0..steps.len())
            // At one event calls come before answers: that only makes steps concurrent which may be.
            .flat_map(|i| [(steps[i].from, 0, 2 * i + 1), (steps[i].until, 1, 2 * i + 2)])
            .collect();
        nodes.sort_unstable();
        let mut list = Self { next: vec![0; nodes.len() + 1], before: vec![0; nodes.len() + 1] };
        let mut last = 0;
        for (_, _, node) in nodes {
            list.next[last] = node;
            list.before[node] = last;
            last = node;
        }
        list.next[last] = 0;
        list.before[0] = last;
        list
    }

    /// The first step after `i` (or the first of all) that is called before any answer.
    fn first_call(&self, i: Option<usize>) -> Option<usize> {
        let node = self.next[i.map_or(0, |i| 2 * i + 1)];
        (node % 2 == 1).then(|| (node - 1) / 2)
    }

    /// The event of the first answer; everything called before it may come next.
    fn first_answer<E>(&self, steps: &[Step<E>]) -> u64 {
        let mut node = self.next[0];
        while node % 2 == 1 {
            node = self.next[node];
        }
        if node == 0 { u64::MAX } else { steps[node / 2 - 1].until }
    }

    fn lift(&mut self, i: usize) {
        for node in [2 * i + 1, 2 * i + 2] {
            let (before, next) = (self.before[node], self.next[node]);
            self.next[before] = next;
            self.before[next] = before;
        }
    }

    fn put_back(&mut self, i: usize) {
        for node in [2 * i + 2, 2 * i + 1] {
            let (before, next) = (self.before[node], self.next[node]);
            self.next[before] = node;
            self.before[next] = node;
        }
    }
}
