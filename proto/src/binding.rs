//! One contact of one AoR, as the phone registered it, and the key that says which contacts are the same.

use std::fmt;
use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::octets::Octets;
use crate::stamp::{NodeId, Stamp};

/// What makes two contacts of an AoR the same: (`+sip.instance`, `reg-id`) where RFC 5626 §6 applies, else the canonical
/// Contact URI. Computed once, by the node that accepts the REGISTER; nobody recomputes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContactKey(Octets);

/// First byte of a key made of an instance and a reg-id.
const INSTANCE: u8 = b'i';
/// First byte of a key made of a Contact URI.
const URI: u8 = b'u';

impl ContactKey {
    /// The key of a contact that carries `+sip.instance` and `reg-id` (RFC 5626 §6). `instance` is the value without quotes.
    #[must_use]
    pub fn instance(instance: &[u8], reg_id: u32) -> Self {
        let mut bytes = Vec::with_capacity(1 + 4 + instance.len());
        bytes.push(INSTANCE);
        bytes.extend_from_slice(&reg_id.to_be_bytes());
        bytes.extend_from_slice(instance);
        Self(bytes.into())
    }

    /// The key of any other contact: its URI in the canonical form of [`crate::uri`].
    #[must_use]
    pub fn uri(canonical: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + canonical.len());
        bytes.push(URI);
        bytes.extend_from_slice(canonical);
        Self(bytes.into())
    }

    /// The key under which an AoR remembers when a flow (RFC 5626) was last at a URI: an instance key, so that the entry
    /// hides earlier contacts that are only that URI and no other flow, with the `reg-id` 0, which no phone may send.
    #[must_use]
    pub fn trail(uri_hash: u64) -> Self {
        Self::instance(&uri_hash.to_be_bytes(), 0)
    }

    /// Whether this is the key of a trail.
    #[must_use]
    pub fn is_trail(&self) -> bool {
        matches!(self.0.as_bytes(), [INSTANCE, 0, 0, 0, 0, ..])
    }

    /// Whether this is an instance key.
    #[must_use]
    pub fn is_instance(&self) -> bool {
        self.0.as_bytes().first() == Some(&INSTANCE)
    }

    /// The key's bytes, for hashing and ordering.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for ContactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_bytes() {
            [INSTANCE, 0, 0, 0, 0, uri_hash @ ..] => write!(f, "trail {uri_hash:02x?}"),
            [INSTANCE, a, b, c, d, rest @ ..] => {
                write!(f, "{};{}", String::from_utf8_lossy(rest), u32::from_be_bytes([*a, *b, *c, *d]))
            }
            [_, rest @ ..] => write!(f, "{}", String::from_utf8_lossy(rest)),
            [] => f.write_str("(empty)"),
        }
    }
}

/// What a phone registered, kept byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    /// Stamp of the first registration of this contact, kept through refreshes: limits count the oldest as winners.
    pub first: Stamp,
    /// Granted lifetime in seconds from the entry's stamp; the binding lapses at stamp + granted in cluster time.
    pub granted_s: u32,
    /// The Contact URI, the bytes inside `<>`.
    pub uri: Octets,
    /// Every Contact parameter but `expires`, byte for byte with leading `;`: `;q=0.5;+sip.instance="<urn:…>";x`.
    pub params: Octets,
    /// `q` in thousandths, 0–1000; `None` when the phone gave none (it then counts as 1000).
    pub q: Option<u16>,
    /// Path values (RFC 3327), first to last, each one name-addr with its parameters as it came.
    pub path: Vec<Octets>,
    /// Call-ID of the REGISTER that wrote this.
    pub call_id: Octets,
    /// User-Agent of that REGISTER, empty when it had none.
    pub user_agent: Octets,
    /// Where it came from: `udp:192.0.2.1:5060`.
    pub source: Octets,
    /// The node that accepted it.
    pub accepted_by: NodeId,
}

/// What a removed entry remembers of its Call-ID. The same in every process: nodes compare these.
#[must_use]
pub fn call_id_hash(call_id: &[u8]) -> u64 {
    hash(b"aorta/1 call-id\0", call_id)
}

/// What tells that two contacts have one URI, given in the canonical form of [`crate::uri`]. The same in every process.
#[must_use]
pub fn uri_hash(canonical: &[u8]) -> u64 {
    hash(b"aorta/1 uri\0\0\0\0\0", canonical)
}

fn hash(purpose: &[u8; 16], bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(purpose);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_what_they_were_in_every_build() {
        assert_eq!(
            (call_id_hash(b"a84b4c76e66710@pc33"), uri_hash(b"sip:alice@192.0.2.1")),
            (9030556099757184532, 985151704917059527)
        );
    }

    #[test]
    fn an_instance_and_a_uri_never_have_one_key() {
        assert_ne!(ContactKey::instance(b"", 0), ContactKey::uri(b"\0\0\0\0"));
        assert_ne!(ContactKey::instance(b"urn:x", 1), ContactKey::instance(b"urn:x", 2));
        assert!(ContactKey::instance(b"urn:x", 1).is_instance() && !ContactKey::uri(b"sip:a").is_instance());
    }

    #[test]
    fn a_trail_is_an_instance_that_no_phone_can_name() {
        assert!(ContactKey::trail(7).is_trail() && ContactKey::trail(7).is_instance());
        assert_ne!(ContactKey::trail(7), ContactKey::trail(8));
        for key in
            [ContactKey::instance(b"urn:x", 1), ContactKey::instance(b"", u32::MAX), ContactKey::uri(b"\0\0\0\0")]
        {
            assert!(!key.is_trail(), "{key:?}");
        }
    }
}
