//! How the process ends: an exit code for scripts, and for people what happened and what to do about it.

use std::process::ExitCode;

use kv_client::{Error, ErrorKind, Outcome};

/// Why the process ends with another code than 0.
#[derive(Debug)]
pub(crate) enum Exit {
    /// 1: something failed that has no code of its own.
    Failure(String),
    /// 2: it was asked for in a way that can't work.
    Usage(String),
    /// 3: the key is absent.
    NotFound,
    /// 5 or 6: the cluster is not as it was asked to be; what is wrong, and whether time ran out.
    NotReady {
        /// What is wrong.
        message: String,
        /// Whether it was waited for.
        waited: bool,
    },
    /// A failed operation: 2, 4, 5, 6 or 8, by its kind and outcome.
    Error(Error),
    /// 1, without a word: nobody reads the output any more.
    OutputClosed,
}

impl Exit {
    /// Writes what is to be said to standard error and gives the code.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Failure(message) | Self::Usage(message) | Self::NotReady { message, .. } => {
                eprintln!("kv: {message}")
            }
            Self::NotFound => eprintln!("kv: the key is absent"),
            Self::Error(error) => eprintln!("kv: {error}\n    {}", advice(error)),
            Self::OutputClosed => {}
        }
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Failure(_) | Self::OutputClosed => 1,
            Self::Usage(_) => 2,
            Self::NotFound => 3,
            Self::NotReady { waited: false, .. } => 5,
            Self::NotReady { waited: true, .. } => 6,
            Self::Error(error) if error.outcome() == Outcome::Unknown => 8,
            Self::Error(error) => match error.kind() {
                ErrorKind::Invalid => 2,
                ErrorKind::Conflict => 4,
                ErrorKind::Unavailable | ErrorKind::Overloaded | ErrorKind::DiskFull => 5,
                ErrorKind::Timeout => 6,
                _ => 1,
            },
        }
    }
}

impl From<Error> for Exit {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What to do about it.
fn advice(error: &Error) -> &'static str {
    if error.outcome() == Outcome::Unknown {
        return "The write happened once or not at all. Read the key; to be safe against this, write with --if-revision.";
    }
    match error.kind() {
        ErrorKind::Unavailable => {
            "Check that the nodes run and that --endpoints (or KV_ENDPOINTS) names them; `kv status` shows which answer."
        }
        ErrorKind::Overloaded => "The cluster has more to do than it can. Ask again later, or ask for less at once.",
        ErrorKind::DiskFull => "Free space on the node's disk: until then it takes no writes.",
        ErrorKind::Timeout => {
            "Ask again, or give it more time with --timeout. `kv status` shows whether a shard has no leader."
        }
        ErrorKind::SessionExpired => "Ask again.",
        ErrorKind::Conflict => "Read the key and decide anew.",
        ErrorKind::Invalid => "Mend the request: it can't succeed as it is.",
        ErrorKind::WrongCluster => "Name the nodes of one cluster in --endpoints (or KV_ENDPOINTS).",
        ErrorKind::Corrupt => {
            "A replica is out of service, and no other served in time. `kv status` shows which, and why; ask again once a \
             majority of the shard's replicas serves."
        }
        _ => "This is a bug: please report it, with the versions of kv and of the nodes.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_client::testing::{Fault, MemoryKv};

    #[tokio::test]
    async fn codes_follow_kind_and_outcome() {
        let kv = MemoryKv::new();
        let client = kv.client();
        let kinds = [
            (ErrorKind::Invalid, 2),
            (ErrorKind::Conflict, 4),
            (ErrorKind::Unavailable, 5),
            (ErrorKind::Overloaded, 5),
            (ErrorKind::Timeout, 6),
            (ErrorKind::Internal, 1),
        ];
        for (kind, code) in kinds {
            kv.fail_next(Fault::Refuse(kind));
            assert_eq!(Exit::from(client.put("a", "1").await.unwrap_err()).code(), code, "{kind:?}");
        }
        kv.fail_next(Fault::LoseAnswer);
        assert_eq!(Exit::from(client.put("a", "1").await.unwrap_err()).code(), 8);
        kv.fail_next(Fault::LoseAnswer);
        assert_eq!(Exit::from(client.get("a").await.unwrap_err()).code(), 6);
    }
}
