//! What this node keeps about one other: its link, its place in the outbox, what was received from it. State only; who
//! acts on it is in the other files.

use std::collections::BTreeSet;

use aorta_proto::frame::{Hello, RejoinReason, State};
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{BootId, NodeId};

use super::commit::OnDisk;

/// One other node, from its first Hello until it parts.
#[derive(Debug)]
pub(super) struct Peer {
    /// The process behind the link, or behind the last one.
    pub(super) boot: BootId,
    /// The highest wire version that it reads.
    pub(super) wire_version_max: u8,
    /// The last it said about itself.
    pub(super) state: State,
    /// The [`aorta_proto::frame::Class::Live`] connection.
    pub(super) link: Option<Link>,
    /// The [`aorta_proto::frame::Class::Bulk`] connection is up.
    pub(super) bulk: bool,
    /// Its place in the outbox, from its first `Subscribe`.
    pub(super) subscriber: Option<Subscriber>,
    /// What came from it.
    pub(super) intake: Intake,
    /// A newcomer claims its name.
    pub(super) probe: Option<Probe>,
    /// What its disk said the time is (µs), and when it said so (monotonic µs).
    pub(super) clock_guess_us: Option<(u64, u64)>,
    /// Cluster time it may have used before, µs.
    pub(super) clock_ceiling_us: Option<u64>,
    /// Monotonic time of the last frame from it, µs.
    pub(super) heard_us: u64,
    /// When its link came up, or the last one did, monotonic µs.
    pub(super) linked_us: u64,
    /// How long its last changes took from publication there to this table, µs.
    pub(super) lag_us: Option<u64>,
    /// Its cluster time minus this node's when its last frame came, µs.
    pub(super) cluster_time_offset_us: Option<i64>,
}

impl Peer {
    pub(super) fn new(hello: Hello, now_us: u64) -> Self {
        Self {
            boot: hello.boot,
            wire_version_max: hello.version_max,
            state: hello.state,
            link: None,
            bulk: false,
            subscriber: None,
            intake: Intake::default(),
            probe: None,
            clock_guess_us: hello.clock_guess_us.map(|guess_us| (guess_us, now_us)),
            clock_ceiling_us: hello.clock_ceiling_us,
            heard_us: now_us,
            linked_us: now_us,
            lag_us: None,
            cluster_time_offset_us: None,
        }
    }

    /// Whether the link's writer has something to fetch.
    pub(super) fn has_due(&self, head: u64, of_disks: bool) -> bool {
        let Some(link) = &self.link else { return false };
        let changes = |place: &Subscriber| !place.overtaken && place.sent < head;
        link.has_due()
            || (of_disks && link.has_disks_due())
            || (link.subscribed && self.subscriber.as_ref().is_some_and(changes))
    }
}

/// One Live connection. What is due is kept as flags, not as a queue: it cannot grow, and only the latest matters.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) last_sent_us: u64,
    /// The writer was told to fetch and has not yet come back empty-handed.
    pub(super) awake: bool,
    /// The other side's Subscribe came on this link: only from then on changes are sent on it.
    pub(super) subscribed: bool,
    pub(super) subscribe_due: bool,
    pub(super) state_due: bool,
    pub(super) backlog_due: Option<u64>,
    pub(super) ack_due: bool,
    /// The other side is to be asked to tell what its disk has.
    pub(super) ask_saved_due: bool,
    /// The other side asked so.
    pub(super) saved_asked: bool,
    /// It is to be told.
    pub(super) saved_due: bool,
    pub(super) rejoin_due: Option<(u64, RejoinReason)>,
    pub(super) ping_due: Option<u64>,
    pub(super) pong_due: Option<u64>,
    pub(super) forget_due: BTreeSet<NodeId>,
    pub(super) bye_due: bool,
}

impl Link {
    /// A fresh connection: it subscribes and says what this node is, before anything else.
    pub(super) fn new(now_us: u64) -> Self {
        Self {
            last_sent_us: now_us,
            awake: false,
            subscribed: false,
            subscribe_due: true,
            state_due: true,
            backlog_due: None,
            ack_due: false,
            ask_saved_due: false,
            saved_asked: false,
            saved_due: false,
            rejoin_due: None,
            ping_due: None,
            pong_due: None,
            forget_due: BTreeSet::new(),
            bye_due: false,
        }
    }

    /// Whether something is to be asked or told about disks.
    pub(super) fn has_disks_due(&self) -> bool {
        self.ask_saved_due || self.saved_due
    }

    fn has_due(&self) -> bool {
        self.subscribe_due
            || self.state_due
            || self.ack_due
            || self.bye_due
            || self.backlog_due.is_some()
            || self.rejoin_due.is_some()
            || self.ping_due.is_some()
            || self.pong_due.is_some()
            || !self.forget_due.is_empty()
    }
}

/// A peer's place in the outbox.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// Its epoch; acks of another one do not count.
    pub(super) epoch: u64,
    /// Last change sent on the present link.
    pub(super) sent: u64,
    /// Last change acked.
    pub(super) acked: u64,
    /// Replies of changes up to here do not wait for it: it was not in the ack set when they were published.
    pub(super) awaited_from: u64,
    /// What its disk has; followed only while replies wait for disks.
    pub(super) disk: OnDisk,
    /// In the ack set; otherwise suspect.
    pub(super) awaited: bool,
    /// When it became one, monotonic µs.
    pub(super) suspected_us: u64,
    /// It is told that it is suspect. A node that is itself not in sync accuses nobody: it may be the one that slept.
    pub(super) accused: bool,
    /// A suspect is trusted again once it acked this.
    pub(super) trusted_at: u64,
    /// Changes it lacks are no longer kept.
    pub(super) overtaken: bool,
    /// Number after which the Mark is sent.
    pub(super) mark_at: Option<u64>,
    /// A Mark of its epoch was sent, on this link or on one before: since then it lacks nothing that it must have from here.
    pub(super) marked: bool,
}

impl Subscriber {
    /// Up to which change no reply waits for this peer.
    pub(super) fn covers(&self) -> u64 {
        let acked = if is(Mutant::AckedWhenSent) { self.sent } else { self.acked };
        acked.max(self.awaited_from)
    }
}

/// What came from a peer in the present epoch.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// The epoch that `next` belongs to; 0 before the first Backlog.
    pub(super) epoch: u64,
    /// Number of the change that must come next.
    pub(super) next: u64,
    /// Number of the last change of this epoch that is known to be on this node's disk.
    pub(super) saved: u64,
    /// The Mark of this epoch has come, on the present link.
    pub(super) marked: bool,
}

/// Another process said Hello under this peer's name; the old one is asked whether it is still there.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) boot: BootId,
    pub(super) nonce: u64,
    pub(super) asked_us: u64,
    pub(super) answered: bool,
}
