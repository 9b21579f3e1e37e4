//! The kinds of attack, by port.

use std::fmt;

/// What attackers do on each of their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    Idle,
    HalfOpen,
    Slow,
    RapidReset,
    Pings,
    Settings,
    EmptyData,
    Continuation,
    BigHeaders,
    BigFrames,
    BigMessages,
    Unfinished,
    Streams,
    Garbage,
    NeverReads,
    Scrapes,
}

/// Which port of the node is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Client,
    Peer,
    Http,
}

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) attack: Attack,
    pub(crate) port: Port,
    /// How many connections at a time.
    pub(crate) crowd: usize,
    /// In words.
    pub(crate) about: &'static str,
}

impl Kind {
    const fn new(attack: Attack, port: Port, crowd: usize, about: &'static str) -> Self {
        Self { attack, port, crowd, about }
    }

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        KINDS.into_iter()
    }

    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }

    /// Its name: what is done, and at which port if that is not the clients'.
    pub(crate) fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.attack {
            Attack::Idle => "idle",
            Attack::HalfOpen => "half-open",
            Attack::Slow => "slow",
            Attack::RapidReset => "rapid-reset",
            Attack::Pings => "pings",
            Attack::Settings => "settings",
            Attack::EmptyData => "empty-data",
            Attack::Continuation => "continuation",
            Attack::BigHeaders => "big-headers",
            Attack::BigFrames => "big-frames",
            Attack::BigMessages => "big-messages",
            Attack::Unfinished => "unfinished",
            Attack::Streams => "streams",
            Attack::Garbage => "garbage",
            Attack::NeverReads => "never-reads",
            Attack::Scrapes => "scrapes",
        };
        f.write_str(name)?;
        f.write_str(match self.port {
            Port::Client => "",
            Port::Peer => "@peer",
            Port::Http => "@http",
        })
    }
}

const KINDS: [Kind; 27] = [
    Kind::new(Attack::Idle, Port::Client, 10_000, "connections that say nothing, every other after a whole handshake"),
    Kind::new(Attack::HalfOpen, Port::Client, 1_000, "half of the preface, and then nothing"),
    Kind::new(Attack::Slow, Port::Client, 1_000, "a call that comes at one byte a second"),
    Kind::new(Attack::RapidReset, Port::Client, 4, "calls that are reset at once, as fast as they go"),
    Kind::new(Attack::Pings, Port::Client, 4, "pings as fast as they go"),
    Kind::new(Attack::Settings, Port::Client, 4, "settings as fast as they go"),
    Kind::new(Attack::EmptyData, Port::Client, 4, "frames of data without data, as fast as they go"),
    Kind::new(Attack::Continuation, Port::Client, 4, "headers that never end, in tiny frames"),
    Kind::new(Attack::BigHeaders, Port::Client, 4, "calls with a megabyte of headers"),
    Kind::new(Attack::BigFrames, Port::Client, 4, "frames of 16 MiB"),
    Kind::new(Attack::BigMessages, Port::Client, 4, "messages of 5 MiB, and such as claim to have 4 GiB"),
    Kind::new(Attack::Unfinished, Port::Client, 100, "messages of 4 MiB on every stream, all but the last byte"),
    Kind::new(Attack::Streams, Port::Client, 100, "as many streams as a connection may have, left open"),
    Kind::new(Attack::Garbage, Port::Client, 16, "random bytes, half of them after the preface"),
    Kind::new(Attack::NeverReads, Port::Client, 100, "asks for values of 1 MiB and reads no answer"),
    Kind::new(Attack::Idle, Port::Peer, 10_000, "as on the clients' port"),
    Kind::new(Attack::Slow, Port::Peer, 1_000, "as on the clients' port"),
    Kind::new(Attack::RapidReset, Port::Peer, 4, "as on the clients' port"),
    Kind::new(Attack::Pings, Port::Peer, 4, "as on the clients' port"),
    Kind::new(Attack::BigMessages, Port::Peer, 4, "messages of 9 MiB, and such as claim to have 4 GiB"),
    Kind::new(Attack::Unfinished, Port::Peer, 100, "messages of 8 MiB on every stream, all but the last byte"),
    Kind::new(Attack::Garbage, Port::Peer, 16, "as on the clients' port"),
    Kind::new(Attack::Idle, Port::Http, 10_000, "connections that say nothing"),
    Kind::new(Attack::Slow, Port::Http, 1_000, "a request that comes at one byte a second"),
    Kind::new(Attack::BigHeaders, Port::Http, 4, "requests with headers without end"),
    Kind::new(Attack::Scrapes, Port::Http, 16, "asks for the metrics as fast as they come"),
    Kind::new(Attack::Garbage, Port::Http, 16, "random bytes"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in Kind::all() {
            assert_eq!(Kind::named(&kind.name()), Some(kind));
        }
    }
}
