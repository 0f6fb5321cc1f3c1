//! Why a REGISTER was refused by its contents: status, reason phrase, and a place among the counters.

/// One reason. Limits, policy and CSeq are 4xx: a 5xx would send the SBC to another node, which must answer the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `Contact: *` without an Expires header of 0 (§10.3 step 6).
    StarNeedsExpiresZero,
    /// Two contacts of the request are one.
    SameContactTwice,
    /// §10.3 step 7, 423.
    TooBrief {
        /// For Min-Expires, seconds.
        expires_min_s: u32,
    },
    /// A CSeq below one that this Call-ID used before on this contact.
    OldCSeq,
    /// The CSeq that this Call-ID used before, with other contents.
    ReusedCSeq,
    /// One of the contacts would not be among the `max_contacts_per_aor` that are shown.
    TooManyContacts,
    /// A new key would exceed `entries_per_aor_max`.
    TooManyEntries,
    /// The memory of a node of the cluster is full, and of the AoR too little is known.
    MemoryFull,
    /// URI or parameters of a contact exceed their limit.
    ContactTooLong,
    /// The Path vector exceeds its limit.
    PathTooLong,
    /// This node's clock draws stamps below one that it has stored: nothing it writes would count.
    StampBehind,
}

impl Refusal {
    /// Status code (RFC 3261 §21).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::StarNeedsExpiresZero | Self::SameContactTwice | Self::OldCSeq | Self::ReusedCSeq => 400,
            Self::TooManyContacts
            | Self::TooManyEntries
            | Self::MemoryFull
            | Self::ContactTooLong
            | Self::PathTooLong => 403,
            Self::TooBrief { .. } => 423,
            Self::StampBehind => 503,
        }
    }

    /// Reason phrase: what a person reads in a trace.
    #[must_use]
    pub fn phrase(&self) -> &'static str {
        match self {
            Self::StarNeedsExpiresZero => "Contact * Needs Expires 0",
            Self::SameContactTwice => "Same Contact Twice",
            Self::TooBrief { .. } => "Interval Too Brief",
            Self::OldCSeq => "CSeq Out Of Order",
            Self::ReusedCSeq => "CSeq Used Before With Other Contents",
            Self::TooManyContacts => "Too Many Contacts",
            Self::TooManyEntries => "Too Many Remembered Contacts",
            Self::MemoryFull => "Location Memory Full",
            Self::ContactTooLong => "Contact Too Long",
            Self::PathTooLong => "Path Too Long",
            Self::StampBehind => "Clock Behind",
        }
    }
}
