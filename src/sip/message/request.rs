//! A whole message: start line, headers, body, and the checks that RFC 3261 asks of every request before its method
//! matters. What it asks of a method is the user agent's business.

use aorta_proto::uri::{Uri, UriError};

use super::contact::{Contact, Contacts, Lifetime};
use super::lines::{Name, Unfolded, is_token, name_and_value, next_line};
use super::values::{List, NameAddr, bounded_u32};
use super::via::Via;

/// More header lines than this are refused with 400: a bound on the work of one datagram.
pub const HEADERS_MAX: usize = 512;

/// A CSeq number is below 2^31 (RFC 3261 §8.1.1.5).
const CSEQ_MAX: u32 = i32::MAX.unsigned_abs();

/// How a message's end was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The datagram ends it: Content-Length may be missing, and bytes beyond it are cut off (RFC 3261 §18.3).
    Datagram,
    /// Content-Length ends it, and must be there.
    Stream,
}

/// One header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which one.
    pub name: Name,
    /// Its name as it was written.
    pub written: &'a [u8],
    /// Its value, trimmed.
    pub value: &'a [u8],
}

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

/// Why bytes are no message, or none that may be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ParseError<'a> {
    /// What to answer, if somebody can be answered.
    pub fault: Fault,
    /// The request as far as it was understood, when it has a usable top Via and is no ACK: [`super::Reply::to`] takes it.
    /// `None`: silence.
    pub request: Option<Box<Request<'a>>>,
}

/// A SIP message, as slices of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A request.
    Request(Box<Request<'a>>),
    /// A response.
    Response(Response<'a>),
}

/// A response; only as much as a client of probes needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<'a> {
    /// 100 to 699.
    pub status: u16,
    /// Call-ID.
    pub call_id: &'a [u8],
    /// CSeq.
    pub cseq: CSeq<'a>,
    /// All headers.
    pub headers: Vec<Header<'a>>,
}

/// From or To.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party<'a> {
    /// The value as it came.
    pub raw: &'a [u8],
    /// The URI inside.
    pub uri: &'a [u8],
    /// The tag.
    pub tag: Option<&'a [u8]>,
}

/// CSeq: number and method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The number, below 2^31.
    pub number: u32,
    /// The method, which is the request's.
    pub method: &'a [u8],
}

/// A request whose start line and common headers hold what RFC 3261 §8.1.1 asks for. In a [`ParseError`] only `via` is
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
    pub headers: Vec<Header<'a>>,
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads one message. Empty lines before it are skipped.
    ///
    /// # Errors
    /// When it is none, or one that is answered with 400 or 505 before anybody looks at its method.
    pub fn parse(text: &'a Unfolded<'_>, framing: Framing) -> Result<Self, ParseError<'a>> {
        let mut rest = text.as_bytes();
        while let [b'\r' | b'\n', after @ ..] = rest {
            rest = after;
        }
        let silent = |reason| ParseError { fault: Fault::bad(reason), request: None };
        let start = next_line(&mut rest).ok_or(silent("Empty Message"))?;
        let (headers, fault) = read_headers(&mut rest);
        if start.len() >= 4 && start[..4].eq_ignore_ascii_case(b"SIP/") {
            return Response::read(start, headers).map(Self::Response).ok_or(silent("Malformed Response"));
        }
        let line = StartLine::read(start);
        let fault = line.fault.or(fault);
        let Some(via) = headers.iter().find(|header| header.name == Name::Via).and_then(|via| Via::parse(via.value))
        else {
            return Err(silent("Missing or Malformed Via"));
        };
        let mut request = Request::unread(&line, via, headers, rest);
        let read = request.read_common();
        let body = request.cut_body(framing);
        match fault.map_or(Ok(()), Err).and(read).and(body) {
            Ok(()) => Ok(Self::Request(Box::new(request))),
            Err(fault) => {
                let answerable = line.answerable && request.method != b"ACK";
                Err(ParseError { fault, request: answerable.then(|| Box::new(request)) })
            }
        }
    }
}

/// The three parts of a request's first line, as far as they can be told apart.
struct StartLine<'a> {
    method: &'a [u8],
    uri: &'a [u8],
    fault: Option<Fault>,
    /// Whether it looks like SIP at all.
    answerable: bool,
}

impl<'a> StartLine<'a> {
    fn read(line: &'a [u8]) -> Self {
        let first = memchr::memchr(b' ', line).unwrap_or(line.len());
        let last = memchr::memrchr(b' ', line).unwrap_or(line.len());
        let (method, version) = (&line[..first], line.get(last + 1..).unwrap_or_default());
        let uri = line.get(first + 1..last).unwrap_or_default();
        let versioned = version.len() > 4 && version[..4].eq_ignore_ascii_case(b"SIP/");
        let fault = if !is_token(method) || !versioned || uri.is_empty() {
            Some(Fault::bad("Malformed Request Line"))
        } else if &version[4..] != b"2.0" {
            Some(Fault { status: 505, reason: "Version Not Supported" })
        } else if uri.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f | b'<' | b'>' | b'"')) {
            Some(Fault::bad("Malformed Request-URI"))
        } else {
            None
        };
        let answerable =
            is_token(method) && (versioned || line.windows(5).any(|part| part.eq_ignore_ascii_case(b" SIP/")));
        Self { method, uri, fault, answerable }
    }
}

fn read_headers<'a>(rest: &mut &'a [u8]) -> (Vec<Header<'a>>, Option<Fault>) {
    let mut headers = Vec::with_capacity(24);
    let mut fault = None;
    while let Some(line) = next_line(rest) {
        if line.is_empty() {
            return (headers, fault);
        }
        let Some((written, value)) = name_and_value(line) else {
            fault = Some(Fault::bad("Malformed Header"));
            continue;
        };
        if headers.len() == HEADERS_MAX {
            return (headers, Some(Fault::bad("Too Many Headers")));
        }
        headers.push(Header { name: Name::of(written), written, value });
    }
    // The empty line is missing: what came may be the half of a message.
    (headers, fault.or(Some(Fault::bad("Missing Empty Line after Headers"))))
}

impl<'a> Response<'a> {
    fn read(start: &'a [u8], headers: Vec<Header<'a>>) -> Option<Self> {
        let rest = start.get(..8).filter(|version| version.eq_ignore_ascii_case(b"SIP/2.0 ")).map(|_| &start[8..])?;
        let digits = rest.split(|byte| *byte == b' ').next()?;
        let status = bounded_u32(digits, 699).filter(|status| *status >= 100 && digits.len() == 3)?;
        let value = |name| headers.iter().find(|header| header.name == name).map(|header| header.value);
        let call_id = value(Name::CallId)?;
        let cseq = CSeq::read(value(Name::CSeq)?)?;
        Some(Self { status: u16::try_from(status).ok()?, call_id, cseq, headers })
    }
}

impl<'a> CSeq<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let mut parts = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|part| !part.is_empty());
        let number = bounded_u32(parts.next()?, CSEQ_MAX)?;
        let method = parts.next().filter(|method| is_token(method))?;
        parts.next().is_none().then_some(Self { number, method })
    }
}

impl<'a> Party<'a> {
    const EMPTY: Self = Self { raw: b"", uri: b"", tag: None };

    fn read(raw: &'a [u8], malformed: &'static str) -> Result<Self, Fault> {
        let fault = Fault::bad(malformed);
        let address = NameAddr::parse(raw).ok_or(fault)?;
        let mut params = address.params();
        let mut tag = None;
        for param in params.by_ref().filter(|param| param.is("tag")) {
            let value = param.value.filter(|value| !value.is_empty()).ok_or(fault)?;
            if tag.replace(value).is_some() {
                return Err(fault);
            }
        }
        let whole = !params.malformed() && Uri::parse(address.uri).is_ok();
        whole.then_some(Self { raw, uri: address.uri, tag }).ok_or(fault)
    }
}

impl<'a> Request<'a> {
    fn unread(line: &StartLine<'a>, via: Via<'a>, headers: Vec<Header<'a>>, body: &'a [u8]) -> Self {
        Self {
            method: line.method,
            uri_raw: line.uri,
            uri: Uri::parse(line.uri),
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
    fn read_common(&mut self) -> Result<(), Fault> {
        self.from = Party::read(self.single(Name::From, "Missing From", "Repeated From")?, "Malformed From")?;
        self.to = Party::read(self.single(Name::To, "Missing To", "Repeated To")?, "Malformed To")?;
        self.call_id = self.single(Name::CallId, "Missing Call-ID", "Repeated Call-ID")?;
        if self.call_id.is_empty() || self.call_id.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f)) {
            return Err(Fault::bad("Malformed Call-ID"));
        }
        let cseq = self.single(Name::CSeq, "Missing CSeq", "Repeated CSeq")?;
        self.cseq = CSeq::read(cseq).ok_or(Fault::bad("Malformed CSeq"))?;
        if self.cseq.method != self.method {
            return Err(Fault::bad("CSeq Method Differs from Request Line"));
        }
        if self.uri.is_err() {
            return Err(Fault::bad("Malformed Request-URI"));
        }
        if let Some(value) = self.at_most_one(Name::MaxForwards, "Repeated Max-Forwards")? {
            let hops = bounded_u32(value, 255).ok_or(Fault::bad("Malformed Max-Forwards"))?;
            self.max_forwards = Some(hops);
        }
        Ok(())
    }

    /// RFC 3261 §18.3: Content-Length rules over the packet's end, and may not reach beyond it.
    fn cut_body(&mut self, framing: Framing) -> Result<(), Fault> {
        let Some(value) = self.at_most_one(Name::ContentLength, "Repeated Content-Length")? else {
            return if framing == Framing::Stream { Err(Fault::bad("Missing Content-Length")) } else { Ok(()) };
        };
        let length = bounded_u32(value, u32::MAX).ok_or(Fault::bad("Malformed Content-Length"))?;
        let length = usize::try_from(length).map_err(|_| Fault::bad("Malformed Content-Length"))?;
        self.body = self.body.get(..length).ok_or(Fault::bad("Content-Length beyond the Message"))?;
        Ok(())
    }

    /// All headers of that name, in their order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.headers.iter().filter(move |header| header.name == name).map(|header| header.value)
    }

    /// The first header of that name.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    fn single(&self, name: Name, missing: &'static str, repeated: &'static str) -> Result<&'a [u8], Fault> {
        self.at_most_one(name, repeated)?.ok_or(Fault::bad(missing))
    }

    fn at_most_one(&self, name: Name, repeated: &'static str) -> Result<Option<&'a [u8]>, Fault> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() { Err(Fault::bad(repeated)) } else { Ok(first) }
    }

    /// The Contacts, over all headers.
    ///
    /// # Errors
    /// A 400 when one is malformed, or `*` is not alone.
    pub fn contacts(&self) -> Result<Contacts<'a>, Fault> {
        let mut star = false;
        let mut list = Vec::new();
        for value in self.all(Name::Contact).flat_map(List::new) {
            if value == b"*" {
                star = true;
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
    pub fn paths(&self) -> Result<Vec<&'a [u8]>, Fault> {
        const BAD: Fault = Fault::bad("Malformed Path");
        let mut paths = Vec::new();
        for value in self.all(Name::Path).flat_map(List::new) {
            let address = NameAddr::parse(value).filter(|address| address.bracketed).ok_or(BAD)?;
            let clean = !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
            if !clean || Uri::parse(address.uri).is_err() {
                return Err(BAD);
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
        self.options(Name::Supported).any(|tag| tag.eq_ignore_ascii_case(option.as_bytes()))
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
