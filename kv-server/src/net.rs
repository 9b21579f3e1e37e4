//! Listening: connections are counted, their sockets set up, and accepting never ends by an error.
//!
//! A server that stops accepting because one accept failed is down for good, and one that accepts without bound runs out of
//! files. A full port makes room by the rules of `guests.rs`, for one newcomer after the other. tonic sets nodelay only on
//! sockets that it accepts itself, so it is set here: without it a single small message waits 40 ms.

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
    time::{Instant, sleep_until},
};
use tonic::transport::server::Connected;

use metrics::Counter;

use crate::{
    gate::Gate,
    guests::{Bounds, Guests, SWEEP_PAUSE},
    seldom::Seldom,
    stop::{Failure, Trouble},
    unread::{Reader, Unread},
};

/// How long a newcomer at a full port waits for one that was told to leave. Past it it is closed.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// The least time between two newcomers for whom room is made, so that those who were told to leave and come again at once cost
/// little. Meanwhile others wait in the kernel's queue.
const ROOM_PAUSE: Duration = Duration::from_millis(2);
/// Bytes that a connection reads before the others have their turn: else one that sends without a pause keeps the loop for
/// as long as its socket has more.
const TURN_BYTES: usize = 128 * 1024;
/// How long accepting pauses after an error, most likely because no file handle was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is counted of a port.
pub(crate) struct Counts {
    /// Newcomers that found it full.
    pub(crate) refused: Counter,
    /// Connections that never asked anything, or asked nothing when others came.
    pub(crate) left: Counter,
    /// Waits before a connection was read on.
    pub(crate) slowed: Counter,
}

/// A port that accepts up to a bound of connections.
pub(crate) struct Door {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    guests: Arc<Guests>,
    /// When the next newcomer may have room made.
    room: Instant,
    errors: Seldom,
    full: Seldom,
    unread: Arc<Unread>,
    counts: Counts,
    /// Whether HTTP/2 is spoken there, whose frames are counted.
    is_http2: bool,
}

impl Door {
    /// A door at a bound socket. Must be called inside a runtime.
    pub(crate) fn open(
        listener: StdListener,
        unread: &Arc<Unread>,
        bounds: Bounds,
        counts: Counts,
        is_http2: bool,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let permits = Arc::new(Semaphore::new(bounds.connections_max));
        let guests = Guests::new(bounds);
        // Ends with the door.
        let (swept, left) = (Arc::downgrade(&guests), counts.left.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_PAUSE).await;
                match swept.upgrade() {
                    Some(guests) => left.increment(guests.sweep(Instant::now()) as u64),
                    None => return,
                }
            }
        });
        let (errors, full) = (Seldom::default(), Seldom::default());
        let room = Instant::now();
        Ok(Self { listener, permits, guests, room, errors, full, unread: Arc::clone(unread), counts, is_http2 })
    }

    /// The next connection.
    pub(crate) async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    if let Some(connection) = self.admit(stream, from).await {
                        return (connection, from);
                    }
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

    /// Lets a newcomer in, if there is room or room can be made.
    async fn admit(&mut self, stream: TcpStream, from: SocketAddr) -> Option<Connection> {
        let Some(permit) = self.permit(from).await else {
            self.counts.refused.increment(1);
            if let Some(unsaid) = self.full.now() {
                tracing::warn!(%from, unsaid, "the port is full of connections that are in use: a newcomer is not let in");
            }
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %from, "nodelay can't be set on a connection");
            return None;
        }
        let reader = self.unread.reader(Some(from));
        self.guests.came(&reader);
        let gate = self.is_http2.then(|| Gate::new(Arc::clone(&reader), self.counts.slowed.clone()));
        Some(Connection { stream, reader, gate, turn_bytes: 0, _permit: permit })
    }

    async fn permit(&mut self, from: SocketAddr) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        sleep_until(self.room).await;
        self.room = Instant::now() + ROOM_PAUSE;
        let leaving = self.guests.make_room(from.ip());
        if leaving == 0 {
            return None;
        }
        self.counts.left.increment(leaving as u64);
        let permit = Arc::clone(&self.permits).acquire_owned();
        tokio::time::timeout(ROOM_WAIT, permit).await.ok()?.ok()
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

/// An accepted connection, which counts until it is dropped. It breaks if it is cut: for what its client does not read, or for others.
pub(crate) struct Connection {
    stream: TcpStream,
    reader: Arc<Reader>,
    gate: Option<Gate>,
    /// Bytes read since it last gave others their turn.
    turn_bytes: usize,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// What was sent pays for frames that are of no use by themselves.
    fn pays(&mut self, written: &Poll<io::Result<usize>>) {
        if let (Some(gate), Poll::Ready(Ok(bytes))) = (&mut self.gate, written) {
            gate.sent(*bytes);
        }
    }

    /// The same, or an error if it would wait and the connection is cut.
    fn unless_cut<T>(&self, context: &Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.reader.poll_cut(context).is_ready() {
            return Poll::Ready(Err(io::Error::other("the connection has to leave")));
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
        let connection = &mut *self;
        if let Some(gate) = &mut connection.gate
            && gate.poll_ready(context).is_pending()
        {
            return self.unless_cut(context, Poll::Pending);
        }
        if connection.turn_bytes >= TURN_BYTES {
            connection.turn_bytes = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut connection.stream).poll_read(context, into);
        connection.turn_bytes =
            if read.is_pending() { 0 } else { connection.turn_bytes + into.filled().len() - before };
        if let Some(gate) = &mut connection.gate {
            gate.read(&into.filled()[before..]);
        }
        self.unless_cut(context, read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.pays(&written);
        self.unless_cut(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.pays(&written);
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
