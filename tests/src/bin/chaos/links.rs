//! Proxies between nodes: each node's connections to each other go through one of its own, which can hold bytes back, delay them, or
//! cut the connection.
//!
//! They stand in the dialling node's network namespace, if there is one, so that packets between namespaces carry the addresses of
//! their nodes, and rules that drop them hit proxied connections too. Bytes that are held stay in order: this is TCP, and
//! *can't produce* a message that overtakes, doubles or is damaged.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{SocketAddr, TcpListener, TcpStream as StdStream},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    time::sleep,
};

/// Bytes that are passed on at a time, and so most that a link holds in each direction besides the sockets' buffers.
const PIECE_BYTES: usize = 32 * 1024;
/// How long a proxy tries to reach the node that it stands for.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// Connections that wait to be carried; more are closed.
const WAITING_MAX: usize = 64;

/// What a link does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Bytes of the one who dialled wait while this is not 0: so many want it.
    pub(crate) holds_forth: u32,
    /// The same for bytes of the one who was dialled.
    pub(crate) holds_back: u32,
    /// How long each piece waits before it goes on.
    pub(crate) delay: Duration,
    /// Connections that were made under a smaller number end.
    pub(crate) cuts: u64,
}

/// All links, by who dials and who is dialled.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: BTreeMap<(usize, usize), watch::Sender<Link>>,
    touched: Arc<AtomicU64>,
}

impl Links {
    /// Adds a link: listens where `from` will dial, and connects to where `to` listens. Must be called in a runtime.
    pub(crate) fn add(
        &mut self,
        (from, to): (usize, usize),
        listen: SocketAddr,
        target: SocketAddr,
        namespace: Option<String>,
    ) -> Result<SocketAddr, String> {
        let (link, seen) = watch::channel(Link::default());
        let (accepted, mut carried) = mpsc::channel(WAITING_MAX);
        let (bound, is_bound) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let listener = enter(namespace.as_deref()).and_then(|()| TcpListener::bind(listen));
            let address = listener
                .as_ref()
                .map_err(|error| error.to_string())
                .and_then(|listener| listener.local_addr().map_err(|error| error.to_string()));
            // Whoever asked waits for this.
            let _asked = bound.send(address);
            if let Ok(listener) = listener {
                accept_all(&listener, target, &accepted);
            }
        });
        let address = is_bound.recv().map_err(|error| error.to_string())??;
        let touched = Arc::clone(&self.touched);
        tokio::spawn(async move {
            while let Some((near, far)) = carried.recv().await {
                tokio::spawn(carry(near, far, seen.clone(), Arc::clone(&touched)));
            }
        });
        self.links.insert((from, to), link);
        Ok(address)
    }

    /// How often anything was held back, delayed or cut so far: a fault that leaves this as it was did nothing.
    pub(crate) fn touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }

    /// Holds back all bytes that go from a node to another, on the connections of both.
    pub(crate) fn block(&self, from: usize, to: usize) {
        self.change((from, to), |link| link.holds_forth += 1);
        self.change((to, from), |link| link.holds_back += 1);
    }

    /// Takes one such order back.
    pub(crate) fn unblock(&self, from: usize, to: usize) {
        self.change((from, to), |link| link.holds_forth = link.holds_forth.saturating_sub(1));
        self.change((to, from), |link| link.holds_back = link.holds_back.saturating_sub(1));
    }

    /// Changes what the link does by which `from` dials `to`.
    pub(crate) fn change(&self, (from, to): (usize, usize), change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.links.get(&(from, to)) {
            link.send_modify(change);
        }
    }
}

/// Moves this thread into a network namespace: sockets that it makes belong there, whoever uses them.
fn enter(namespace: Option<&str>) -> io::Result<()> {
    let Some(namespace) = namespace else { return Ok(()) };
    let file = File::open(namespace)?;
    let kind = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(kind)).map_err(io::Error::from)
}

fn accept_all(listener: &TcpListener, target: SocketAddr, accepted: &mpsc::Sender<(StdStream, StdStream)>) {
    for near in listener.incoming().flatten() {
        // If the node can't be reached, dropping the connection says so.
        let Ok(far) = StdStream::connect_timeout(&target, CONNECT_WAIT) else { continue };
        // Small messages wait for nobody; a connection without this works too.
        let _quick = (near.set_nodelay(true), far.set_nodelay(true));
        if accepted.blocking_send((near, far)).is_err() {
            return;
        }
    }
}

/// Carries a connection until either end closes it or it is cut.
async fn carry(near: StdStream, far: StdStream, seen: watch::Receiver<Link>, touched: Arc<AtomicU64>) {
    let cuts = seen.borrow().cuts;
    let asynchronous = |stream: StdStream| {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    };
    let (Ok(near), Ok(far)) = (asynchronous(near), asynchronous(far)) else { return };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut cut = seen.clone();
    let forth = pass(near_read, far_write, seen.clone(), &touched, |link| link.holds_forth > 0);
    let back = pass(far_read, near_write, seen, &touched, |link| link.holds_back > 0);
    tokio::select! {
        _ = forth => {}
        _ = back => {}
        _ = cut.wait_for(|link| link.cuts > cuts) => {
            touched.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut seen: watch::Receiver<Link>,
    touched: &AtomicU64,
    holds: impl Fn(&Link) -> bool,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        if holds(&seen.borrow()) {
            touched.fetch_add(1, Ordering::Relaxed);
        }
        let link = match seen.wait_for(|link| !holds(link)).await {
            Ok(link) => *link,
            Err(_) => return Ok(()),
        };
        if link.delay > Duration::ZERO {
            touched.fetch_add(1, Ordering::Relaxed);
            sleep(link.delay).await;
        }
        to.write_all(&piece[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_link_does_to_its_bytes_is_counted() {
        let node = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut links = Links::default();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxy = links.add((1, 2), listen, node.local_addr().unwrap(), None).unwrap();
        let mut near = TcpStream::connect(proxy).await.unwrap();
        let (mut far, _) = node.accept().await.unwrap();
        let mut byte = [0];
        near.write_all(b"a").await.unwrap();
        far.read_exact(&mut byte).await.unwrap();
        assert_eq!((byte, links.touched()), (*b"a", 0));

        links.block(1, 2);
        near.write_all(b"b").await.unwrap();
        while links.touched() == 0 {
            tokio::task::yield_now().await;
        }
        far.write_all(b"c").await.unwrap();
        near.read_exact(&mut byte).await.unwrap();
        assert_eq!((byte, links.touched()), (*b"c", 1), "the other direction goes on");
        links.unblock(1, 2);
        far.read_exact(&mut byte).await.unwrap();
        assert_eq!((byte, links.touched()), (*b"b", 1));

        links.change((1, 2), |link| link.cuts += 1);
        assert_eq!(far.read(&mut byte).await.unwrap(), 0, "it is closed");
        while links.touched() == 1 {
            tokio::task::yield_now().await;
        }
    }
}
