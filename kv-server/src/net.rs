//! Listening: connections are counted, their sockets set up, and accepting never ends by an error.
//!
//! A server that stops accepting because one accept failed is down for good, and one that accepts without bound runs out of
//! files. tonic sets nodelay only on sockets that it accepts itself, so it is set here: without it a single small message
//! waits 40 ms.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::server::Connected;

use crate::{
    seldom::Seldom,
    stop::{Failure, Trouble},
    unread::{Reader, Unread},
};

/// Connections of one port at a time. Past it new ones wait in the kernel's queue until one is closed.
const CONNECTIONS_MAX: usize = 10_000;
/// How long accepting pauses after an error, most likely because no file handle was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A port that accepts up to [`CONNECTIONS_MAX`] connections.
pub(crate) struct Door {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    errors: Seldom,
    unread: Arc<Unread>,
}

impl Door {
    /// A door at a bound socket. Must be called inside a runtime.
    pub(crate) fn open(listener: StdListener, unread: &Arc<Unread>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Ok(Self { listener, permits, errors: Seldom::default(), unread: Arc::clone(unread) })
    }

    /// The next connection.
    pub(crate) async fn next(&mut self) -> (Connection, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, %from, "nodelay can't be set on a connection");
                        continue;
                    }
                    let reader = self.unread.reader(Some(from));
                    return (Connection { stream, reader, _permit: permit }, from);
                }
                Err(error) => {
                    if let Some(unsaid) = self.errors.now() {
                        tracing::warn!(%error, unsaid, "a connection can't be accepted; if no file is left, raise the limit");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The connections as tonic takes them; they never end.
    pub(crate) fn connections(self) -> impl futures_util::Stream<Item = io::Result<Connection>> {
        futures_util::stream::unfold(self, |mut door| async move {
            let (connection, _) = door.next().await;
            Some((Ok(connection), door))
        })
    }
}

impl axum::serve::Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// An accepted connection, which counts until it is dropped. It breaks if it is cut for what its client does not read.
pub(crate) struct Connection {
    stream: TcpStream,
    reader: Arc<Reader>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// The same, or an error if it would wait and the connection is cut.
    fn unless_cut<T>(&self, context: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.reader.poll_cut(context).is_ready() {
            return Poll::Ready(Err(io::Error::other("the client does not read its answers")));
        }
        polled
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Reader>;

    fn connect_info(&self) -> Arc<Reader> {
        Arc::clone(&self.reader)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        self.unless_cut(context, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_cut(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_cut(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Binds an address, which without TLS is on this machine only unless `insecure` says that anybody may connect.
pub(crate) fn bind(what: &str, address: &str, insecure: bool) -> Result<StdListener, Failure> {
    let listener = StdListener::bind(address).map_err(|error| {
        let (trouble, hint) = match error.kind() {
            io::ErrorKind::AddrInUse => {
                (Trouble::Address, "; stop the process that uses it, or choose another address")
            }
            io::ErrorKind::InvalidInput => (Trouble::Configuration, "; an address is host:port"),
            io::ErrorKind::AddrNotAvailable => {
                (Trouble::Address, "; it is not an address of this machine: --peer-listen and --client say where to listen, --cluster and \
                 --client-address what others are told")
            }
            io::ErrorKind::PermissionDenied => {
                (Trouble::Address, "; ports below 1024 need privileges: choose a higher one")
            }
            // What resolving a name says has no kind of its own.
            _ if address.parse::<SocketAddr>().is_err() => (
                Trouble::Address,
                "; if the host is a name, it must be one that this machine can resolve: check it, or give the address itself",
            ),
            _ => (Trouble::Address, ""),
        };
        Failure::new(trouble, format!("can't listen on {address} for {what}: {error}{hint}"))
    })?;
    let local = listener.local_addr().map_err(|error| Failure::new(Trouble::Address, error.to_string()))?;
    if !insecure && !local.ip().is_loopback() {
        return Err(Failure::new(
            Trouble::Configuration,
            format!(
                "{address} ({what}) can be reached from other machines, and connections are not encrypted; listen on \
                 127.0.0.1, or pass --insecure if the network is trusted"
            ),
        ));
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_this_machine_only_if_told_so() {
        let refused = bind("clients", "0.0.0.0:0", false).unwrap_err();
        assert_eq!(refused.trouble, Trouble::Configuration);
        assert!(refused.message.contains("--insecure"), "{refused}");
        assert!(bind("clients", "0.0.0.0:0", true).is_ok());
        let first = bind("clients", "127.0.0.1:0", false).unwrap();
        let again = bind("clients", &first.local_addr().unwrap().to_string(), false).unwrap_err();
        assert_eq!(again.trouble, Trouble::Address);
        // An address for documentation, which no machine has; a name too long to be asked for.
        let elsewhere = bind("clients", "192.0.2.1:0", true).unwrap_err();
        assert!(elsewhere.message.contains("not an address of this machine"), "{elsewhere}");
        let unknown = bind("clients", &format!("{}:0", "x".repeat(64)), true).unwrap_err();
        assert_eq!(unknown.trouble, Trouble::Address);
        assert!(unknown.message.contains("can resolve"), "{unknown}");
    }
}
