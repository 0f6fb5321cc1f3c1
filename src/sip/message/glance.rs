//! A message at a glance, before it is read.

use aorta_proto::uri::{Uri, trim};

use super::values::NameAddr;

/// Bytes that are looked at: what comes may be large, and from anybody.
const GLANCE_BYTES: usize = 1024;

/// The URI that a message seems to ask for: the To of a REGISTER, the Request-URI of anything else. A guess for who looks ahead:
/// of a message that is folded, or has a long head, or is none, it may be wrong.
#[must_use]
pub fn glance(message: &[u8]) -> Option<Uri<'_>> {
    let message = message.get(..GLANCE_BYTES).unwrap_or(message);
    let (method, rest) = message.split_at(memchr::memchr(b' ', message)?);
    if method != b"REGISTER" {
        return Uri::parse(rest.get(1..)?.split(|byte| *byte == b' ').next()?).ok();
    }
    let mut starts = memchr::memchr_iter(b'\n', rest).map(|end| rest.get(end + 1..).unwrap_or_default());
    let to = starts.find_map(|line| match line {
        [b'T' | b't', b'o' | b'O', b':', to @ ..] | [b't' | b'T', b':', to @ ..] => Some(to),
        _ => None,
    })?;
    let to = to.split(|byte| *byte == b'\n').next()?;
    Uri::parse(trim(NameAddr::parse(to)?.uri)).ok()
}
