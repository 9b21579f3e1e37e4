//! Named points: rare branches that a rule of safety or liveness needs, counted, so that a run of the simulator can be asked
//! which of them it never came to.
//!
//! A rule is only as well tested as the moments in which it matters. `point!(Name)` stands where such a moment is; the list
//! below says in a sentence what happens there. What is never reached in a long run fails that run: either the generator is
//! too tame, or nothing can come there any more.
//!
//! Counts are kept for the calling thread only, as a simulation runs on one thread: [`take`] gives what was counted since the
//! last call. Nothing in the core reads them, so that no turn depends on them. They are in every build: to count costs about a
//! nanosecond, at places that are rare, and a Cargo feature would have the core built twice (the server must not change with
//! who else is built).
//!
//! *Left out*: what is no branch of the core (what a disk or a network did), and what no honest peer and no whole disk can
//! cause: each of those has a test that names it.

use std::cell::Cell;

/// Counts that a point of [`Point`] was reached; with a condition, if that holds.
macro_rules! point {
    ($name:ident) => {
        $crate::points::reached($crate::points::Point::$name)
    };
    ($name:ident if $condition:expr) => {
        if $condition {
            $crate::points::reached($crate::points::Point::$name);
        }
    };
}

macro_rules! points {
    ($($name:ident: $sentence:literal,)*) => {
        /// A place in the core that is worth coming to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $(#[doc = $sentence] $name,)*
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What happens there, for people.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$name => $sentence,)*
                }
            }
        }
    };
}

points! {
    // Reads.
    ReadWaitedForAsync: "a read waited for an async write that its leader had acknowledged above the index proven",
    ReadHeldUntilCommit: "a new leader held a read until it had committed an entry of its own term",
    ReadWaitedForARound: "a read waited because as many rounds as may be were under way",
    ReadAskedAgain: "a change of role or term swept a round away, and its reads were asked again",
    ReadProvenAskedAgain: "a read was proven and its index not yet applied when role or term changed: it was asked again",
    RoundOfThePastProven: "a round was answered to a replica that had been deposed since, or in an earlier start",
    RoundAskedAgain: "a round was not answered in time, and its replica asked again",
    ReadTookTooLongToProve: "a round took too long for a read of bounded age, which was asked again at the next tick",
    ProbeTookTooLong: "a follower's probe took too long for a read of bounded age, which was asked again at the next tick",
    ReadMovedToTheLeader: "a replica became leader while reads of bounded age waited at it",
    ReadMovedToAFollower: "a leader was deposed while reads of bounded age waited at it, and they went on",
    ProbeAskedAgain: "a follower's probe was not answered in time and was asked again",
    ProbeRefused: "a replica that does not lead was asked by a probe",
    ProbeAnsweredLate: "the answer to a probe came after the probe had been given up",
    ProbeInVain: "whom a follower took for the leader could prove no index",
    ProbeWaitedForApply: "a follower had to apply more before its probe's index proved the age of its state",
    ClockWentBack: "a node's clock stepped back between two turns",

    // Writes.
    AsyncWaitedForItsTerm: "an async write waited as sync: its leader had not applied an entry of its own term",
    AsyncWaitedForCommands: "an async write waited as sync: too many commands were undecided",
    AsyncWaitedForBytes: "an async write waited as sync: too many bytes were undecided",
    AsyncWaitedForAge: "an async write waited as sync: the oldest had been undecided for too long",
    AsyncWaitedForItsSession: "an async write waited as sync: its session is unknown or has heard of its sequence",
    AsyncWaitedForEviction: "an async write waited as sync: a session might be evicted before it is applied",
    AsyncWaitedForAFullSession: "an async write waited as sync: its session might have as many writes open as it may",
    AsyncWaitedForTwo: "an async write waited as sync: the same sequence was under way, or a floor above it",
    ProposedTooMuch: "a shard had so much undecided that a proposal was refused",
    CommandsCut: "the commands of one turn were cut into several entries",
    WriteWaitedForAHandOver: "a write waited for a hand-over of the leadership to end",
    WritesUnknown: "a leader was deposed with writes undecided, and called their outcome unknown",
    WriteExpiredInItsQueue: "a write's deadline passed before it was proposed",
    WriteExpiredUndecided: "a write's deadline passed while its entry was undecided",
    TokenLost: "an async write that was asked about was found lost",
    TokenWaited: "an async write was asked about before it was decided",

    // Sessions.
    SessionReplayed: "a write that was sent again was answered from its session",
    SessionReplayedConflict: "a write that was sent again was answered with the failed condition that was remembered",
    SessionUnknown: "a write came in a session that is not known",
    SessionFinished: "a write came below its session's floor",
    SessionFull: "a write came in a session with as many writes open as it may have",
    SessionShrunk: "a session's previous entries were forgotten to keep the bound of bytes",
    SessionEvicted: "the session used least recently was dropped to keep a bound",
    OutcomeCut: "an outcome was too large to be remembered with the previous entry",

    // The door.
    TooManyWaited: "a request was refused because too many waited for its shard",
    CameTooLate: "a request came when its deadline had passed",
    RequestWaitedTooLong: "a request was given back because it had waited too long for a turn",
    TurnCut: "more waited for a turn than one takes",
    ApplyCut: "more was decided than one turn applies",
    RefusedForDisk: "a write was refused because the disk is nearly full",
    RefusedForTables: "a write was refused because the node's tables are full",
    RefusedForLogFiles: "a write was refused because the node's log is past its bound",
    RefusedForLog: "a write was refused because the shard's log in memory is at its bound",
    RefusedUnconfirmed: "a write was refused because too much is decided and not confirmed by a mark",
    RefusedInDispute: "a request was refused because replicas hold different states and none has a majority",
    RefusedForLeaving: "a write was refused because the node hands its leaderships over",
    RefusedUnproven: "a request was refused because its leader's state was not proven yet",
    RefusedForEpoch: "a request was refused because its map was old",
    RefusedForArc: "a request was refused because its key lies elsewhere",

    // The client's router.
    OperationHeldBack: "a client held an operation back from an overloaded node",
    NodeTriedAgain: "a client tried a node again that had failed",
    SessionRenewed: "a client replaced a session that had expired, and sent its write again",
    UncertainWriteSentAgain: "a write of unknown outcome was sent again in its session",
    UncertainWriteGivenUp: "a write of unknown outcome without a session was given up",

    // The log in memory and on the disk.
    SuffixTruncated: "entries that conflict with the leader's were overwritten in the log in memory",
    ReadyWaitedForEarlier: "a Ready that needs no sync waited for one before it that does",
    RecordsCut: "records that were put in together were cut into several blocks",
    LogWrittenToShrink: "a log past its bound was written to, so that it could shrink",
    NodeHeldTooMuchLog: "a node held more log in memory than it may, and its largest shards gave some up",
    TermFromEntries: "a start took its term from entries: the block with the newer hard state had been lost",
    OverwroteAcrossSegments: "an entry overwrote others that stand in an earlier segment",
    RottenStampStands: "recovery took a block whose stamps had rotted, and whose checksums were right",
    TornBlockCut: "recovery cut a torn block from the end of the log",
    SegmentOpenedAtStart: "a crash fell between the end of a segment and the first block of the next",
    SegmentHalfMade: "recovery found a segment whose making had been cut short",
    SegmentRemoved: "a segment was given up while enough waited to be used",
    DamagedLogRefused: "a damaged log was refused at a start",

    // Leadership.
    LeaderHeardNoMajority: "a leader that heard of no majority stepped down",
    PreVoteRefused: "a replica that meant to campaign was refused a pre-vote",
    VoteRefused: "a candidate was refused a vote",
    LeaderUnproven: "a replica without a proven state was elected",
    OwnerCampaignedWhenProven: "the owner of a shard campaigned as soon as its state was proven, since nobody led",
    EarlyCampaignSpared: "an owner that would have campaigned without waiting left a candidacy under way to its end",
    FirstCampaignRepeated: "an owner that campaigned without waiting campaigned again because nobody led",
    OwnerUnfitAgain: "the ring's owner ceased to be fit before it was handed the leadership",
    HandOverLeaving: "a leader whose node stops, or whose log's disk is silent, began to hand over",
    HandOverDiskFull: "a leader with a full disk began to hand over",
    HandOverOnceMore: "a leader that was not fit began to hand over again, having got the leadership back",
    HandOverLogFull: "a leader whose log is past its bound began to hand over",
    HandOverUnproven: "a leader without a proven state began to hand over",
    HandOverToNobody: "a leader had to hand over and there was nobody fit to take it",
    HandOverToOwner: "a leader handed over to the ring's owner",
    HandOverDone: "a hand-over ended with another leader",
    HandOverGivenUp: "a hand-over ended with the old leader",

    // Replicas at rest.
    PulseWoken: "a replica at rest was woken",
    PulseWokenUnsent: "a replica at rest was woken in the turn in which it was to send a heartbeat, or to answer one",

    // Bounds.
    AppendWithoutEntries: "a follower at its log's bound took an append for one without entries",
    TablesFull: "a replica stopped applying until a checkpoint has taken a table over",

    // Checkpoints and what they allow to give up.
    CheckpointWaited: "a checkpoint was due while the one before was being written",
    CheckpointHadNoRoom: "a checkpoint was put off because the disk was full",
    CheckpointFailed: "a checkpoint could not be made of what the read index says",
    CheckpointOfALostState: "a checkpoint became durable after its state had been given up",
    LogKeptForASnapshot: "log was kept for a replica that is being sent a snapshot",
    LogKeptLongEnough: "log was no longer kept for a replica that took too long over its snapshot",
    LogPinned: "a shard gave up all log behind its checkpoint, to free the oldest segment",
    LogRelieved: "a node with too much log gave up even what a replica being sent a snapshot needs next",
    LoadHadItsTurn: "a load that checkpoints of other shards had overtaken had its turn",
    StateDistrusted: "a state that served could not be trusted any more, and was loaded again",
    LoadOvertaken: "a load ended after another had begun: only the last counts",
    StateLost: "a replica found no checkpoint of use, and waited for a peer's",
    OlderCheckpointTried: "a checkpoint was damaged, and an older one tried",
    BeganFromTheLogAlone: "no checkpoint was of use, and the log had all since the beginning",
    TreeWasBehind: "the read index was brought up by the deltas above its mark",
    TreeFailed: "the read index failed while a state was being loaded, or was found wrong",
    TreeRebuilt: "the read index did not say where it stands, and was made anew from the files",
    TreeLied: "the read index did not hold what the checkpoint does, and was made anew",
    ScrubPassed: "the scrub came to the end of a replica's files and tree",
    ScrubFoundDamage: "the scrub found a file or a record that is not what was written",
    DeltasMerged: "many deltas that nobody had confirmed became one",
    BaseMerged: "a base and its deltas were merged into a new base",
    MergeHadNoRoom: "a merge was given up because the disk was full",
    MergeFoundDamage: "a merge found a damaged file",
    MergeAbandoned: "a merge was given up because its replica is loaded anew",

    // Marks.
    MarkSkipped: "a replica was too busy for a mark, and skipped it",
    MarkOverdue: "a replica at its bounds made a checkpoint without waiting for a mark any longer",
    StateAgainstTheMajority: "a replica gave its state up because a majority holds another",
    StatesDisputed: "replicas hold different states and none has a majority: they answered no client",
    DisputeSettled: "a dispute about states ended",

    // Taking a checkpoint over.
    SnapshotNotYet: "a leader had no checkpoint new enough for a follower that needs one",
    OfferRefused: "an offer of a checkpoint was refused",
    OfferOfWhatIsHere: "a snapshot was offered to a replica that has all of it in its log",
    OfferWhileStaging: "a checkpoint was offered while the place for another was being made",
    OfferWhileInstalling: "a checkpoint was offered while another was being installed",
    StreamGoesOn: "a stream of the same files went on where another had stopped",
    StreamResumed: "a checkpoint was offered of which an earlier stream had left a part",
    StagingLeftTooLong: "what a stream had left was thrown away, since nobody went on with it",
    StagedFileTakenOver: "a file that a stream had left was part of another checkpoint that was offered",
    StreamReplaced: "an offer of other files took the place of a stream under way",
    StreamRefused: "a stream was not begun because of others under way",
    StreamForgotten: "a stream was dropped for a newer one to the same replica",
    StreamOfTheDeposed: "a stream ended because its sender no longer leads",
    StreamUnasked: "a stream ended because its receiver asked for nothing more",
    FileWasHere: "a receiver of a checkpoint had a file of it and copied that",
    FileHereWasRotten: "a receiver's own file of a checkpoint had rotted and was fetched",
    StagingFailed: "files from a peer could not be gathered, or were not what was offered",
    FileKeptForAnOffer: "files that were merged were kept because they are being sent",
    OfferedFileRotten: "a sender found that a file that it offers had rotted",
    PieceUnreadable: "a sender could not read a piece",
    PieceElsewhere: "a piece came that does not follow what was written",
    PieceAskedTwice: "a piece was asked for while another was being read",
    PieceOutOfTurn: "a piece came twice, or when another was expected",
    PieceAskedAgain: "a piece did not come and was asked for again",
    StreamStalled: "a stream was given up because nothing came",
    StreamTooLong: "a stream was given up because it took too long",
    SnapshotOvertaken: "a snapshot was staged, and the log had gone on without it meanwhile",
    InstallOverConflict: "a snapshot was installed over a log that conflicts with it at its index",
    InstallOverUndecided: "a snapshot was installed over entries that were not decided",
    InstallFinishedByLoad: "a load switched to the files of an install",
    StateTaken: "a replica without a readable checkpoint took a peer's over and went on with its own log",
    StateTooOldToGive: "a replica without a checkpoint asked for one that nobody has yet",
    StateTooNewToGive: "a replica without a checkpoint had less log than any checkpoint needs: its leader gave up log",
    TimeoutWhileInstalling: "an election timeout passed while a snapshot was being installed",
    TimeoutNowWhileInstalling: "a replica was told to campaign at once while it installed a snapshot",

    // Founding.
    BoundAnew: "a member was asked to bind to another incarnation, and drew a new one for itself",
    FoundedOtherwise: "a member gave way to another that was started with other settings",
    RecordNotAdopted: "a founding record was not adopted: it names another incarnation or comes from another",
    WipedMemberRefused: "a member whose disk was wiped was refused",
}

impl Point {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

thread_local! {
    static COUNTS: [Cell<u64>; Point::COUNT] = const { [const { Cell::new(0) }; Point::COUNT] };
}

/// How often each point was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts([u64; Point::COUNT]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Point::COUNT])
    }
}

impl Counts {
    /// How often this one was.
    #[must_use]
    pub fn of(&self, point: Point) -> u64 {
        self.0[point as usize]
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own += other;
        }
    }
}

/// Counts that a point was reached in this thread.
pub(crate) fn reached(point: Point) {
    COUNTS.with(|counts| {
        let count = &counts[point as usize];
        count.set(count.get() + 1);
    });
}

/// What was counted in this thread since the last call.
#[must_use = "what was counted is not counted again"]
pub fn take() -> Counts {
    COUNTS.with(|counts| Counts(std::array::from_fn(|at| counts[at].take())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_counted_anew() {
        let _before = take();
        point!(TornBlockCut);
        point!(TornBlockCut if 1 > 0);
        point!(TreeLied if 1 > 2);
        let mut counts = take();
        assert_eq!((counts.of(Point::TornBlockCut), counts.of(Point::TreeLied)), (2, 0));
        point!(TreeLied);
        counts.add(&take());
        assert_eq!((counts.of(Point::TornBlockCut), counts.of(Point::TreeLied)), (2, 1));
        assert_eq!(take(), Counts::default());
    }

    #[test]
    fn names_and_sentences_differ() {
        let mut told: Vec<_> = Point::ALL.iter().flat_map(|point| [point.name(), point.sentence()]).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 2 * Point::COUNT);
    }
}
