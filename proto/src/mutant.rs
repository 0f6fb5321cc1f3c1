//! Deliberate faults, one line each where they bite, that the simulator must find: a judge that finds none of them proves
//! nothing. Without the test-only feature `mutants` every question here is the constant `false` and costs nothing.
//! Belongs to no floor but the lowest, so that every pure room can ask; decides nothing in any build that serves.

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Cluster time is a textbook hybrid clock on wall clocks.
    WallClockHlc,
    /// Cluster time, once set, follows nobody.
    ClockFollowsNobody,
    /// Of two entries of one Call-ID the greater CSeq wins a merge.
    MergeByCseq,
    /// A removal does not remember its CSeq.
    RemovalWithoutCseq,
    /// No CSeq is compared.
    CseqIgnored,
    /// Each node forgets removals by its own timer.
    ForgetByLocalTimer,
    /// `Contact: *` removes what the accepting node knows.
    StarOfKnownOnly,
    /// An unregister of a contact never seen writes nothing.
    UnseenRemovalUnwritten,
    /// A contact that gains a `reg-id` is another one.
    TwinsApart,
    /// A retransmission is answered at once.
    RetransmissionWithoutAcks,
    /// A lost link releases the replies that waited for it.
    LostLinkReleases,
    /// A reply that goes without somebody who serves is called full.
    ShortCalledFull,
    /// A subscriber gets only what is published from then on.
    JoinerWithoutBacklog,
    /// A joiner serves before its exchange is finished.
    ReadyBeforeExchange,
    /// Removals are skipped when a disk is loaded.
    RemovalsSkippedAtLoad,
    /// A process that slept goes on as if nothing was.
    SleepUnnoticed,
    /// A node leaves without its last exchange.
    DrainWithoutExchange,
    /// A node writes the highest wire version that it knows, whoever reads it.
    VersionBeforeOffers,
    /// Members that are not there count for nothing in the choice of the wire version.
    AbsentOffersIgnored,
}

/// All of them, with their names on the command line.
pub const ALL: [(&str, Mutant); 19] = [
    ("wall-clock-hlc", Mutant::WallClockHlc),
    ("clock-follows-nobody", Mutant::ClockFollowsNobody),
    ("merge-by-cseq", Mutant::MergeByCseq),
    ("removal-without-cseq", Mutant::RemovalWithoutCseq),
    ("cseq-ignored", Mutant::CseqIgnored),
    ("forget-by-local-timer", Mutant::ForgetByLocalTimer),
    ("star-of-known-only", Mutant::StarOfKnownOnly),
    ("unseen-removal-unwritten", Mutant::UnseenRemovalUnwritten),
    ("twins-apart", Mutant::TwinsApart),
    ("retransmission-without-acks", Mutant::RetransmissionWithoutAcks),
    ("lost-link-releases", Mutant::LostLinkReleases),
    ("short-called-full", Mutant::ShortCalledFull),
    ("joiner-without-backlog", Mutant::JoinerWithoutBacklog),
    ("ready-before-exchange", Mutant::ReadyBeforeExchange),
    ("removals-skipped-at-load", Mutant::RemovalsSkippedAtLoad),
    ("sleep-unnoticed", Mutant::SleepUnnoticed),
    ("drain-without-exchange", Mutant::DrainWithoutExchange),
    ("version-before-offers", Mutant::VersionBeforeOffers),
    ("absent-offers-ignored", Mutant::AbsentOffersIgnored),
];

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

/// Puts a fault, or none, in force on this thread.
#[cfg(feature = "mutants")]
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}
