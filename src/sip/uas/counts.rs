//! What the user agent server counts, and how often it may say why it refused. Names of metrics are in `metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::Tally;
use crate::registrar::Refusal;

/// Declares an enum whose variants are counters of one family, each with its label.
macro_rules! counted {
    ($(#[$doc:meta])* $visibility:vis enum $name:ident { $($(#[$said:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[$said])* $variant,)+
        }

        impl $name {
            const LABELS: &'static [&'static str] = &[$($label),+];
        }
    };
}

counted! {
    /// Methods that are counted by name.
    pub(super) enum Method {
        /// REGISTER
        Register => "register",
        /// INVITE
        Invite => "invite",
        /// ACK
        Ack => "ack",
        /// CANCEL
        Cancel => "cancel",
        /// BYE
        Bye => "bye",
        /// OPTIONS
        Options => "options",
        /// SUBSCRIBE
        Subscribe => "subscribe",
        /// NOTIFY
        Notify => "notify",
        /// PUBLISH
        Publish => "publish",
        /// MESSAGE
        Message => "message",
        /// Any other.
        Other => "other",
    }
}

counted! {
    /// How a REGISTER was accepted.
    pub(super) enum Accepted {
        Changed => "changed",
        Query => "query",
        Retransmission => "retransmission",
    }
}

counted! {
    /// What became of a request for an AoR.
    pub(super) enum LookedUp {
        Redirected => "redirected",
        NoBinding => "no_binding",
        NotReady => "not_ready",
        Refused => "refused",
    }
}

counted! {
    /// Why a REGISTER was refused.
    pub(super) enum Reason {
        /// The node is not ready, or cannot know (503).
        NotReady => "not_ready",
        /// `pending_replies_max` (503).
        Overloaded => "overloaded",
        /// What the parser refuses (400, 505).
        Malformed => "malformed",
        /// A Request-URI that is neither sip nor sips (416).
        Scheme => "scheme",
        /// A domain that is not served (404).
        ForeignDomain => "foreign_domain",
        /// A To that means no AoR (404).
        NoAor => "no_aor",
        /// Require with an unknown option (420).
        BadExtension => "bad_extension",
        /// `path_mode = "strict"` (420).
        PathNotSupported => "path_not_supported",
        /// `*` without Expires 0 (400).
        Star => "star",
        /// Two contacts are one (400).
        SameContactTwice => "same_contact_twice",
        /// 423
        TooBrief => "too_brief",
        /// A CSeq below one used before (400).
        OldCSeq => "old_cseq",
        /// A CSeq used before with other contents (400).
        ReusedCSeq => "reused_cseq",
        /// `max_contacts_per_aor` (403).
        TooManyContacts => "too_many_contacts",
        /// `entries_per_aor_max` (403).
        TooManyEntries => "too_many_entries",
        /// `memory_max_mb`, here or at another node (403).
        MemoryFull => "memory_full",
        /// AoR, Contact or Path (403).
        TooLong => "too_long",
        /// This node's clock is behind what it stored (503).
        ClockBehind => "clock_behind",
    }
}

impl Reason {
    /// As the metric and the log have it.
    pub(super) fn label(self) -> &'static str {
        Self::LABELS.get(self as usize).copied().unwrap_or_default()
    }
}

impl From<&Refusal> for Reason {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::StarNeedsExpiresZero => Self::Star,
            Refusal::SameContactTwice => Self::SameContactTwice,
            Refusal::TooBrief { .. } => Self::TooBrief,
            Refusal::OldCSeq => Self::OldCSeq,
            Refusal::ReusedCSeq => Self::ReusedCSeq,
            Refusal::TooManyContacts => Self::TooManyContacts,
            Refusal::TooManyEntries => Self::TooManyEntries,
            Refusal::MemoryFull => Self::MemoryFull,
            Refusal::ContactTooLong | Refusal::PathTooLong => Self::TooLong,
            Refusal::StampBehind => Self::ClockBehind,
        }
    }
}

/// The statuses that this server answers with, and their labels.
const STATUSES: [(u16, &str); 16] = [
    (200, "200"),
    (300, "300"),
    (302, "302"),
    (400, "400"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (414, "414"),
    (416, "416"),
    (420, "420"),
    (423, "423"),
    (480, "480"),
    (481, "481"),
    (503, "503"),
    (505, "505"),
    (0, "other"),
];

/// Which metric a count belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Requests, by method.
    Requests,
    /// Replies, by status.
    Replies,
    /// REGISTER requests accepted, by kind.
    RegisterAccepted,
    /// REGISTER requests refused, by reason.
    RegisterRefused,
    /// Requests for an AoR, by result.
    Lookups,
    /// Messages dropped without an answer, by reason.
    Dropped,
}

/// The counters of a [`super::Uas`]; they only rise.
#[derive(Debug, Default)]
pub struct UasCounts {
    requests: Tally<{ Method::LABELS.len() }>,
    replies: Tally<{ STATUSES.len() }>,
    accepted: Tally<{ Accepted::LABELS.len() }>,
    refused: Tally<{ Reason::LABELS.len() }>,
    lookups: Tally<{ LookedUp::LABELS.len() }>,
    dropped: Tally<1>,
}

impl UasCounts {
    /// All counters: family, label, count.
    pub fn totals(&self) -> Vec<(Family, &'static str, u64)> {
        let mut all = Vec::new();
        let mut add = |family: Family, labels: &mut dyn Iterator<Item = &'static str>, totals: &[u64]| {
            all.extend(labels.zip(totals).map(|(label, total)| (family, label, *total)));
        };
        add(Family::Requests, &mut Method::LABELS.iter().copied(), &self.requests.totals());
        add(Family::Replies, &mut STATUSES.iter().map(|(_, label)| *label), &self.replies.totals());
        add(Family::RegisterAccepted, &mut Accepted::LABELS.iter().copied(), &self.accepted.totals());
        add(Family::RegisterRefused, &mut Reason::LABELS.iter().copied(), &self.refused.totals());
        add(Family::Lookups, &mut LookedUp::LABELS.iter().copied(), &self.lookups.totals());
        add(Family::Dropped, &mut ["unparsable"].into_iter(), &self.dropped.totals());
        all
    }

    pub(super) fn request(&self, method: &[u8]) {
        let method = match method {
            b"REGISTER" => Method::Register,
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"CANCEL" => Method::Cancel,
            b"BYE" => Method::Bye,
            b"OPTIONS" => Method::Options,
            b"SUBSCRIBE" => Method::Subscribe,
            b"NOTIFY" => Method::Notify,
            b"PUBLISH" => Method::Publish,
            b"MESSAGE" => Method::Message,
            _ => Method::Other,
        };
        self.requests.count(method as usize);
    }

    pub(super) fn reply(&self, status: u16) {
        let place = STATUSES.iter().position(|(known, _)| *known == status);
        self.replies.count(place.unwrap_or(STATUSES.len() - 1));
    }

    pub(super) fn accepted(&self, kind: Accepted) {
        self.accepted.count(kind as usize);
    }

    pub(super) fn refused(&self, reason: Reason) {
        self.refused.count(reason as usize);
    }

    pub(super) fn looked_up(&self, result: LookedUp) {
        self.lookups.count(result as usize);
    }

    pub(super) fn unparsable(&self) {
        self.dropped.count(0);
    }
}

/// Refusals said a second; further ones are counted and told with the next.
const SAID_PER_SECOND: u64 = 10;

/// Lets a few lines a second through. Threads may race for the first of a second; no more than that depends on it.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    second: AtomicU64,
    said: AtomicU64,
    unsaid: AtomicU64,
}

impl Limiter {
    /// Whether to say this one; if so, how many were not said before it.
    pub(super) fn take(&self, mono_us: u64) -> Option<u64> {
        let second = mono_us / 1_000_000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.said.store(0, Ordering::Relaxed);
        }
        if self.said.fetch_add(1, Ordering::Relaxed) < SAID_PER_SECOND {
            return Some(self.unsaid.swap(0, Ordering::Relaxed));
        }
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_a_second_and_the_rest_counted() {
        let limiter = Limiter::default();
        let said = (0..25).filter(|_| limiter.take(5_000_000).is_some()).count();
        assert_eq!(said, 10);
        assert_eq!(limiter.take(6_000_000), Some(15));
        assert_eq!(limiter.take(6_500_000), Some(0));
    }

    #[test]
    fn every_count_has_its_label() {
        let counts = UasCounts::default();
        counts.request(b"INVITE");
        counts.request(b"invite");
        counts.reply(423);
        counts.reply(299);
        counts.refused(Reason::ClockBehind);
        counts.looked_up(LookedUp::Refused);
        counts.accepted(Accepted::Retransmission);
        counts.unparsable();
        let rose: Vec<_> = counts.totals().into_iter().filter(|(_, _, total)| *total > 0).collect();
        let expected = [
            (Family::Requests, "invite", 1),
            (Family::Requests, "other", 1),
            (Family::Replies, "423", 1),
            (Family::Replies, "other", 1),
            (Family::RegisterAccepted, "retransmission", 1),
            (Family::RegisterRefused, "clock_behind", 1),
            (Family::Lookups, "refused", 1),
            (Family::Dropped, "unparsable", 1),
        ];
        assert_eq!(rose, expected);
    }
}
