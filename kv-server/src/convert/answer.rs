//! What came of a request, for the wire.

use kv_core::{
    command::Previous,
    error::{Error, ErrorKind},
    io::Answer,
    types::{Entry, Token},
};
use kv_proto::v1::{self, previous, result};

use super::error::error_to_wire;

/// A result of a stream.
pub(crate) fn answer_to_result(id: u64, result: Result<Answer, Error>) -> v1::Result {
    let result = match result {
        Ok(answer) => match answer {
            Answer::Got { .. } => answer_to_get(answer).map(result::Result::Get),
            Answer::Written { .. } | Answer::Accepted { .. } => answer_to_write(answer).map(result::Result::Write),
            Answer::SessionOpened(session) => {
                Ok(result::Result::OpenSession(v1::OpenSessionResponse { session: session.0 }))
            }
            Answer::Durable => Ok(fate(v1::Fate::Durable)),
            Answer::Lost => Ok(fate(v1::Fate::Lost)),
            Answer::Forgotten => Ok(fate(v1::Fate::Unknown)),
            other => Err(mismatch(&other)),
        },
        Err(error) => Err(error),
    };
    v1::Result { id, result: Some(result.unwrap_or_else(|error| result::Result::Error(error_to_wire(&error)))) }
}

/// The answer to a get.
pub(crate) fn answer_to_get(answer: Answer) -> Result<v1::GetResponse, Error> {
    match answer {
        Answer::Got { entry, revision, age_micros } => Ok(v1::GetResponse {
            entry: entry.map(entry_to_wire),
            revision: revision.0,
            // Rounded up: the answer may be younger than it says, never older.
            age_ms: age_micros.map(|micros| micros.div_ceil(1_000)),
        }),
        other => Err(mismatch(&other)),
    }
}

/// The answer to a put or a delete.
pub(crate) fn answer_to_write(answer: Answer) -> Result<v1::WriteResponse, Error> {
    match answer {
        Answer::Written { revision, previous, token } => Ok(v1::WriteResponse {
            revision: Some(revision.0),
            previous: previous_to_wire(previous),
            token: token.map(token_to_wire),
            durability: v1::Durability::Sync.into(),
        }),
        Answer::Accepted { token } => Ok(v1::WriteResponse {
            revision: None,
            previous: None,
            token: Some(token_to_wire(token)),
            durability: v1::Durability::Async.into(),
        }),
        other => Err(mismatch(&other)),
    }
}

fn fate(fate: v1::Fate) -> result::Result {
    result::Result::WaitDurable(v1::WaitDurableResponse { fate: fate.into() })
}

fn entry_to_wire(entry: Entry) -> v1::Entry {
    v1::Entry { revision: entry.revision.0, value: entry.value.as_bytes().clone() }
}

fn token_to_wire(token: Token) -> v1::Token {
    v1::Token { shard: token.shard.0, term: token.term.0, index: token.index.0 }
}

fn previous_to_wire(previous: Previous) -> Option<v1::Previous> {
    let state = match previous {
        Previous::NotAsked => return None,
        Previous::Absent => previous::State::Absent(true),
        Previous::Entry(entry) => previous::State::Entry(entry_to_wire(entry)),
        Previous::Unavailable => previous::State::Unavailable(true),
    };
    Some(v1::Previous { state: Some(state) })
}

fn mismatch(answer: &Answer) -> Error {
    Error::unknown(ErrorKind::Internal, format!("an answer that does not belong to the request: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::types::{LogIndex, Revision, ShardId, Term, Value};

    #[test]
    fn a_write_says_what_was_reached() {
        let token = Token { shard: ShardId(1), term: Term(2), index: LogIndex(3) };
        let written = answer_to_write(Answer::Written {
            revision: Revision(9),
            previous: Previous::Entry(Entry { revision: Revision(8), value: Value::new("old").unwrap() }),
            token: Some(token),
        });
        let written = written.unwrap();
        assert_eq!(written.revision, Some(9));
        assert_eq!(written.durability(), v1::Durability::Sync);
        assert!(matches!(written.previous.unwrap().state, Some(previous::State::Entry(entry)) if entry.revision == 8));
        let accepted = answer_to_write(Answer::Accepted { token }).unwrap();
        assert_eq!((accepted.revision, accepted.durability()), (None, v1::Durability::Async));
    }

    #[test]
    fn a_wait_tells_each_fate() {
        let fate = |answer| match answer_to_result(7, Ok(answer)).result {
            Some(result::Result::WaitDurable(response)) => response.fate(),
            other => panic!("{other:?}"),
        };
        let fates = [Answer::Durable, Answer::Lost, Answer::Forgotten].map(fate);
        assert_eq!(fates, [v1::Fate::Durable, v1::Fate::Lost, v1::Fate::Unknown]);
    }

    #[test]
    fn an_age_is_rounded_up() {
        let got = |age_micros| answer_to_get(Answer::Got { entry: None, revision: Revision(1), age_micros }).unwrap();
        assert_eq!(got(Some(0)).age_ms, Some(0));
        assert_eq!(got(Some(1)).age_ms, Some(1));
        assert_eq!(got(None).age_ms, None);
    }
}
