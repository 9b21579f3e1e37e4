//! What makes clients awkward: drawn from a stream of its own, for half of the seeds.

use fastrand::Rng;
use kv_core::{settings::Settings, state::sessions::SessionBounds};

use super::mix;

/// How clients differ from such that know the first map and wait patiently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clients {
    /// They begin with one address and no map, and ask for maps when they want one.
    pub one_endpoint: bool,
    /// They begin with a map of long ago: its rows have other owners.
    pub old_map: bool,
    /// Nodes push newer maps with their answers, as on the batch stream.
    pub pushes: bool,
    /// An answer that takes longer than this is not waited for, in microseconds; 0 for as long as the router says.
    pub answer_micros_max: u64,
    /// A request may be held back on the way for up to this long, in microseconds: later ones overtake it.
    pub held_micros_max: u64,
    /// Requests in a hundred that are not held back all the same.
    pub prompt_percent: u32,
    /// Writes in a hundred that begin a new session though the old one lives.
    pub churn_percent: u32,
}

impl Clients {
    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = Rng::with_seed(mix(seed, "awkward clients"));
        if rng.bool() {
            return Self::default();
        }
        Self {
            one_endpoint: rng.bool(),
            old_map: rng.bool(),
            pushes: rng.bool(),
            answer_micros_max: [0, 5_000, 30_000, 200_000][rng.usize(..4)],
            held_micros_max: [0, 20_000, 1_500_000][rng.usize(..3)],
            prompt_percent: 0,
            churn_percent: [0, 5, 30][rng.usize(..3)],
        }
    }
}

/// Small bounds on what shards remember of sessions, for a third of the seeds, and of one session, for a fifth: the same for all
/// nodes. How many writes a session may have open is also what a client has open in one, as in production.
pub(super) fn draw_session_bounds(seed: u64, mut settings: Settings) -> Settings {
    let mut sizes = Rng::with_seed(mix(seed, "session sizes"));
    if sizes.u32(..5) == 0 {
        let bounds = &mut settings.session_bounds;
        bounds.open_max = sizes.usize(2..=16);
        bounds.outcome_bytes_max = [40, 150, 1_000][sizes.usize(..3)];
    }
    let mut rng = Rng::with_seed(mix(seed, "session bounds"));
    if rng.u32(..3) > 0 {
        return settings;
    }
    let sessions_max = rng.usize(1..=8);
    let bytes_max = [300, 2_000, 64 * 1024][rng.usize(..3)];
    let session_bounds = SessionBounds { sessions_max, bytes_max, ..settings.session_bounds };
    Settings { session_bounds, ..settings }
}
