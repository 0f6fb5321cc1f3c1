//! The one order. A stamp decides every merge; CSeq and Call-ID only decide whether a node accepts a REGISTER.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 64 random bits drawn at every process start, bound to the node id in Hello: stamps stay unique with a lost disk or a
/// cloned image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// When, in cluster time, something was written, and by which process. Compared field by field in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// Cluster time in microseconds since 1970.
    pub time_us: u64,
    /// Orders stamps drawn in one microsecond. Drawn stamps are even; see [`Stamp::machine_made`].
    pub counter: u32,
    /// The process that drew it.
    pub boot: BootId,
}

impl Stamp {
    /// Below every stamp that is ever drawn.
    pub const ZERO: Self = Self { time_us: 0, counter: 0, boot: BootId(0) };

    /// The stamp of a removal that no phone or person asked for (ping timeout, contact limit), judged on the entry that
    /// carries `self`: just above it, and below whatever is drawn later, so that any newer write beats the removal.
    #[must_use]
    pub fn machine_made(self) -> Self {
        Self { counter: self.counter | 1, ..self }
    }
}

/// A node's name: unique in the cluster, bound into its certificate. 1–64 bytes of `[a-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

/// Node ids that a thread remembers, at most: so that bindings share a few texts. Those of more nodes than this cost some
/// memory each.
const KNOWN_MAX: usize = 16;

thread_local! {
    static KNOWN: RefCell<VecDeque<NodeId>> = const { RefCell::new(VecDeque::new()) };
}

/// The longest node id, bytes.
pub const NODE_ID_BYTES_MAX: usize = 64;

/// A text that is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no node id: 1 to {NODE_ID_BYTES_MAX} bytes of a-z, 0-9, '.', '_' and '-'")]
pub struct NodeIdError(String);

impl NodeId {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// When it is empty, too long or holds another byte than `[a-z0-9._-]`.
    pub fn new(name: &str) -> Result<Self, NodeIdError> {
        let fits = (1..=NODE_ID_BYTES_MAX).contains(&name.len());
        let clean = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if fits && clean { Ok(Self(name.into())) } else { Err(NodeIdError(name.to_owned())) }
    }

    /// As [`NodeId::new`], sharing memory with those that this thread met lately.
    ///
    /// # Errors
    /// As [`NodeId::new`].
    pub fn known(name: &str) -> Result<Self, NodeIdError> {
        KNOWN.with_borrow_mut(|known| {
            if let Some(id) = known.iter().find(|id| *id.0 == *name) {
                return Ok(id.clone());
            }
            let id = Self::new(name)?;
            known.truncate(KNOWN_MAX - 1);
            known.push_front(id.clone());
            Ok(id)
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = NodeId;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a node id")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<NodeId, E> {
                NodeId::known(name).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
