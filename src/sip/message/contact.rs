//! Contact values of a REGISTER (RFC 3261 §10.2.1, RFC 5626 §4.2): read, and made fit to be kept. Grants nothing.

use std::borrow::Cow;

use aorta_proto::uri::{Params, Uri, UriError, canonical_contact};
use aorta_proto::{ContactKey, hash};
use smallvec::SmallVec;

use super::Fault;
use super::values::{NameAddr, bounded_u32, clamped_u32, thousandths};

/// How long somebody asks for, in a Contact's `expires` or an Expires header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Nothing was said.
    Absent,
    /// Something was said that is no number: RFC 3261 §20.19 and §10.2.1.1 have it count as the default.
    Malformed,
    /// Seconds; more than 2^32 − 1 count as that.
    Seconds(u32),
}

impl Lifetime {
    pub(super) fn read(text: &[u8]) -> Self {
        clamped_u32(text).map_or(Self::Malformed, Self::Seconds)
    }
}

/// The Contacts of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contacts<'a> {
    /// `Contact: *`, alone.
    Star,
    /// Those listed, in their order, over all headers; none for a query.
    List(SmallVec<[Contact<'a>; 1]>),
}

/// One Contact value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact<'a> {
    /// The URI, parsed; [`Uri::raw`] is what stood inside `<>`.
    pub uri: Uri<'a>,
    /// All header parameters as they came, with their leading `;`.
    pub params: &'a [u8],
    /// `q` in thousandths.
    pub q: Option<u16>,
    /// The `expires` parameter.
    pub expires: Lifetime,
    /// `+sip.instance` without its quotes, with its `<>`; escapes of the quoted string stay.
    pub instance: Option<&'a [u8]>,
    /// `reg-id`, 1 to 2^31 − 1.
    pub reg_id: Option<u32>,
    /// Nothing stands between the parameters.
    tight: bool,
}

impl<'a> Contact<'a> {
    /// Reads one value.
    ///
    /// # Errors
    /// With what a 400 says.
    pub fn parse(value: &'a [u8]) -> Result<Self, Fault> {
        let address = NameAddr::parse(value).ok_or(Fault::bad("Malformed Contact"))?;
        // What is kept goes to others later; some of them end their strings at a NUL.
        if memchr::memchr3(b'\r', b'\n', 0, address.params).is_some() {
            return Err(Fault::bad("Control Character in Contact"));
        }
        let uri = Uri::parse(address.uri).map_err(|error| match error {
            UriError::Byte => Fault::bad("Illegal Character in Contact URI"),
            _ => Fault::bad("Malformed Contact URI"),
        })?;
        let (q, expires, instance, reg_id) = (None, Lifetime::Absent, None, None);
        let mut contact = Self { uri, params: address.params, q, expires, instance, reg_id, tight: false };
        let mut params = address.params();
        let mut bytes = 0;
        for param in params.by_ref() {
            bytes += param.raw.len();
            let value = param.value.unwrap_or_default();
            let twice = if param.is("q") {
                let q = thousandths(value).ok_or(Fault::bad("Malformed q in Contact"))?;
                contact.q.replace(q).is_some()
            } else if param.is("expires") {
                let before = std::mem::replace(&mut contact.expires, Lifetime::read(&param.text()));
                before != Lifetime::Absent
            } else if param.is("+sip.instance") {
                let inner = value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\""));
                let inner = inner.filter(|inner| !inner.is_empty()).ok_or(Fault::bad("Malformed +sip.instance"))?;
                contact.instance.replace(inner).is_some()
            } else if param.is("reg-id") {
                let id = bounded_u32(value, REG_ID_MAX).filter(|id| *id > 0);
                contact.reg_id.replace(id.ok_or(Fault::bad("Malformed reg-id"))?).is_some()
            } else {
                false
            };
            if twice {
                return Err(Fault::bad("Repeated Contact Parameter"));
            }
        }
        contact.tight = bytes == address.params.len();
        if params.malformed() { Err(Fault::bad("Malformed Contact Parameter")) } else { Ok(contact) }
    }

    /// What makes this contact the same as another: instance and reg-id where both are given (RFC 5626 §6), else the
    /// canonical URI.
    #[must_use]
    pub fn key(&self) -> ContactKey {
        match (self.instance, self.reg_id) {
            (Some(instance), Some(reg_id)) => ContactKey::instance(&instance_form(instance), reg_id),
            _ => ContactKey::uri(&canonical_contact(&self.uri)),
        }
    }

    /// The fingerprint of the canonical URI.
    #[must_use]
    pub fn uri_hash(&self) -> u64 {
        hash::uri_hash(&canonical_contact(&self.uri))
    }

    /// The parameters that are kept: all but `expires`, byte for byte.
    #[must_use]
    pub fn kept_params(&self) -> Cow<'a, [u8]> {
        if self.expires == Lifetime::Absent && self.tight {
            return Cow::Borrowed(self.params);
        }
        Cow::Owned(params_without(self.params, &["expires"]))
    }
}

/// `reg-id` is 1 to 2^31 − 1 (RFC 5626 §4.2).
const REG_ID_MAX: u32 = i32::MAX.unsigned_abs();

/// Parameters without those of the given names (in lower case), the rest byte for byte.
#[must_use]
pub fn params_without(params: &[u8], names: &[&str]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(params.len());
    for param in Params::new(params).filter(|param| !names.iter().any(|name| param.is(name))) {
        kept.extend(param.raw);
    }
    kept
}

/// `urn:uuid:` and the digits of a UUID compare without case (RFC 4122 §3); other URNs are left alone.
fn instance_form(instance: &[u8]) -> Cow<'_, [u8]> {
    const UUID: &[u8] = b"<urn:uuid:";
    let uuid = || instance.get(..UUID.len()).is_some_and(|start| start.eq_ignore_ascii_case(UUID));
    // Without an early exit the compiler looks at many bytes at once.
    if instance.iter().fold(false, |met, byte| met | byte.is_ascii_uppercase()) && uuid() {
        return Cow::Owned(instance.to_ascii_lowercase());
    }
    Cow::Borrowed(instance)
}
