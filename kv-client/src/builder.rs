//! How a client is made: addresses, times, defaults.

use std::time::Duration;

use crate::{
    Client,
    error::{Error, ErrorKind, Result},
    remote::Remote,
    types::{Consistency, Durability},
};

/// Time for a call where none is given.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// Time to connect to a node where none is given.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// Most addresses that a client is given. More are refused as invalid.
pub const ENDPOINTS_MAX: usize = 100;

/// Makes a [`Client`].
///
/// ```no_run
/// # async fn example() -> kv_client::Result<()> {
/// use std::time::Duration;
///
/// let client = kv_client::Client::builder()
///     .endpoints(["10.0.0.1:7101", "10.0.0.2:7101"])
///     .deadline(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    pub(crate) endpoints: Vec<String>,
    pub(crate) deadline: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) consistency: Consistency,
    pub(crate) durability: Option<Durability>,
}

impl ClientBuilder {
    pub(crate) fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            deadline: DEADLINE_DEFAULT,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            consistency: Consistency::default(),
            durability: None,
        }
    }

    /// Nodes to begin with, as `host:port`. One that answers is enough: it tells of all others.
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// Nodes to begin with, as `kv://host:port,host:port`. The `kv://` may be left out.
    ///
    /// # Errors
    /// `Invalid` if the text is no such list.
    pub fn url(self, url: &str) -> Result<Self> {
        Ok(self.endpoints(parse(url)?))
    }

    /// Time for each call that does not say otherwise; 5 s if not set. Retries happen inside it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Time to connect to one node; 2 s if not set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How fresh reads are that do not say otherwise; linearizable if not set.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// When writes are acknowledged that do not say otherwise; as the cluster is set, if not set.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Asks the nodes for the cluster's map until one answers, and makes the client. Must be called within a Tokio runtime,
    /// which then carries the client's connections.
    ///
    /// # Errors
    /// `Invalid` if there is no address or one is malformed; `Unavailable` if no node answers within the deadline;
    /// `WrongCluster` if the nodes belong to more than one cluster.
    pub async fn connect(self) -> Result<Client> {
        if self.endpoints.is_empty() || self.endpoints.len() > ENDPOINTS_MAX {
            return Err(invalid(format!(
                "{} addresses are given; 1 to {ENDPOINTS_MAX} are wanted",
                self.endpoints.len()
            )));
        }
        for endpoint in &self.endpoints {
            check(endpoint)?;
        }
        Ok(Client::remote(self.clone(), Remote::connect(&self).await?))
    }
}

/// The addresses in `kv://host:port,host:port`.
fn parse(url: &str) -> Result<Vec<String>> {
    let list = url.strip_prefix("kv://").unwrap_or(url);
    if let Some((scheme, _)) = list.split_once("://") {
        return Err(invalid(format!("the address begins with {scheme}://; write kv://host:port,host:port")));
    }
    list.trim_end_matches('/')
        .split(',')
        .map(str::trim)
        .map(|address| check(address).map(|()| address.into()))
        .collect()
}

/// Whether it is `host:port`; names are resolved at each connect, not here.
fn check(address: &str) -> Result<()> {
    let port = address.rsplit_once(':').filter(|(host, _)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (bare.is_some() && byte == b':'))
    });
    match port.map(|(_, port)| port.parse::<u16>()) {
        Some(Ok(port)) if port != 0 => Ok(()),
        _ => Err(invalid(format!("{address:?} is not an address; write host:port, as in 127.0.0.1:7101"))),
    }
}

fn invalid(message: String) -> Error {
    Error::not_applied(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_list_of_host_and_port() {
        assert_eq!(parse("kv://a:1,b.example:7102").unwrap(), ["a:1", "b.example:7102"]);
        assert_eq!(parse("127.0.0.1:7101, [::1]:7102/").unwrap(), ["127.0.0.1:7101", "[::1]:7102"]);
        for wrong in
            ["", "kv://", "a", "a:", ":1", "a:0", "a:70000", "http://a:1", "a:1,,b:2", "::1:7101", "a b:1", "u@h:1"]
        {
            let error = parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
        }
    }
}
