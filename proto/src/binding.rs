//! One contact of one AoR, as the phone registered it, and the key that says which contacts are the same.

use std::cmp::Ordering;
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use crate::spare::{Each, Shared};
use crate::stamp::{NodeId, Stamp};

/// Texts of this many bytes are used again.
const KEPT_BYTES_MAX: usize = 4 << 10;

thread_local! {
    static BINDINGS: Shared<Binding> = const { Shared::new() };
}

/// What makes two contacts of an AoR the same: (`+sip.instance`, `reg-id`) where RFC 5626 §6 applies, else the canonical
/// Contact URI. Computed once, by the node that accepts the REGISTER; nobody recomputes it.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContactKey(SmallVec<[u8; KEY_BYTES]>);

/// Bytes of a key that needs no memory of its own: those of an instance that is a UUID URN (RFC 5626 §4.1), and a `reg-id`.
const KEY_BYTES: usize = 64;

/// First byte of a key made of an instance and a reg-id.
const INSTANCE: u8 = b'i';
/// First byte of a key made of a Contact URI.
const URI: u8 = b'u';

impl ContactKey {
    /// The key of a contact that carries `+sip.instance` and `reg-id` (RFC 5626 §6). `instance` is the value without quotes.
    #[must_use]
    pub fn instance(instance: &[u8], reg_id: u32) -> Self {
        let [a, b, c, d] = reg_id.to_be_bytes();
        Self::of([INSTANCE, a, b, c, d], instance)
    }

    /// The key of any other contact: its URI in the canonical form of [`crate::uri`].
    #[must_use]
    pub fn uri(canonical: &[u8]) -> Self {
        Self::of([URI], canonical)
    }

    fn of<const N: usize>(kind: [u8; N], text: &[u8]) -> Self {
        let mut bytes = [0; KEY_BYTES];
        let Some(room) = bytes.get_mut(N..N + text.len()) else {
            return Self([&kind[..], text].concat().into());
        };
        room.copy_from_slice(text);
        bytes[..N].copy_from_slice(&kind);
        Self(SmallVec::from_buf_and_len(bytes, N + text.len()))
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
        matches!(self.as_bytes(), [INSTANCE, 0, 0, 0, 0, ..])
    }

    /// Whether this is an instance key.
    #[must_use]
    pub fn is_instance(&self) -> bool {
        self.0.first() == Some(&INSTANCE)
    }

    /// What an instance key was made of; `None` for any other.
    #[must_use]
    pub fn instance_and_reg_id(&self) -> Option<(&[u8], u32)> {
        instance_and_reg_id(self.as_bytes())
    }

    /// Whether it is the key of this URI, were that canonical.
    #[must_use]
    pub fn is_of_uri(&self, canonical: &[u8]) -> bool {
        is_of_uri(self.as_bytes(), canonical)
    }

    /// The key's bytes, for hashing and ordering.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key that had these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

pub(crate) fn instance_and_reg_id(key: &[u8]) -> Option<(&[u8], u32)> {
    match key {
        [INSTANCE, a, b, c, d, instance @ ..] => Some((instance, u32::from_be_bytes([*a, *b, *c, *d]))),
        _ => None,
    }
}

pub(crate) fn is_of_uri(key: &[u8], canonical: &[u8]) -> bool {
    key.split_first() == Some((&URI, canonical))
}

/// In one piece, and not byte by byte.
impl Clone for ContactKey {
    fn clone(&self) -> Self {
        Self::from_bytes(&self.0)
    }
}

impl Serialize for ContactKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for ContactKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self::from_bytes)
    }
}

impl fmt::Debug for ContactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_bytes() {
            [INSTANCE, 0, 0, 0, 0, uri_hash @ ..] => write!(f, "trail {uri_hash:02x?}"),
            [INSTANCE, a, b, c, d, rest @ ..] => {
                write!(f, "{};{}", String::from_utf8_lossy(rest), u32::from_be_bytes([*a, *b, *c, *d]))
            }
            [_, rest @ ..] => write!(f, "{}", String::from_utf8_lossy(rest)),
            [] => f.write_str("(empty)"),
        }
    }
}

/// What a phone registered, kept byte for byte, its texts in one piece of memory. Ordered by its fields as
/// [`BindingParts`] lists them.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// Stamp of the first registration of this contact, kept through refreshes: limits count the oldest as winners.
    pub first: Stamp,
    /// Granted lifetime in seconds from the entry's stamp; the binding lapses at stamp + granted in cluster time.
    pub granted_s: u32,
    /// `q` in thousandths, 0–1000; `None` when the phone gave none (it then counts as 1000).
    pub q: Option<u16>,
    /// The node that accepted it.
    pub accepted_by: NodeId,
    /// URI, parameters, Call-ID, User-Agent, source, then the Path.
    texts: Texts,
}

/// Where each text of a [`Binding`] is.
const URI_AT: usize = 0;
const PARAMS_AT: usize = 1;
const CALL_ID_AT: usize = 2;
const USER_AGENT_AT: usize = 3;
const SOURCE_AT: usize = 4;
const PATH_AT: usize = 5;

/// What a [`Binding`] is made of, in the order in which it travels.
#[derive(Debug, Clone)]
pub struct BindingParts<'a> {
    /// [`Binding::first`]
    pub first: Stamp,
    /// [`Binding::granted_s`]
    pub granted_s: u32,
    /// [`Binding::uri`]
    pub uri: &'a [u8],
    /// [`Binding::params`]
    pub params: &'a [u8],
    /// [`Binding::q`]
    pub q: Option<u16>,
    /// [`Binding::path`]
    pub path: &'a [&'a [u8]],
    /// [`Binding::call_id`]
    pub call_id: &'a [u8],
    /// [`Binding::user_agent`]
    pub user_agent: &'a [u8],
    /// [`Binding::source`]
    pub source: &'a [u8],
    /// [`Binding::accepted_by`]
    pub accepted_by: &'a NodeId,
}

impl<'a> BindingParts<'a> {
    /// As a binding that lies somewhere tells it.
    #[must_use]
    pub fn told(&self) -> Told<'a> {
        let Self { first, granted_s, uri, params, q, path, call_id, user_agent, source, accepted_by } = *self;
        let (path, accepted_by) = (SmallVec::from_slice(path), accepted_by.clone());
        Told { first, granted_s, uri, params, q, path, call_id, user_agent, source, accepted_by }
    }
}

impl From<&BindingParts<'_>> for Binding {
    fn from(parts: &BindingParts<'_>) -> Self {
        let BindingParts { first, granted_s, q, accepted_by, .. } = *parts;
        let mut binding = Self { first, granted_s, q, accepted_by: accepted_by.clone(), texts: Texts::default() };
        binding.texts.pack(parts);
        binding
    }
}

impl Binding {
    /// One that records share. It is made of one that this thread made before, if nobody holds that any more; but for the
    /// largest, whose memory is not kept.
    #[must_use]
    pub fn shared(parts: &BindingParts<'_>) -> Arc<Self> {
        if Texts::bytes(parts) > KEPT_BYTES_MAX {
            return Arc::new(Self::from(parts));
        }
        BINDINGS.with(|made| made.make(|made| made.assign(parts), || Self::from(parts)))
    }

    /// Makes it another one, in the memory that it has.
    fn assign(&mut self, parts: &BindingParts<'_>) {
        (self.first, self.granted_s, self.q) = (parts.first, parts.granted_s, parts.q);
        if self.accepted_by != *parts.accepted_by {
            self.accepted_by = parts.accepted_by.clone();
        }
        self.texts.pack(parts);
    }

    /// The Contact URI, the bytes inside `<>`.
    #[must_use]
    pub fn uri(&self) -> &[u8] {
        self.texts.at(URI_AT)
    }

    /// Every Contact parameter but `expires`, byte for byte with leading `;`: `;q=0.5;+sip.instance="<urn:…>";x`.
    #[must_use]
    pub fn params(&self) -> &[u8] {
        self.texts.at(PARAMS_AT)
    }

    /// Path values (RFC 3327), first to last, each one name-addr with its parameters as it came.
    pub fn path(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.texts.iter().skip(PATH_AT)
    }

    /// Call-ID of the REGISTER that wrote this.
    #[must_use]
    pub fn call_id(&self) -> &[u8] {
        self.texts.at(CALL_ID_AT)
    }

    /// User-Agent of that REGISTER, empty when it had none.
    #[must_use]
    pub fn user_agent(&self) -> &[u8] {
        self.texts.at(USER_AGENT_AT)
    }

    /// Where it came from: `udp:192.0.2.1:5060`.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        self.texts.at(SOURCE_AT)
    }

    /// What it says, where it is.
    #[must_use]
    pub fn told(&self) -> Told<'_> {
        let &Self { first, granted_s, q, ref accepted_by, .. } = self;
        let mut texts = self.texts();
        let [uri, params, call_id, user_agent, source] =
            std::array::from_fn::<_, PATH_AT, _>(|_| texts.next().unwrap_or_default());
        let (path, accepted_by) = (texts.collect(), accepted_by.clone());
        Told { first, granted_s, uri, params, q, path, call_id, user_agent, source, accepted_by }
    }

    /// All its texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter()
    }

    /// As [`Value::Live`](crate::Value::Live) holds it.
    pub(crate) fn deserialize_shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Self>, D::Error> {
        Told::deserialize(deserializer).map(|told| Self::shared(&told.parts()))
    }
}

impl Ord for Binding {
    fn cmp(&self, other: &Self) -> Ordering {
        let head = self.first.cmp(&other.first).then_with(|| self.granted_s.cmp(&other.granted_s));
        head.then_with(|| self.uri().cmp(other.uri()))
            .then_with(|| self.params().cmp(other.params()))
            .then_with(|| self.q.cmp(&other.q))
            .then_with(|| self.path().cmp(other.path()))
            .then_with(|| self.call_id().cmp(other.call_id()))
            .then_with(|| self.user_agent().cmp(other.user_agent()))
            .then_with(|| self.source().cmp(other.source()))
            .then_with(|| self.accepted_by.cmp(&other.accepted_by))
    }
}

impl PartialOrd for Binding {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes);
        f.debug_struct("Binding")
            .field("first", &self.first)
            .field("granted_s", &self.granted_s)
            .field("uri", &text(self.uri()))
            .field("params", &text(self.params()))
            .field("q", &self.q)
            .field("path", &self.path().map(text).collect::<Vec<_>>())
            .field("call_id", &text(self.call_id()))
            .field("user_agent", &text(self.user_agent()))
            .field("source", &text(self.source()))
            .field("accepted_by", &self.accepted_by)
            .finish()
    }
}

impl Serialize for Binding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Binding", 10)?;
        fields.serialize_field("first", &self.first)?;
        fields.serialize_field("granted_s", &self.granted_s)?;
        fields.serialize_field("uri", &Bytes(self.uri()))?;
        fields.serialize_field("params", &Bytes(self.params()))?;
        fields.serialize_field("q", &self.q)?;
        fields.serialize_field("path", &self.path().map(Bytes).collect::<SmallVec<[Bytes<'_>; 2]>>()[..])?;
        fields.serialize_field("call_id", &Bytes(self.call_id()))?;
        fields.serialize_field("user_agent", &Bytes(self.user_agent()))?;
        fields.serialize_field("source", &Bytes(self.source()))?;
        fields.serialize_field("accepted_by", &self.accepted_by)?;
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Told::deserialize(deserializer).map(|told| Self::from(&told.parts()))
    }
}

/// A [`Binding`] where it lies, in bytes from a peer or in memory: the same as [`BindingParts`], but for a Path that is as long
/// as it says only once it has been read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename = "Binding")]
pub struct Told<'a> {
    /// [`Binding::first`]
    pub first: Stamp,
    /// [`Binding::granted_s`]
    pub granted_s: u32,
    /// [`Binding::uri`]
    pub uri: &'a [u8],
    /// [`Binding::params`]
    pub params: &'a [u8],
    /// [`Binding::q`]
    pub q: Option<u16>,
    /// [`Binding::path`]
    #[serde(borrow, deserialize_with = "read_path")]
    pub path: SmallVec<[&'a [u8]; 4]>,
    /// [`Binding::call_id`]
    pub call_id: &'a [u8],
    /// [`Binding::user_agent`]
    pub user_agent: &'a [u8],
    /// [`Binding::source`]
    pub source: &'a [u8],
    /// [`Binding::accepted_by`]
    pub accepted_by: NodeId,
}

impl Told<'_> {
    /// The binding that it tells, as [`Binding::shared`] makes it.
    #[must_use]
    pub fn shared(&self) -> Arc<Binding> {
        Binding::shared(&self.parts())
    }

    fn parts(&self) -> BindingParts<'_> {
        let Self { first, granted_s, uri, params, q, ref path, call_id, user_agent, source, ref accepted_by } = *self;
        BindingParts { first, granted_s, uri, params, q, path, call_id, user_agent, source, accepted_by }
    }
}

fn read_path<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<SmallVec<[&'a [u8]; 4]>, D::Error> {
    deserializer.deserialize_seq(Each::into(SmallVec::new()))
}

/// Written as a byte string, not byte by byte.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Texts one behind the other, each after its length: seven bits a byte, the lowest first, the last below 128.
#[derive(Clone, Default, PartialEq, Eq)]
struct Texts(Vec<u8>);

impl Texts {
    fn each<'a>(parts: &BindingParts<'a>) -> impl Iterator<Item = &'a [u8]> {
        let BindingParts { uri, params, call_id, user_agent, source, path, .. } = *parts;
        let first: [&[u8]; PATH_AT] = [uri, params, call_id, user_agent, source];
        first.into_iter().chain(path.iter().copied())
    }

    /// What it takes, bytes.
    fn bytes(parts: &BindingParts<'_>) -> usize {
        Self::each(parts).map(|text| length_bytes(text.len()) + text.len()).sum()
    }

    fn pack(&mut self, parts: &BindingParts<'_>) {
        self.0.clear();
        self.0.reserve_exact(Self::bytes(parts));
        for text in Self::each(parts) {
            let mut length = text.len();
            while length >= 0x80 {
                self.0.push(length as u8 | 0x80);
                length >>= 7;
            }
            self.0.push(length as u8);
            self.0.extend_from_slice(text);
        }
    }

    fn iter(&self) -> Unpacked<'_> {
        Unpacked(&self.0)
    }

    fn at(&self, place: usize) -> &[u8] {
        self.iter().nth(place).unwrap_or_default()
    }
}

fn length_bytes(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

/// The texts that are left.
#[derive(Clone)]
struct Unpacked<'a>(&'a [u8]);

impl<'a> Iterator for Unpacked<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (mut length, mut place) = (0, 0);
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            length |= usize::from(byte & 0x7f) << place;
            place += 7;
            if byte < 0x80 {
                break;
            }
        }
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
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
        assert_eq!(ContactKey::instance(b"urn:x", 7).instance_and_reg_id(), Some((&b"urn:x"[..], 7)));
        assert_eq!(ContactKey::uri(b"sip:alice").instance_and_reg_id(), None);
        assert!(ContactKey::uri(b"sip:a").is_of_uri(b"sip:a") && !ContactKey::uri(b"sip:a").is_of_uri(b"sip:"));
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

    #[test]
    fn texts_of_every_length_come_back() {
        let long = vec![b'x'; 70_000];
        let texts = [&b""[..], b"a", &long[..127], &long[..128], b"", &long[..16_383], &long[..16_384], &long];
        let parts = BindingParts {
            first: Stamp::ZERO,
            granted_s: 0,
            uri: texts[0],
            params: texts[1],
            q: None,
            path: &texts[PATH_AT..],
            call_id: texts[2],
            user_agent: texts[3],
            source: texts[4],
            accepted_by: &NodeId::new("n1").unwrap(),
        };
        let binding = Binding::from(&parts);
        assert_eq!(binding.texts().collect::<Vec<_>>(), texts);
        assert_eq!(binding.texts.at(texts.len()), b"");
        let mut other = Binding::from(&BindingParts { uri: b"sip:b", path: &[], granted_s: 7, ..parts.clone() });
        assert_ne!(other, binding);
        other.assign(&parts);
        assert_eq!(other, binding);
    }
}
