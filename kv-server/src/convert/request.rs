//! What clients ask, from the wire. Everything that can never succeed is refused here with a sentence.

use kv_core::{
    command::{Action, Condition, SessionStamp, Write},
    error::Error,
    io::{Consistency, Operation},
    types::{Key, LogIndex, Revision, Sequence, SessionId, ShardId, Term, Token, Value},
};
use kv_proto::v1::{self, op};

use super::cluster::durability_from_wire;

/// Reads an operation of a stream.
pub(crate) fn operation_from_wire(operation: Option<op::Operation>) -> Result<Operation, Error> {
    match operation {
        Some(op::Operation::Get(get)) => get_from_wire(get),
        Some(op::Operation::Put(put)) => put_from_wire(put),
        Some(op::Operation::Delete(delete)) => delete_from_wire(delete),
        Some(op::Operation::OpenSession(_)) => Ok(Operation::OpenSession),
        Some(op::Operation::WaitDurable(wait)) => match wait.token {
            Some(token) => Ok(Operation::WaitDurable {
                token: Token { shard: ShardId(token.shard), term: Term(token.term), index: LogIndex(token.index) },
            }),
            None => Err(Error::invalid("wait_durable without a token; give the token that the write returned")),
        },
        None => Err(Error::invalid(
            "an operation that asks nothing this version knows; it is get, put, delete, open_session or wait_durable",
        )),
    }
}

/// Reads a get.
pub(crate) fn get_from_wire(get: v1::GetRequest) -> Result<Operation, Error> {
    let consistency = match v1::Consistency::try_from(get.consistency) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => Consistency::Linearizable,
        Ok(v1::Consistency::Bounded) => Consistency::Bounded { age_micros_max: get.age_ms_max.saturating_mul(1_000) },
        Ok(v1::Consistency::Stale) => Consistency::Stale,
        Err(_) => return Err(Error::invalid(format!("consistency {} is not known", get.consistency))),
    };
    Ok(Operation::Get { key: Key::new(get.key)?, consistency })
}

/// Reads a put.
pub(crate) fn put_from_wire(put: v1::PutRequest) -> Result<Operation, Error> {
    let condition = match put.condition {
        None | Some(v1::put_request::Condition::IfAbsent(false)) => Condition::Always,
        Some(v1::put_request::Condition::IfAbsent(true)) => Condition::Absent,
        Some(v1::put_request::Condition::IfRevision(revision)) => condition_on(revision),
    };
    let write = Write {
        key: Key::new(put.key)?,
        action: Action::Put(Value::new(put.value)?),
        condition,
        return_previous: put.return_previous,
        session: session_from_wire(put.session)?,
    };
    Ok(Operation::Write { write, durability: durability_from_wire(put.durability)? })
}

/// Reads a delete.
pub(crate) fn delete_from_wire(delete: v1::DeleteRequest) -> Result<Operation, Error> {
    let condition = match delete.condition {
        None | Some(v1::delete_request::Condition::IfAbsent(false)) => Condition::Always,
        Some(v1::delete_request::Condition::IfAbsent(true)) => Condition::Absent,
        Some(v1::delete_request::Condition::IfRevision(revision)) => condition_on(revision),
    };
    let write = Write {
        key: Key::new(delete.key)?,
        action: Action::Delete,
        condition,
        return_previous: delete.return_previous,
        session: session_from_wire(delete.session)?,
    };
    Ok(Operation::Write { write, durability: durability_from_wire(delete.durability)? })
}

/// Revision 0 stands for an absent key everywhere, so also here.
fn condition_on(revision: u64) -> Condition {
    if revision == 0 { Condition::Absent } else { Condition::RevisionIs(Revision(revision)) }
}

fn session_from_wire(session: Option<v1::SessionStamp>) -> Result<Option<SessionStamp>, Error> {
    let Some(stamp) = session else { return Ok(None) };
    if stamp.session == 0 || stamp.sequence == 0 {
        return Err(Error::invalid("session and sequence begin at 1; open a session, or leave the stamp out"));
    }
    if stamp.floor > stamp.sequence {
        return Err(Error::invalid("the floor is above the sequence: the write would count as finished"));
    }
    Ok(Some(SessionStamp {
        session: SessionId(stamp.session),
        sequence: Sequence(stamp.sequence),
        floor: Sequence(stamp.floor),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{error::ErrorKind, types::Durability};

    fn put(key: &'static str) -> v1::PutRequest {
        v1::PutRequest { key: key.into(), value: "v".into(), ..Default::default() }
    }

    fn refused(operation: Result<Operation, Error>) -> String {
        let error = operation.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.message().to_owned()
    }

    #[test]
    fn what_can_never_succeed_is_refused_with_a_sentence() {
        assert!(refused(put_from_wire(put(""))).contains("key is empty"));
        let large = v1::PutRequest { value: vec![0; 1024 * 1024 + 1].into(), ..put("k") };
        assert!(refused(put_from_wire(large)).contains("at most 1048576"));
        assert!(refused(put_from_wire(v1::PutRequest { durability: 7, ..put("k") })).contains("durability 7"));
        let stamp = v1::SessionStamp { session: 1, sequence: 2, floor: 3 };
        assert!(refused(put_from_wire(v1::PutRequest { session: Some(stamp), ..put("k") })).contains("floor"));
        assert!(refused(operation_from_wire(None)).contains("nothing this version knows"));
        let get = v1::GetRequest { key: "k".into(), consistency: 9, age_ms_max: 0 };
        assert!(refused(get_from_wire(get)).contains("consistency 9"));
        let wait = op::Operation::WaitDurable(v1::WaitDurableRequest { token: None });
        assert!(refused(operation_from_wire(Some(wait))).contains("token"));
    }

    #[test]
    fn conditions_and_durability_are_read() {
        let request = v1::PutRequest {
            condition: Some(v1::put_request::Condition::IfRevision(4)),
            durability: v1::Durability::Sync.into(),
            ..put("k")
        };
        let Ok(Operation::Write { write, durability }) = put_from_wire(request) else { panic!("a write") };
        assert_eq!(write.condition, Condition::RevisionIs(Revision(4)));
        assert_eq!(durability, Some(Durability::Sync));
        let request = v1::DeleteRequest {
            key: "k".into(),
            condition: Some(v1::delete_request::Condition::IfRevision(0)),
            ..Default::default()
        };
        let Ok(Operation::Write { write, durability }) = delete_from_wire(request) else { panic!("a write") };
        assert_eq!((write.condition, durability), (Condition::Absent, None));
    }
}
