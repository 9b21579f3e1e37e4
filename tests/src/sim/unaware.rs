//! Leaders that do not hear that they are deposed, while whoever stands beside them goes on reading there.
//!
//! A leader that is cut off answers no read, and one that hears its peers learns of a newer term from the first message that
//! comes. Between the two lies what a proof of leadership is for: the voters answer, and what would tell the leader of the newer
//! term is lost or late. Here a network does just that. For a while, messages of Raft to the leader of a shard are lost, or held
//! back until the end, if their term is newer than its own; all else comes through. Meanwhile the leadership goes to another
//! replica, by a hand-over or since what the leader says to its followers is lost, or nothing of that kind happens. In some of
//! these times the messages by which it proves its leadership are late or lost on top, each by itself.
//!
//! Bystanders ([`super::bystanders`]) use the shard all the while: one reads a key again and again at the leader, one writes it at
//! whoever leads in the newest term.
//!
//! A network may lose or delay any message by itself, whatever it came with: where envelopes are cut is the transport's choice.
//!
//! *Never produced*: a leader that is unaware for longer than raft lets one lead that hears from no majority; messages that are
//! lost for what they say, but for their term; anything of it in the meta shard, whose state nobody reads by keys.

use fastrand::Rng;
use kv_core::{
    error::{ErrorKind, Outcome},
    io::Operation,
    message::PeerMessage,
    node::Role,
    types::{Key, NodeId, ShardId, Term},
};

use super::{
    plan::Plan,
    world::{Event, World},
};
use crate::history;

/// How many reads the reader has under way at most.
const READS_MAX: usize = 8;

/// A leader is asked to hand over within this time, in microseconds, after it has become unaware.
const HAND_OVER_AFTER_MICROS_MAX: u64 = 100_000;

/// A part of such a time.
#[derive(Debug)]
pub(super) enum Unaware {
    /// A leader is chosen.
    Begins,
    /// It is asked to hand over; reads may be under way by then.
    HandsOver {
        /// The number of the time.
        number: u64,
    },
    /// Bystanders go on.
    Goes {
        /// The number of the time.
        number: u64,
    },
}

/// How a leader comes to be deposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It is asked to hand over, and does not hear of the election.
    HandsOver,
    /// Nobody hears it as their leader any more.
    FallsSilent,
    /// Not at all; but most of the answers by which it would prove that it leads are lost.
    Unanswered,
}

/// One of these is drawn.
const HOWS: [How; 5] = [How::HandsOver, How::HandsOver, How::FallsSilent, How::Unanswered, How::Unanswered];

/// A time in which one leader is unaware.
#[derive(Debug)]
struct Spell {
    number: u64,
    /// All that is random about it.
    rng: Rng,
    shard: ShardId,
    node: usize,
    term: Term,
    key: Key,
    how: How,
    until: u64,
    /// What the leader must not hear comes when all is over; otherwise never.
    is_held: bool,
    /// Questions about its leadership come up to so much later, in microseconds.
    questions_late_micros: u64,
    /// Answers to them do.
    answers_late_micros: u64,
    /// Answers in a hundred that are lost.
    answers_lost_percent: u32,
    /// How long it is from one step of the bystanders to the next, in microseconds.
    period: u64,
    /// Reads under way.
    reads: usize,
    /// Whether a write is under way: one at a time, so that few have an unknown outcome.
    writes: bool,
    /// Whether another was seen to lead while it still did.
    is_deposed: bool,
}

/// What becomes of a message.
enum Turn {
    AsItWas,
    Lost,
    At(u64),
}

/// Draws such times, and holds what is under way.
#[derive(Debug)]
pub(super) struct UnawareMaker {
    rng: Rng,
    /// Times a simulated minute; 0 for never.
    often: f64,
    /// How many were drawn so far.
    drawn: u64,
    spells: Vec<Spell>,
}

impl UnawareMaker {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { rng: plan.stream("unaware"), often: plan.unaware.often, drawn: 0, spells: Vec::new() }
    }

    fn spell(&mut self, number: u64) -> Option<&mut Spell> {
        self.spells.iter_mut().find(|spell| spell.number == number)
    }
}

impl Spell {
    /// What becomes of a message that is sent now; `heard` is the term that the leader has come to, if it is up.
    fn turn(&mut self, now: u64, from: usize, to: usize, message: &PeerMessage, heard: Option<Term>) -> Turn {
        let late =
            |rng: &mut Rng, most: u64| if most == 0 { Turn::AsItWas } else { Turn::At(now + rng.u64(most / 2..=most)) };
        match message {
            PeerMessage::Raft { shard, message } if *shard == self.shard => {
                let is_news = to == self.node && heard.is_some_and(|heard| message.term > heard);
                let is_silenced = from == self.node && self.how == How::FallsSilent;
                match () {
                    () if is_silenced && message.term <= self.term => Turn::Lost,
                    () if is_news && self.how != How::Unanswered && self.is_held => Turn::At(self.until),
                    () if is_news && self.how != How::Unanswered => Turn::Lost,
                    () => Turn::AsItWas,
                }
            }
            PeerMessage::LeadershipAsk { .. } if from == self.node => late(&mut self.rng, self.questions_late_micros),
            PeerMessage::LeadershipAnswer { .. } if to == self.node => {
                if self.rng.u32(..100) < self.answers_lost_percent {
                    return Turn::Lost;
                }
                late(&mut self.rng, self.answers_late_micros)
            }
            _ => Turn::AsItWas,
        }
    }
}

impl World {
    /// Schedules the next such time, if the plan has any.
    pub(super) fn schedule_unaware(&mut self) {
        let UnawareMaker { rng, often, .. } = &mut self.unaware;
        self.queue.push_by_chance(self.now, rng, *often, Event::Unaware(Unaware::Begins));
    }

    pub(super) fn unaware_event(&mut self, unaware: &Unaware) {
        if self.quiet {
            return self.unaware.spells.clear();
        }
        match unaware {
            Unaware::Begins => {
                self.unaware.drawn += 1;
                self.counts.unaware_drawn = self.unaware.drawn;
                // Whatever comes of it, the next one draws the same.
                let rng = Rng::with_seed(self.unaware.rng.u64(..));
                if self.plan.unaware.kept.keeps(self.unaware.drawn) {
                    self.begin_spell(rng);
                }
                self.schedule_unaware();
            }
            Unaware::HandsOver { number } => self.hand_over_unheard(*number),
            Unaware::Goes { number } => self.go_on_with_spell(*number),
        }
    }

    fn begin_spell(&mut self, mut rng: Rng) {
        let shard = ShardId(rng.u64(1..=self.plan.shards));
        let Some((node, term)) = self.newest_leader(shard) else { return };
        let keys = self.keys.in_shard(shard);
        let number = self.unaware.drawn;
        let election_micros = self.plan.settings.tick_micros * self.plan.settings.election_ticks;
        let how = HOWS[rng.usize(..HOWS.len())];
        let late = |rng: &mut Rng| [0, 5_000, 50_000, election_micros][rng.usize(..4)];
        let hands_over_after = if rng.bool() { rng.u64(..HAND_OVER_AFTER_MICROS_MAX) } else { 0 };
        let lost = if how == How::Unanswered { [80, 100, 100] } else { [0, 0, 30] };
        let spell = Spell {
            number,
            shard,
            node,
            term,
            key: keys[rng.usize(..keys.len())].clone(),
            how,
            until: self.now + rng.u64(election_micros..=5 * election_micros),
            is_held: rng.bool(),
            questions_late_micros: late(&mut rng),
            answers_late_micros: late(&mut rng),
            answers_lost_percent: lost[rng.usize(..3)],
            period: rng.u64(2_000..40_000),
            reads: 0,
            writes: false,
            is_deposed: false,
            rng,
        };
        self.counts.unaware += 1;
        self.trace.tell(self.now, || format!("UNAWARE {spell:?}"));
        self.trace.mark(self.now, Some(node), || format!("unaware {number}: {how:?}, the leader of s{shard}"));
        self.unaware.spells.push(spell);
        self.go_on_with_spell(number);
        if how == How::HandsOver {
            self.queue.push(self.now + hands_over_after, Event::Unaware(Unaware::HandsOver { number }));
        }
    }

    /// Asks the leader to hand over to another replica.
    fn hand_over_unheard(&mut self, number: u64) {
        let Some(spell) = self.unaware.spells.iter_mut().find(|spell| spell.number == number) else { return };
        let (node, shard, random) = (spell.node, spell.shard, spell.rng.usize(..));
        let stands = |other: &usize| *other != node && self.machines[*other].shard_status(shard).is_some();
        let others: Vec<usize> = (0..self.machines.len()).filter(stands).collect();
        if !others.is_empty() {
            self.ask_for_transfer(node, shard, NodeId(others[random % others.len()] as u64 + 1));
        }
    }

    /// Who leads a shard in the newest term.
    fn newest_leader(&self, shard: ShardId) -> Option<(usize, Term)> {
        let statuses = self.machines.iter().map(|machine| machine.shard_status(shard));
        let leaders = statuses.enumerate().filter_map(|(node, status)| {
            status.filter(|status| status.role == Role::Leader).map(|status| (node, status.term))
        });
        leaders.max_by_key(|(_, term)| *term)
    }

    /// A step of the bystanders; it is the last when the time is over, or the leader is none any more.
    fn go_on_with_spell(&mut self, number: u64) {
        let Some(spell) = self.unaware.spell(number) else { return };
        let (shard, node, key, period) = (spell.shard, spell.node, spell.key.clone(), spell.period);
        let (reads, until, term) = (spell.reads < READS_MAX, spell.until, spell.term);
        let is_left_alone = spell.how == How::Unanswered;
        let status = self.machines[node].shard_status(shard);
        let leads = status.is_some_and(|status| status.role == Role::Leader && status.term == term);
        if !leads || self.now >= until {
            return self.end_spell(number);
        }
        if reads {
            self.unaware.spell(number).expect("it goes on").reads += 1;
            self.read_beside(node, shard, key.clone(), number);
        }
        let newest = self.newest_leader(shard).filter(|(other, _)| *other != node || is_left_alone);
        if let Some((other, _)) = newest {
            let spell = self.unaware.spell(number).expect("it goes on");
            self.counts.unaware_deposed += u64::from(other != node && !spell.is_deposed);
            spell.is_deposed |= other != node;
            if !spell.writes {
                spell.writes = true;
                self.write_beside(other, shard, key, number);
            }
        }
        self.queue.push((self.now + period).min(until), Event::Unaware(Unaware::Goes { number }));
    }

    fn end_spell(&mut self, number: u64) {
        let Some(place) = self.unaware.spells.iter().position(|spell| spell.number == number) else { return };
        let spell = self.unaware.spells.remove(place);
        if spell.writes {
            // Whoever was asked may be gone.
            let unknown =
                history::Answer::Failed { kind: ErrorKind::Timeout, outcome: Outcome::Unknown, current: None };
            self.keys.written(&spell.key, &unknown);
        }
    }

    /// A bystander was answered.
    pub(super) fn answered_in_spell(&mut self, number: u64, operation: &Operation, told: &history::Answer) {
        let Some(spell) = self.unaware.spell(number) else { return };
        match operation {
            Operation::Write { write, .. } => {
                spell.writes = false;
                self.keys.written(&write.key, told);
            }
            _ => spell.reads -= 1,
        }
    }

    /// Takes out what some leader is not to hear, or nobody of it, or only later.
    pub(super) fn keep_unaware(&mut self, from: usize, to: usize, messages: &mut Vec<PeerMessage>) {
        if self.unaware.spells.is_empty() || self.quiet {
            return;
        }
        let mut later = Vec::new();
        let (now, machines) = (self.now, &self.machines);
        for spell in self.unaware.spells.iter_mut().filter(|spell| spell.node == from || spell.node == to) {
            let heard = machines[spell.node].shard_status(spell.shard).map(|status| status.term);
            messages.retain(|message| match spell.turn(now, from, to, message, heard) {
                Turn::AsItWas => true,
                Turn::Lost => false,
                Turn::At(at) => {
                    later.push((at, message.clone()));
                    false
                }
            });
        }
        let connection = if later.is_empty() { None } else { self.connection(from, to) };
        for (at, message) in later {
            let at = at + self.plan.links.delay_micros_min;
            if self.network.is_open(from, to) {
                self.queue.push(at, Event::Envelope { from, to, messages: vec![message], connection });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::sim::{
        plan::{Options, Plan},
        run,
        trace::Trace,
    };

    #[test]
    fn leaders_are_deposed_without_hearing_of_it_and_no_read_is_old() {
        let mut plan = Plan::draw(1, Options { sim_secs: Some(20), light: true });
        plan.unaware.often = 60.0;
        let (report, _) = run(plan, Trace::new(None));
        assert!(report.failure.is_none(), "{:?}", report.failure);
        let counts = &report.counts;
        assert!(counts.unaware >= 10 && counts.unaware_deposed >= 3, "{} {}", counts.unaware, counts.unaware_deposed);
        assert!(counts.operations[&("get", "ok")] > 0 && counts.operations[&("get", "failed")] > 0);
    }
}
