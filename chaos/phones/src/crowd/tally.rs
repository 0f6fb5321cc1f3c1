//! What a crowd has done and seen so far: a snapshot, cheap enough to be taken every 250 ms. Judges nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::stats::{Counted, Latency};

/// What was done to a phone's binding, or asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// First REGISTER, or the first after a removal or a lapse.
    Register,
    /// The same again, with a higher CSeq.
    Refresh,
    /// Another port.
    Move,
    /// `expires=0`.
    Unregister,
    /// `Contact: *`.
    Clear,
    /// A new Call-ID.
    Reboot,
    /// From now on with a `reg-id`.
    GainRegId,
    /// The same request again, at another node.
    Again,
    /// An INVITE.
    Call,
}

impl Deed {
    /// All of them.
    pub const ALL: [Deed; 9] = [
        Deed::Register,
        Deed::Refresh,
        Deed::Move,
        Deed::Unregister,
        Deed::Clear,
        Deed::Reboot,
        Deed::GainRegId,
        Deed::Again,
        Deed::Call,
    ];

    /// For reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Deed::Register => "register",
            Deed::Refresh => "refresh",
            Deed::Move => "move",
            Deed::Unregister => "unregister",
            Deed::Clear => "clear",
            Deed::Reboot => "reboot",
            Deed::GainRegId => "gain reg-id",
            Deed::Again => "again",
            Deed::Call => "call",
        }
    }
}

/// The last 200 that a phone was given, which is why somebody must answer for it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// For what.
    pub deed: Deed,
    /// When it came, since the crowd was made.
    pub at: Duration,
    /// Who gave it.
    pub by: SocketAddr,
    /// With all acks. Without an `Aorta-Acks` header: taken for full.
    pub full: bool,
}

/// A node said what it must not, given what the phone was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When, since the crowd was made.
    pub at: Duration,
    /// About whom, in key form (user @ domain).
    pub aor: String,
    /// Which phone, by number; that of the AoR's first phone when it is not known.
    pub phone: usize,
    /// Who said it.
    pub node: SocketAddr,
    /// What the phone was told last; `None` = nothing at all, ever.
    pub told: Option<Told>,
    /// What was expected, and what was said.
    pub what: String,
}

/// Looks at contacts that nobody refreshes, around the end of their time by the phones' own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lapses {
    /// Looks a moment before the end.
    pub before: u64,
    /// Of these, contacts that were not served any more; each is in [`Tally::lost`] too.
    pub early: u64,
    /// Looks a second after the end.
    pub after: u64,
    /// Of these, contacts that were still served; each is in [`Tally::ghosts`] too.
    pub late: u64,
}

impl Lapses {
    /// Adds others.
    pub fn merge(&mut self, other: Lapses) {
        self.before += other.before;
        self.early += other.early;
        self.after += other.after;
        self.late += other.late;
    }
}

/// Counts since the crowd was made. Two of them subtract field by field; [`Latency::since`] does it for latencies.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// When it was taken, since the crowd was made.
    pub at: Duration,
    /// Requests begun, by deed.
    pub begun: BTreeMap<Deed, u64>,
    /// REGISTERs answered 200 with all acks (or by a node that does not say).
    pub full: u64,
    /// REGISTERs answered 200 before all acks were there.
    pub short: u64,
    /// 200s by a node that said that its set of peers was partial, full or short.
    pub partial: u64,
    /// REGISTERs answered with something else in the end, by status.
    pub refused: BTreeMap<u16, u64>,
    /// REGISTERs without any answer in the end.
    pub timeouts: u64,
    /// Times a request was given to another node after a timeout or a 5xx.
    pub failovers: u64,
    /// Datagrams sent again.
    pub retransmitted: u64,
    /// Requests that were due and not made: every place of the window or every phone was waiting for an answer.
    pub not_made: u64,
    /// Calls tried, those to nobody included.
    pub calls: u64,
    /// Calls that ended as they must: the right contact answered, or nobody was there to answer.
    pub calls_completed: u64,
    /// Calls that did not, by reason; those counted in `lost` and `ghosts` too.
    pub calls_failed: BTreeMap<String, u64>,
    /// A binding whose 200 was full was denied: a 404, or its contact missing.
    pub lost: Counted<Observation>,
    /// The same, after a short 200.
    pub lost_after_short: Counted<Observation>,
    /// A contact was served that a full 200 had removed, or that lapsed more than a second ago.
    pub ghosts: Counted<Observation>,
    /// The same, after a short 200.
    pub ghosts_after_short: Counted<Observation>,
    /// Anything else that no registrar may say: unknown contacts, altered parameters, a 4xx to a REGISTER.
    pub wrong: Counted<Observation>,
    /// What became of contacts at the end of their time.
    pub lapses: Lapses,
    /// From the due time of a REGISTER to its 200.
    pub latency: Latency,
    /// From the due time of a call to the callee's 200.
    pub setup: Latency,
    /// Phones that are surely registered, as counted at most 250 ms ago.
    pub bound: u64,
    /// Phones of which it is not known.
    pub unsure: u64,
    /// Phones that still have to send their REGISTER of a storm.
    pub storming: u64,
}

impl Tally {
    /// REGISTERs begun, whatever for.
    #[must_use]
    pub fn registers(&self) -> u64 {
        self.begun.iter().filter(|(deed, _)| **deed != Deed::Call).map(|(_, n)| n).sum()
    }

    /// Adds the part of another socket.
    pub fn merge(&mut self, other: &Tally) {
        self.at = self.at.max(other.at);
        for (deed, n) in &other.begun {
            *self.begun.entry(*deed).or_default() += n;
        }
        for (status, n) in &other.refused {
            *self.refused.entry(*status).or_default() += n;
        }
        for (reason, n) in &other.calls_failed {
            *self.calls_failed.entry(reason.clone()).or_default() += n;
        }
        self.full += other.full;
        self.short += other.short;
        self.partial += other.partial;
        self.timeouts += other.timeouts;
        self.failovers += other.failovers;
        self.retransmitted += other.retransmitted;
        self.not_made += other.not_made;
        self.calls += other.calls;
        self.calls_completed += other.calls_completed;
        self.lost.merge(other.lost.clone());
        self.lost_after_short.merge(other.lost_after_short.clone());
        self.ghosts.merge(other.ghosts.clone());
        self.ghosts_after_short.merge(other.ghosts_after_short.clone());
        self.wrong.merge(other.wrong.clone());
        self.lapses.merge(other.lapses);
        self.latency.merge(&other.latency);
        self.setup.merge(&other.setup);
        self.bound += other.bound;
        self.unsure += other.unsure;
        self.storming += other.storming;
    }
}
