//! What phones and judges read: one whole SIP message, strictly (RFC 3261 §7, §25), and what stands in its fields.
//!
//! It is no part of Aorta's own parser and must never become one: a judge that shares the parser of the judged
//! shares its bugs. It refuses to be lenient: whatever a node may not say is a [`Malformed`] with the reason.

pub use crate::value::{NameAddr, Param, read_q, unescape};
use crate::value::{is_token, split_list};
use std::borrow::Cow;

/// Why a message cannot be read, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Makes the `Err` of a complaint.
pub(crate) fn malformed<T>(what: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(what.into()))
}

/// The first line of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// `INVITE sip:… SIP/2.0`
    Request {
        /// The method, case as written.
        method: &'a str,
        /// The Request-URI, byte for byte.
        uri: &'a str,
    },
    /// `SIP/2.0 200 OK`
    Reply {
        /// 100 to 699.
        status: u16,
        /// The reason phrase, maybe empty.
        reason: &'a str,
    },
}

/// One header field, unfolded: a fold becomes one space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as written (maybe compact).
    pub name: &'a str,
    /// The value without white space around it.
    pub value: Cow<'a, str>,
}

/// One SIP message in a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// The first line.
    pub start: Start<'a>,
    /// All header fields in order.
    pub fields: Vec<Field<'a>>,
    /// What follows the empty line.
    pub body: &'a [u8],
}

/// Long form of a compact header name (RFC 3261 §7.3.3); any other name is returned as it is.
fn long_name(name: &str) -> &str {
    let [letter] = name.as_bytes() else { return name };
    match letter.to_ascii_lowercase() {
        b'v' => "Via",
        b'f' => "From",
        b't' => "To",
        b'i' => "Call-ID",
        b'm' => "Contact",
        b'l' => "Content-Length",
        b'k' => "Supported",
        b'c' => "Content-Type",
        b'e' => "Content-Encoding",
        b's' => "Subject",
        _ => name,
    }
}

impl<'a> Message<'a> {
    /// Reads a datagram that must be exactly one message.
    ///
    /// # Errors
    /// Anything that RFC 3261 does not let a sender send: bare CR or LF, a wrong first line, a field without a colon,
    /// control characters, a missing empty line, a Content-Length that is not the length of the body.
    pub fn read(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let Some(end) = datagram.windows(4).position(|w| w == b"\r\n\r\n") else {
            return malformed("no empty line ends the header");
        };
        let Ok(head) = std::str::from_utf8(&datagram[..end]) else {
            return malformed("the header is not UTF-8");
        };
        let body = &datagram[end + 4..];
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let start = read_start(first)?;
        let mut fields: Vec<Field<'a>> = Vec::with_capacity(16);
        for line in lines {
            if line.chars().any(|c| c.is_control() && c != '\t') {
                return malformed(format!("control character in {line:?}"));
            }
            if line.starts_with([' ', '\t']) {
                let Some(last) = fields.last_mut() else { return malformed("a folded line before any field") };
                let whole = format!("{} {}", last.value, line.trim());
                last.value = Cow::Owned(whole.trim().to_owned());
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                return malformed(format!("no colon in {line:?}"));
            };
            let name = name.trim_end_matches([' ', '\t']);
            if !is_token(name) {
                return malformed(format!("field name {name:?}"));
            }
            fields.push(Field { name, value: Cow::Borrowed(value.trim_matches([' ', '\t'])) });
        }
        let message = Message { start, fields, body };
        if let Some(length) = message.one("Content-Length")?
            && length.parse::<usize>() != Ok(body.len())
        {
            return malformed(format!("Content-Length {length} with a body of {} bytes", body.len()));
        }
        Ok(message)
    }

    /// The status of a reply; `None` for a request.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self.start {
            Start::Reply { status, .. } => Some(status),
            Start::Request { .. } => None,
        }
    }

    /// The values of all fields of this (long) name, unsplit, in order.
    pub fn raw<'m, 'n>(&'m self, name: &'n str) -> impl Iterator<Item = &'m str> + use<'m, 'n, 'a> {
        self.fields.iter().filter(move |f| long_name(f.name).eq_ignore_ascii_case(name)).map(|f| f.value.as_ref())
    }

    /// The value of a field that may stand at most once.
    ///
    /// # Errors
    /// When it stands more than once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Malformed> {
        let mut values = self.raw(name);
        let first = values.next();
        if values.next().is_some() {
            return malformed(format!("more than one {name}"));
        }
        Ok(first)
    }

    /// The value of a field that must stand exactly once and not be empty.
    ///
    /// # Errors
    /// When it is missing, empty or repeated.
    pub fn exactly_one(&self, name: &str) -> Result<&str, Malformed> {
        match self.one(name)? {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => malformed(format!("{name} is empty")),
            None => malformed(format!("no {name}")),
        }
    }

    /// All list elements of all fields of this name, in order (RFC 3261 §7.3.1).
    ///
    /// # Errors
    /// An empty element, an open quote or bracket.
    pub fn list(&self, name: &str) -> Result<Vec<&str>, Malformed> {
        let mut all = Vec::new();
        for value in self.raw(name) {
            split_list(value, &mut all)?;
        }
        Ok(all)
    }

    /// All Contact values of the message (never `*`).
    ///
    /// # Errors
    /// What [`Message::list`] and [`NameAddr::read`] say.
    pub fn contacts(&self) -> Result<Vec<NameAddr<'_>>, Malformed> {
        self.list("Contact")?.into_iter().map(NameAddr::read).collect()
    }
}

fn read_start(line: &str) -> Result<Start<'_>, Malformed> {
    if line.chars().any(char::is_control) {
        return malformed(format!("control character in {line:?}"));
    }
    if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
        let Some((code, reason)) = rest.split_once(' ') else {
            return malformed(format!("no space after the status in {line:?}"));
        };
        let status = code.parse::<u16>().ok().filter(|s| code.len() == 3 && (100..700).contains(s));
        let Some(status) = status else { return malformed(format!("status {code:?}")) };
        return Ok(Start::Reply { status, reason });
    }
    let mut parts = line.split(' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(uri), Some("SIP/2.0"), None) if is_token(method) && !uri.is_empty() => {
            Ok(Start::Request { method, uri })
        }
        _ => malformed(format!("first line {line:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, NameAddr, read_q, unescape};

    const REPLY: &str = "SIP/2.0 200 OK\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP b,\r\n SIP/2.0/UDP c\r\n\
        Contact: \"a, <b>\" <sip:u@h;x=1?Route=%3Csip:e%3E>;q=0.5,\r\n\t<sip:v@h>;expires=7\r\nl: 0\r\n\r\n";

    #[test]
    fn folded_compact_and_lists_are_read() {
        let message = Message::read(REPLY.as_bytes()).expect("well formed");
        assert_eq!(message.status(), Some(200));
        assert_eq!(
            message.list("via").expect("a list"),
            ["SIP/2.0/UDP a;branch=z9hG4bK1", "SIP/2.0/UDP b", "SIP/2.0/UDP c"]
        );
        let contacts = message.contacts().expect("two contacts");
        assert_eq!(contacts[0].uri_and_headers().1, [("Route", "%3Csip:e%3E")]);
        assert_eq!((contacts[0].q(), contacts[1].q(), contacts[1].expires()), (Ok(500), Ok(1000), Ok(Some(7))));
    }

    #[test]
    fn what_a_node_may_not_say_is_refused() {
        let cases = [
            ("SIP/2.0 200 OK\r\nl: 1\r\n\r\n", "length"),
            ("SIP/2.0 200\r\nl: 0\r\n\r\n", "no space"),
            ("SIP/2.0 20 OK\r\nl: 0\r\n\r\n", "status"),
            ("SIP/2.0 200 OK\r\nl: 0\r\nl: 0\r\n\r\n", "twice"),
            ("SIP/2.0 200 OK\r\nVia x\r\n\r\n", "no colon"),
            ("SIP/2.0 200 OK\nVia: x\r\n\r\n", "bare LF"),
            ("SIP/2.0 200 OK\r\nVia: x\r\n", "no end"),
        ];
        for (text, why) in cases {
            assert!(Message::read(text.as_bytes()).is_err(), "{why}: {text:?}");
        }
        for value in ["<sip:a@b", "<sip:a@b>x", "<>", "<sip:a@b>;=1", "<sip:a@b>;q=1;Q=1", "\"a <sip:a@b>"] {
            assert!(NameAddr::read(value).is_err(), "{value}");
        }
        for q in ["", "2", "1.1", "0.1234", ".5", "0,5"] {
            assert!(read_q(q).is_err(), "{q}");
        }
        assert_eq!(unescape("%3Ca%253e"), Ok("<a%3e".to_owned()));
        assert!(unescape("%3").is_err() && unescape("%zz").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400), cut in 0..300_usize) {
            let _ = Message::read(&bytes);
            let mut broken = REPLY.as_bytes().to_vec();
            broken.splice(cut.min(broken.len())..(cut + 2).min(broken.len()), bytes.iter().copied().take(3));
            if let Ok(message) = Message::read(&broken) {
                let _ = (message.contacts(), message.list("Via"));
            }
        }
    }
}
