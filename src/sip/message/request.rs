//! A request's headers, as meaning: the mandatory ones read at once, the others when asked for. Knows no lines.

use aorta_proto::uri::{Uri, UriError, is_word, trim};
use smallvec::SmallVec;

use super::contact::{Contact, Contacts, Lifetime};
use super::headers::Headers;
use super::lines::{Name, is_token};
use super::parse::Framing;
use super::values::{List, NameAddr, bounded_u32};
use super::via::Via;

/// More Contacts than this are refused with 400: above what any limit of an AoR allows, it bounds one request's memory.
pub const CONTACTS_MAX: usize = 1024;

/// More Path values than this are refused with 400: no route has so many hops, and each binding keeps them.
pub const PATHS_MAX: usize = 64;

/// A CSeq number is below 2^31 (RFC 3261 §8.1.1.5).
const CSEQ_MAX: u32 = i32::MAX.unsigned_abs();

/// What is wrong with a request: the status and reason phrase to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status} {reason}")]
pub struct Fault {
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: &'static str,
}

impl Fault {
    /// A 400.
    #[must_use]
    pub const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }
}

/// From or To.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party<'a> {
    /// The value as it came.
    pub raw: &'a [u8],
    /// The URI inside.
    pub uri: Uri<'a>,
    /// The tag.
    pub tag: Option<&'a [u8]>,
    /// The value without its parameters.
    address: &'a [u8],
}

/// CSeq: number and method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The number, below 2^31.
    pub number: u32,
    /// The method, which is the request's.
    pub method: &'a [u8],
}

/// A request whose start line and common headers hold what RFC 3261 §8.1.1 asks for. In a [`super::ParseError`] only `via` is
/// sure; what was not understood is empty there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method, case as it came (methods differ by case).
    pub method: &'a [u8],
    /// The Request-URI as it came.
    pub uri_raw: &'a [u8],
    /// The Request-URI. Its scheme may be one that is not served.
    pub uri: Result<Uri<'a>, UriError>,
    /// The top Via.
    pub via: Via<'a>,
    /// From.
    pub from: Party<'a>,
    /// To.
    pub to: Party<'a>,
    /// Call-ID.
    pub call_id: &'a [u8],
    /// CSeq.
    pub cseq: CSeq<'a>,
    /// Max-Forwards; RFC 2543 did not know it.
    pub max_forwards: Option<u32>,
    /// All headers, in their order.
    pub headers: Headers<'a>,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> CSeq<'a> {
    pub(super) fn read(value: &'a [u8]) -> Option<Self> {
        let (number, method) = value.split_at(value.iter().position(|byte| matches!(byte, b' ' | b'\t'))?);
        let (number, method) = (bounded_u32(number, CSEQ_MAX)?, trim(method));
        is_token(method).then_some(Self { number, method })
    }
}

impl<'a> Party<'a> {
    const EMPTY: Self = Self { raw: b"", uri: Uri::EMPTY, tag: None, address: b"" };

    /// Reads To, once From is known. Who registers himself (RFC 3261 §10.2) writes the same in both, but for the tag: then
    /// nothing is left to read.
    fn read_to(raw: &'a [u8], from: &Self, malformed: &'static str) -> Result<Self, Fault> {
        if raw == from.address { Ok(Self { raw, tag: None, ..*from }) } else { Self::read(raw, malformed) }
    }

    fn read(raw: &'a [u8], malformed: &'static str) -> Result<Self, Fault> {
        let fault = Fault::bad(malformed);
        let address = NameAddr::parse(raw).ok_or(fault)?;
        // "< sip:a@b >" is not in the grammar, yet clear (RFC 4475 §3.1.2.15).
        let uri = Uri::parse(trim(address.uri)).map_err(|_| fault)?;
        let mut params = address.params();
        let mut tag = None;
        for param in params.by_ref().filter(|param| param.is("tag")) {
            let value = param.value.filter(|value| !value.is_empty()).ok_or(fault)?;
            if tag.replace(value).is_some() {
                return Err(fault);
            }
        }
        let address = trim(&raw[..raw.len() - address.params.len()]);
        if params.malformed() { Err(fault) } else { Ok(Self { raw, uri, tag, address }) }
    }
}

impl<'a> Request<'a> {
    pub(super) fn unread(
        (method, uri): (&'a [u8], &'a [u8]),
        via: Via<'a>,
        headers: Headers<'a>,
        body: &'a [u8],
    ) -> Self {
        Self {
            method,
            uri_raw: uri,
            uri: Uri::parse(uri),
            via,
            from: Party::EMPTY,
            to: Party::EMPTY,
            call_id: b"",
            cseq: CSeq::default(),
            max_forwards: None,
            headers,
            body,
        }
    }

    /// The mandatory headers.
    pub(super) fn read_common(&mut self) -> Result<(), Fault> {
        if !self.via.well_formed {
            return Err(Fault::bad("Malformed Via"));
        }
        if self.uri.is_err() {
            return Err(Fault::bad("Malformed Request-URI"));
        }
        self.from = Party::read(self.single(Name::From, "Missing From", "Repeated From")?, "Malformed From")?;
        self.to = Party::read_to(self.single(Name::To, "Missing To", "Repeated To")?, &self.from, "Malformed To")?;
        self.call_id = self.single(Name::CallId, "Missing Call-ID", "Repeated Call-ID")?;
        if self.call_id.is_empty() || self.call_id.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) {
            return Err(Fault::bad("Malformed Call-ID"));
        }
        let cseq = self.single(Name::CSeq, "Missing CSeq", "Repeated CSeq")?;
        self.cseq = CSeq::read(cseq).ok_or(Fault::bad("Malformed CSeq"))?;
        if self.cseq.method != self.method {
            return Err(Fault::bad("CSeq Method Differs from Request Line"));
        }
        if let Some(value) = self.headers.at_most_one(Name::MaxForwards, "Repeated Max-Forwards")? {
            let hops = bounded_u32(value, 255).ok_or(Fault::bad("Malformed Max-Forwards"))?;
            self.max_forwards = Some(hops);
        }
        Ok(())
    }

    /// RFC 3261 §18.3: Content-Length rules over the packet's end, and may not reach beyond it.
    pub(super) fn cut_body(&mut self, framing: Framing) -> Result<(), Fault> {
        let Some(value) = self.headers.at_most_one(Name::ContentLength, "Repeated Content-Length")? else {
            return if framing == Framing::Stream { Err(Fault::bad("Missing Content-Length")) } else { Ok(()) };
        };
        let length = bounded_u32(value, u32::MAX).ok_or(Fault::bad("Malformed Content-Length"))?;
        let length = usize::try_from(length).map_err(|_| Fault::bad("Malformed Content-Length"))?;
        self.body = self.body.get(..length).ok_or(Fault::bad("Content-Length beyond the Message"))?;
        Ok(())
    }

    /// All headers of that name, in their order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.headers.all(name)
    }

    /// The first header of that name.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<&'a [u8]> {
        self.headers.first(name)
    }

    fn single(&self, name: Name, missing: &'static str, repeated: &'static str) -> Result<&'a [u8], Fault> {
        self.headers.at_most_one(name, repeated)?.ok_or(Fault::bad(missing))
    }

    /// The Contacts, over all headers.
    ///
    /// # Errors
    /// A 400 when one is malformed, or `*` is not alone.
    pub fn contacts(&self) -> Result<Contacts<'a>, Fault> {
        let mut star = false;
        let mut list = SmallVec::new();
        for value in self.all(Name::Contact).flat_map(List::new) {
            if value == b"*" {
                star = true;
            } else if list.len() == CONTACTS_MAX {
                return Err(Fault::bad("Too Many Contacts"));
            } else {
                list.push(Contact::parse(value)?);
            }
        }
        match (star, list.is_empty()) {
            (true, false) => Err(Fault::bad("Contact * with Other Contacts")),
            (true, true) => Ok(Contacts::Star),
            (false, _) => Ok(Contacts::List(list)),
        }
    }

    /// The Expires header.
    #[must_use]
    pub fn expires(&self) -> Lifetime {
        self.first(Name::Expires).map_or(Lifetime::Absent, Lifetime::read)
    }

    /// The Path values (RFC 3327), first to last, each as it came.
    ///
    /// # Errors
    /// A 400 when one is no name-addr in `<>` with a URI inside.
    pub fn paths(&self) -> Result<SmallVec<[&'a [u8]; 4]>, Fault> {
        const BAD: Fault = Fault::bad("Malformed Path");
        let mut paths = SmallVec::new();
        for value in self.all(Name::Path).flat_map(List::new) {
            let address = NameAddr::parse(value).filter(|address| address.bracketed).ok_or(BAD)?;
            let mut params = address.params();
            params.by_ref().for_each(drop);
            if params.malformed() || value.contains(&0) || Uri::parse(address.uri).is_err() {
                return Err(BAD);
            }
            if paths.len() == PATHS_MAX {
                return Err(Fault::bad("Too Many Paths"));
            }
            paths.push(value);
        }
        Ok(paths)
    }

    /// The option tags of Require, Supported or Proxy-Require.
    pub fn options(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.all(name).flat_map(List::new).filter(|option| !option.is_empty())
    }

    /// Whether an option tag (in lower case) stands in Supported.
    #[must_use]
    pub fn supports(&self, option: &str) -> bool {
        self.options(Name::Supported).any(|tag| is_word(tag, option))
    }

    /// User-Agent; empty when there is none.
    #[must_use]
    pub fn user_agent(&self) -> &'a [u8] {
        self.first(Name::UserAgent).unwrap_or_default()
    }

    /// The Via values, top first, each as it came.
    pub fn vias(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.all(Name::Via).flat_map(List::new)
    }
}
