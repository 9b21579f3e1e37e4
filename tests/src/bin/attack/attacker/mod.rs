//! The attackers: as many connections as a kind says, each begun anew when the server ends it, until the standard input ends.
//!
//! Says `ready` once all have been begun, or after some seconds, and in the end what was done, as JSON ([`Tally`]).

mod calls;
mod floods;
mod frames;
mod holds;
mod http;

use std::{cell::Cell, io, net::SocketAddr, rc::Rc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    task::LocalSet,
    time::{sleep, timeout},
};

use crate::{
    kinds::{Attack, Kind, Port},
    options::Options,
};

/// How many connections are begun at a time: more than a listening socket queues would wait a second for their next try.
const CONNECTING_MAX: usize = 64;
/// How long one may take to begin.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// By then the attack counts as begun, whatever the server let in.
const READY_WAIT: Duration = Duration::from_secs(10);
/// Pause before a connection that was ended is begun anew: the CPU for new ones is the kernel's, and not what is tried.
const AGAIN_PAUSE: Duration = Duration::from_millis(20);

/// What attackers did.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Connections begun.
    pub(crate) opened: u64,
    /// Connections that could not be begun.
    pub(crate) refused: u64,
    /// Connections that the server ended.
    pub(crate) ended: u64,
    /// Most that were open at once.
    pub(crate) open_max: u64,
    /// Bytes sent.
    pub(crate) sent_bytes: u64,
}

/// What the tasks of a crowd share.
pub(super) struct Crowd {
    target: SocketAddr,
    tally: Cell<Tally>,
    open: Cell<u64>,
    connecting: Semaphore,
    port: Port,
}

impl Crowd {
    /// So many bytes were sent.
    fn sent(&self, bytes: usize) {
        self.count(|tally| tally.sent_bytes += bytes as u64);
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let _turn = self.connecting.acquire().await.map_err(io::Error::other)?;
        let stream = timeout(CONNECT_WAIT, TcpSocket::new_v4()?.connect(self.target)).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Attacks until the standard input ends.
///
/// # Errors
/// If there is no such kind or target.
pub(crate) async fn run(kind: &str, options: &Options) -> Result<(), String> {
    let kind = Kind::named(kind).ok_or_else(|| format!("there is no kind {kind}"))?;
    let target = options.target.parse().map_err(|error| format!("{}: {error}", options.target))?;
    nice(19).map_err(|error| error.to_string())?;
    raise_file_limit();
    let crowd = Rc::new(Crowd {
        target,
        tally: Cell::default(),
        open: Cell::new(0),
        connecting: Semaphore::new(CONNECTING_MAX),
        port: kind.port,
    });
    let tasks = LocalSet::new();
    for number in 0..kind.crowd {
        let crowd = Rc::clone(&crowd);
        let random = fastrand::Rng::with_seed(options.seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        tasks.spawn_local(one(crowd, kind.attack, number, random));
    }
    tasks
        .run_until(async {
            let all = async {
                while crowd.open.get() < kind.crowd as u64 {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            // A server may well let fewer in.
            let _begun = timeout(READY_WAIT, all).await;
            println!("ready");
            let end = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
            end.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        })
        .await?;
    println!("{}", serde_json::to_string(&crowd.tally.get()).map_err(|error| error.to_string())?);
    Ok(())
}

/// As many files as this process may have: root may have more than it was given.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(65_536);
    let more = Rlimit { current: wanted, maximum: wanted.max(limit.maximum) };
    if setrlimit(Resource::Nofile, more).is_err() {
        // What was reached is told: `open_max`.
        let _raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// One attacker: connection after connection.
async fn one(crowd: Rc<Crowd>, attack: Attack, number: usize, mut random: fastrand::Rng) {
    loop {
        match crowd.connect().await {
            Err(_) => crowd.count(|tally| tally.refused += 1),
            Ok(stream) => {
                crowd.open.set(crowd.open.get() + 1);
                let open = crowd.open.get();
                crowd.count(|tally| {
                    tally.opened += 1;
                    tally.open_max = tally.open_max.max(open);
                });
                // However it ended, the server ended it: attackers end when their process does.
                let _ended = attack_on(&crowd, attack, stream, number, &mut random).await;
                crowd.open.set(crowd.open.get() - 1);
                crowd.count(|tally| tally.ended += 1);
            }
        }
        sleep(AGAIN_PAUSE).await;
    }
}

async fn attack_on(
    crowd: &Crowd,
    attack: Attack,
    stream: TcpStream,
    number: usize,
    random: &mut fastrand::Rng,
) -> io::Result<()> {
    match (attack, crowd.port) {
        (Attack::Idle, Port::Http) => holds::silent(stream).await,
        (Attack::Idle, _) if number.is_multiple_of(2) => holds::silent(stream).await,
        (Attack::Idle, _) => holds::greeted(crowd, stream, &[]).await,
        (Attack::HalfOpen, _) => holds::half_open(crowd, stream).await,
        (Attack::Slow, Port::Http) => holds::byte_by_byte(crowd, stream, &http::slow_request()).await,
        (Attack::Slow, _) => holds::byte_by_byte(crowd, stream, &calls::slow_call(crowd.port)).await,
        (Attack::Streams, _) => holds::greeted(crowd, stream, &calls::open_streams(crowd.port)).await,
        (Attack::Unfinished, _) => calls::unfinished(crowd, stream).await,
        (Attack::BigMessages, _) => calls::big_messages(crowd, stream, number).await,
        (Attack::NeverReads, _) => calls::never_reads(crowd, stream).await,
        (Attack::BigHeaders, Port::Http) => floods::flood(crowd, stream, http::HEADERS_BEGIN, &http::headers()).await,
        (Attack::Scrapes, _) => http::scrapes(crowd, stream).await,
        (Attack::Garbage, port) => {
            let noise: Vec<u8> = (0..65_536).map(|_| random.u8(..)).collect();
            let begin = if number.is_multiple_of(2) || port == Port::Http { &[][..] } else { frames::PREFACE };
            floods::flood(crowd, stream, begin, &noise).await
        }
        (flood, _) => {
            let (begin, again) = floods::of(flood, crowd.port);
            floods::endless(crowd, stream, begin, again).await
        }
    }
}
