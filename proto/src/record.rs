//! An AoR's contacts and the merge law: how two copies become one, the same one everywhere, in whatever order they meet.
//!
//! A delta is a small `Record`: whoever knows how to merge a copy knows how to merge a change.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::binding::{Binding, ContactKey};
use crate::stamp::Stamp;

/// All that is known of one AoR: what was cleared by `Contact: *`, and one last-writer-wins entry a key.
/// Normal form: entries sorted by key, one a key; an entry below `cleared` is [`Value::Gone`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The latest `Contact: *`; the greater stamp wins.
    pub cleared: Option<Cleared>,
    /// Live and dead contacts.
    pub entries: Vec<Entry>,
}

/// A `Contact: *` with Expires 0 (RFC 3261 §10.2.2): every entry with a lower stamp is gone, seen here or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cleared {
    /// When.
    pub stamp: Stamp,
    /// Hash of the request's Call-ID.
    pub call_id_hash: u64,
    /// The request's CSeq number.
    pub cseq: u32,
}

/// The latest that is known of one contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which contact.
    pub key: ContactKey,
    /// When it was written; the greater stamp wins.
    pub stamp: Stamp,
    /// Hash of the Call-ID of the REGISTER that wrote it.
    pub call_id_hash: u64,
    /// CSeq number of that REGISTER.
    pub cseq: u32,
    /// Hash of the canonical Contact URI: an instance key and a URI key with the same URI are one phone.
    pub uri_hash: u64,
    /// What it says.
    pub value: Value,
}

/// A contact that may ring, or the memory of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// Removed, or lapsed and slimmed: enough is kept that a late REGISTER cannot bring it back.
    Gone,
    /// Registered; live until stamp + granted.
    Live(Arc<Binding>),
}
