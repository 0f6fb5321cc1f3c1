//! Deliberate faults, one line each where they bite, that the simulator must find: a judge that finds none of them proves
//! nothing. Without the test-only feature `mutants` every question here is the constant `false` and costs nothing.
//!
//! No mutant is what a second rule makes harmless, for no judge can see it: what an ack, a Mark or the trust in a suspect
//! says of an epoch that is over (true all the same: the process is the same one, and goes on where it was), and a gap
//! between two links (nobody acks what it lacks, so nobody is sent what lies beyond; `nothing-sent-again` breaks that), a
//! good-bye that is not heard on its link (gossip says the same a moment later), and a joiner that serves before others have
//! subscribed with it (on each link a Subscribe comes before the Mark that it waits for).
//!
//! Belongs to no floor but the lowest, so that every pure room can ask; decides nothing in any build that serves.

/// The faults, and the same as a table.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// One fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        /// All of them, with their names on the command line.
        pub const ALL: &[(&str, Mutant)] = &[$(($text, Mutant::$name)),+];
    };
}

mutants! {
    /// Cluster time is a textbook hybrid clock on wall clocks.
    WallClockHlc = "wall-clock-hlc",
    /// A contact lapses by the wall clock of whoever looks.
    LapseByWallClock = "lapse-by-wall-clock",
    /// Cluster time, once set, follows nobody.
    ClockFollowsNobody = "clock-follows-nobody",
    /// It follows those who say what time it is, not the stamps that it takes.
    StampsMoveNoClock = "stamps-move-no-clock",
    /// A start from disks may use a time again that was used before.
    ColdStartBelowCeiling = "cold-start-below-ceiling",
    /// Of two entries of one Call-ID the greater CSeq wins a merge.
    MergeByCseq = "merge-by-cseq",
    /// `Contact: *` removes what was registered after it as well, where that is known already.
    StarBuriesLater = "star-buries-later",
    /// A lapse is counted from the first registration.
    LapseFromFirst = "lapse-from-first",
    /// Of an instance key and a URI key with one URI both are shown.
    TwinsBothShown = "twins-both-shown",
    /// The winners of the contact limit are those refreshed longest ago.
    LimitByLastRefresh = "limit-by-last-refresh",
    /// A contact beyond the limit is accepted, and hidden.
    HiddenAccepted = "hidden-accepted",
    /// Who else competes for the places of an AoR is not published with a change.
    RivalsUnpublished = "rivals-unpublished",
    /// A refresh changes nothing but how long a contact lives.
    RefreshKeepsValue = "refresh-keeps-value",
    /// A contact rings for a while after it lapsed.
    LapsedRings = "lapsed-rings",
    /// Each node forgets removals by its own timer.
    ForgetByLocalTimer = "forget-by-local-timer",
    /// A removal is forgotten when the binding that it removed would have lapsed.
    RemovalLastsAsItsBinding = "removal-lasts-as-its-binding",
    /// What is below the forgetting floor is taken all the same, and nodes that compare agree on none.
    FloorLetsIn = "floor-lets-in",
    /// The floor follows the node's own longest lifetime, not the cluster's.
    HorizonOfItsOwn = "horizon-of-its-own",
    /// How long what was merged may live does not count, only what members grant now.
    MergedLifetimesIgnored = "merged-lifetimes-ignored",
    /// Entries are remembered for less than the longest lifetime.
    ForgetsLiving = "forgets-living",
    /// The lifetimes of a member that was silent for longer than they last count no longer, though it did not part.
    SilentLifetimesForgotten = "silent-lifetimes-forgotten",
    /// The digest does not count stamps.
    DigestWithoutStamps = "digest-without-stamps",
    /// The digest does not count `cleared`.
    DigestWithoutCleared = "digest-without-cleared",
    /// A removal does not remember its CSeq.
    RemovalWithoutCseq = "removal-without-cseq",
    /// What lapsed or was cleared does not remember its CSeq.
    BuriedWithoutCseq = "buried-without-cseq",
    /// No CSeq is compared.
    CseqIgnored = "cseq-ignored",
    /// `Contact: *` removes what the accepting node knows.
    StarOfKnownOnly = "star-of-known-only",
    /// `Contact: *` does not look at CSeq.
    StarWithoutCseq = "star-without-cseq",
    /// CSeq is not compared with that of the last `Contact: *`.
    ClearedWithoutCseq = "cleared-without-cseq",
    /// An unregister of a contact never seen writes nothing.
    UnseenRemovalUnwritten = "unseen-removal-unwritten",
    /// What a write removes beside what it adds is not published.
    SupersededUnpublished = "superseded-unpublished",
    /// `Contact: *` is not published.
    ClearedUnpublished = "cleared-unpublished",
    /// A contact that gains a `reg-id` is another one.
    TwinsApart = "twins-apart",
    /// What a contact hid under its former URI rings again when it moves.
    HiddenRingsAgain = "hidden-rings-again",
    /// A flow leaves its trail only where it moves from.
    TrailOnlyWhenLeft = "trail-only-when-left",
    /// A retransmission is answered at once.
    RetransmissionWithoutAcks = "retransmission-without-acks",
    /// A retransmission draws a new stamp.
    RetransmissionDrawsAnew = "retransmission-draws-anew",
    /// A request is judged at one moment and written at another.
    CheckThenWrite = "check-then-write",
    /// Requests are served however long they waited in the socket.
    OldDatagramsServed = "old-datagrams-served",
    /// A removal that no phone asked for has a fresh stamp.
    MachineRemovalFresh = "machine-removal-fresh",
    /// One ack is as good as all.
    OneAckSuffices = "one-ack-suffices",
    /// A node that does not serve is not waited for.
    JoinerUnawaited = "joiner-unawaited",
    /// A disk has what is about to be written.
    SavedBeforeCommit = "saved-before-commit",
    /// A change counts as acked once it is sent.
    AckedWhenSent = "acked-when-sent",
    /// An ack counts for the change after it as well.
    AckCountsNext = "ack-counts-next",
    /// A lost link releases the replies that waited for it.
    LostLinkReleases = "lost-link-releases",
    /// A reply that goes without somebody who serves is called full.
    ShortCalledFull = "short-called-full",
    /// A reply that waited for a peer which became suspect is called full.
    SuspectShortensNothing = "suspect-shortens-nothing",
    /// What waited at a node when it ceased to serve is called full.
    FencedCalledFull = "fenced-called-full",
    /// A reply that nobody is there to ack is called full.
    EmptyAckSetIsFull = "empty-ack-set-is-full",
    /// A node that begins to serve does not count with another that may begin to before it hears so.
    TwoBeginUnawaited = "two-begin-unawaited",
    /// A suspect is not told.
    SuspectUntold = "suspect-untold",
    /// A suspect that is told does not care.
    SuspectUnmoved = "suspect-unmoved",
    /// It gives way to whoever says so and serves, as far as its link says.
    GivesWayToAnybody = "gives-way-to-anybody",
    /// Changes that a peer lost with its place in the outbox are not missed.
    OverflowUnnoticed = "overflow-unnoticed",
    /// What a broken link swallowed is not sent again.
    NothingSentAgain = "nothing-sent-again",
    /// What is sent again begins one change too late.
    SentAgainFromNext = "sent-again-from-next",
    /// The outbox drops one change that somebody lacks.
    TrimmedTooFar = "trimmed-too-far",
    /// A subscriber gets only what is published from then on.
    JoinerWithoutBacklog = "joiner-without-backlog",
    /// The Mark comes before the changes that it stands for.
    MarkBeforeBacklog = "mark-before-backlog",
    /// A joiner serves before its exchange is finished.
    ReadyBeforeExchange = "ready-before-exchange",
    /// A joiner serves with an exchange from a time in which it did not hear somebody who served.
    ReadyOnOldExchange = "ready-on-old-exchange",
    /// A joiner waits for no Mark.
    ReadyWithoutMark = "ready-without-mark",
    /// A joiner exchanges with a node that is out of sync itself.
    DonorOutOfSync = "donor-out-of-sync",
    /// What a donor knows to be missing is not missing at the joiner.
    PartialNotPassedOn = "partial-not-passed-on",
    /// A joiner serves though it is not linked with all who serve.
    ReadyWithoutLinks = "ready-without-links",
    /// A node that starts over keeps its epoch.
    RejoinInOldEpoch = "rejoin-in-old-epoch",
    /// A cluster that starts without some members denies what it does not know.
    ColdStartDenies = "cold-start-denies",
    /// Whoever starts the cluster goes by its own disk.
    ColdStartGathersNothing = "cold-start-gathers-nothing",
    /// A node that lost most members denies what it does not know.
    NothingDoubted = "nothing-doubted",
    /// It goes on when it meets them again.
    CutOffGoesOn = "cut-off-goes-on",
    /// A node writes the highest wire version that it knows, whoever reads it.
    VersionBeforeOffers = "version-before-offers",
    /// Members that are not there count for nothing in the choice of the wire version.
    AbsentOffersIgnored = "absent-offers-ignored",
    /// An exchange brings nothing to the side that answers.
    RepairOneWay = "repair-one-way",
    /// It brings nothing to the side that asks.
    DonorGivesNothing = "donor-gives-nothing",
    /// Of the last bucket that is asked for a donor gives nothing.
    DonorStopsEarly = "donor-stops-early",
    /// The list of a bucket misses its last line.
    ListMissesOne = "list-misses-one",
    /// A peer that is met again is not compared with.
    MeetingWithoutRepair = "meeting-without-repair",
    /// A node leaves without its last exchange.
    DrainWithoutExchange = "drain-without-exchange",
    /// Removals are skipped when a disk is loaded.
    RemovalsSkippedAtLoad = "removals-skipped-at-load",
    /// Removals forget their Call-ID and CSeq when a disk is loaded.
    CseqLostAtLoad = "cseq-lost-at-load",
    /// Lapsed entries are skipped when a disk is loaded.
    LapsedSkippedAtLoad = "lapsed-skipped-at-load",
    /// What other nodes accepted is not written to disk.
    ForeignUnwritten = "foreign-unwritten",
    /// A process that slept goes on as if nothing was.
    SleepUnnoticed = "sleep-unnoticed",
    /// The only one that served goes on after a sleep, whatever those did meanwhile that had been joining.
    OldStatesTrusted = "old-states-trusted",
    /// What gossip showed before a sleep is taken for what is.
    OldViewTrusted = "old-view-trusted",
}

#[cfg(feature = "mutants")]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether this fault is in force on this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is(mutant: Mutant) -> bool {
    CHOSEN.get() == Some(mutant)
}

/// Never.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is(_mutant: Mutant) -> bool {
    false
}

/// Whether any fault is in force on this thread.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_any() -> bool {
    CHOSEN.get().is_some()
}

/// Never.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline(always)]
pub const fn is_any() -> bool {
    false
}

/// Puts a fault, or none, in force on this thread.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}
