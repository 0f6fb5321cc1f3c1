//! The lines of a message's head: where it ends, folds undone, each header with its name known. Knows no header's inside.

use std::cell::OnceCell;

use aorta_proto::uri::{is_white, trim};

/// A message whose header lines are whole: what [`super::Message::parse`] reads. As it came unless a line was folded
/// (RFC 3261 §7.3.1): then each fold is spaces, as many as it had bytes.
#[derive(Debug, Clone)]
pub struct Unfolded<'a> {
    received: &'a [u8],
    /// Without its folds, if it has any; looked for when somebody asks.
    whole: OnceCell<Option<Vec<u8>>>,
}

impl<'a> Unfolded<'a> {
    /// Undoes the folds of `message`'s head; its body stays as it is.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { received: message, whole: OnceCell::new() }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.whole().unwrap_or(self.received)
    }

    /// The bytes as they came, folds and all.
    pub(super) fn received(&self) -> &'a [u8] {
        self.received
    }

    /// The bytes if they are others than came.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.whole.get_or_init(|| unfold(self.received)).as_deref()
    }
}

fn unfold(message: &[u8]) -> Option<Vec<u8>> {
    if !may_hold_folds(message) {
        return None;
    }
    let mut whole = None;
    let start = message.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(message.len());
    for at in memchr::memchr_iter(b'\n', &message[start..]).map(|at| start + at) {
        match message.get(at + 1..) {
            Some([b' ' | b'\t', ..]) => {
                let bytes = whole.get_or_insert_with(|| message.to_vec());
                bytes[at] = b' ';
                if bytes[at - 1] == b'\r' {
                    bytes[at - 1] = b' ';
                }
            }
            // The empty line: the body is not ours to touch.
            Some([b'\n', ..] | [b'\r', b'\n', ..]) => break,
            _ => {}
        }
    }
    whole
}

/// Whether white space begins a line of `message`, its body included. Without an early exit the compiler looks at many
/// bytes at once, which is much faster than to look for each line, and few messages have folds.
fn may_hold_folds(message: &[u8]) -> bool {
    let pairs = message.iter().zip(message.get(1..).unwrap_or_default());
    pairs.fold(false, |met, (end, next)| met | ((*end == b'\n') & ((*next == b' ') | (*next == b'\t'))))
}

/// The index after the empty line that ends the head which begins at or before `from`; lines end with CRLF or a bare LF.
/// `None` if there is none yet.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let tail = bytes.get(from..)?;
    memchr::memchr_iter(b'\n', tail).map(|at| from + at).find_map(|at| match bytes.get(at + 1..) {
        Some([b'\n', ..]) => Some(at + 2),
        Some([b'\r', b'\n', ..]) => Some(at + 3),
        _ => None,
    })
}

/// The lines of a message, without their CRLF or LF.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    ends: memchr::Memchr<'a>,
    at: usize,
    /// Lines so far that ended with CRLF.
    crlfs: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, ends: memchr::memchr_iter(b'\n', text), at: 0, crlfs: 0 }
    }

    /// What follows the lines read so far.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// Whether a CR that ends no line stands in one of them.
    pub(super) fn had_bare_cr(&self) -> bool {
        memchr::memchr_iter(b'\r', &self.text[..self.at]).count() != self.crlfs
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.at == self.text.len() {
            return None;
        }
        let end = self.ends.next();
        let line = &self.text[self.at..end.unwrap_or(self.text.len())];
        self.at = end.map_or(self.text.len(), |end| end + 1);
        let whole = line.strip_suffix(b"\r").filter(|_| end.is_some());
        self.crlfs += usize::from(whole.is_some());
        Some(whole.unwrap_or(line))
    }
}

/// A header's name and value, without the white space around them. `None` for a line that is no header.
pub(super) fn name_and_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line.iter().position(|byte| !TOKEN[usize::from(*byte)])?;
    let (name, mut rest) = line.split_at(end);
    while let [first, after @ ..] = rest
        && is_white(*first)
    {
        rest = after;
    }
    let [b':', value @ ..] = rest else { return None };
    (!name.is_empty()).then(|| (name, trim(value)))
}

/// `token` of RFC 3261 §25.1.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        byte += 1;
    }
    table
};

/// The headers that this server reads or writes, compact forms included (RFC 3261 §20, RFC 3327, RFC 6665).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Via, v
    Via,
    /// From, f
    From,
    /// To, t
    To,
    /// Call-ID, i
    CallId,
    /// CSeq
    CSeq,
    /// Contact, m
    Contact,
    /// Content-Length, l
    ContentLength,
    /// Expires
    Expires,
    /// Max-Forwards
    MaxForwards,
    /// Path
    Path,
    /// Proxy-Require
    ProxyRequire,
    /// Record-Route
    RecordRoute,
    /// Require
    Require,
    /// Route
    Route,
    /// Supported, k
    Supported,
    /// User-Agent
    UserAgent,
    /// Authorization
    Authorization,
    /// Any other.
    Other,
}

impl Name {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Other as usize + 1;

    /// Which header `name` names, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // Most are written as the RFC has them, and to compare with a known text is cheap.
        let is = |text: &str| name == text.as_bytes() || name.eq_ignore_ascii_case(text.as_bytes());
        match name.len() {
            1 => match name[0].to_ascii_lowercase() {
                b'v' => Self::Via,
                b'f' => Self::From,
                b't' => Self::To,
                b'i' => Self::CallId,
                b'm' => Self::Contact,
                b'l' => Self::ContentLength,
                b'k' => Self::Supported,
                _ => Self::Other,
            },
            2 if is("To") => Self::To,
            3 if is("Via") => Self::Via,
            4 if is("From") => Self::From,
            4 if is("CSeq") => Self::CSeq,
            4 if is("Path") => Self::Path,
            5 if is("Route") => Self::Route,
            7 if is("Call-ID") => Self::CallId,
            7 if is("Contact") => Self::Contact,
            7 if is("Expires") => Self::Expires,
            7 if is("Require") => Self::Require,
            9 if is("Supported") => Self::Supported,
            10 if is("User-Agent") => Self::UserAgent,
            12 if is("Max-Forwards") => Self::MaxForwards,
            12 if is("Record-Route") => Self::RecordRoute,
            13 if is("Proxy-Require") => Self::ProxyRequire,
            13 if is("Authorization") => Self::Authorization,
            14 if is("Content-Length") => Self::ContentLength,
            _ => Self::Other,
        }
    }
}
