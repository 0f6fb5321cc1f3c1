//! From bytes to a message: start line, header lines, body. Refuses what RFC 3261 has refused before anybody looks at a
//! request's method; what a method asks for is the user agent's business.

use super::Fault;
use super::headers::{Header, Headers};
use super::lines::{Lines, Name, Unfolded, is_token, name_and_value};
use super::request::{CSeq, Request};
use super::values::bounded_u32;
use super::via::Via;

/// More header lines than this are refused with 400: a bound on the work of one datagram.
pub const HEADERS_MAX: usize = 512;

/// How a message's end was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The datagram ends it: Content-Length may be missing, and bytes beyond it are cut off (RFC 3261 §18.3).
    Datagram,
    /// Content-Length ends it, and must be there.
    Stream,
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
#[expect(clippy::large_enum_variant, reason = "nearly every message is a request; a box would cost an allocation each")]
pub enum Message<'a> {
    /// A request.
    Request(Request<'a>),
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
    pub headers: Headers<'a>,
}

impl<'a> Message<'a> {
    /// Reads one message. Empty lines before it are skipped.
    ///
    /// # Errors
    /// When it is none, or one that is answered with 400 or 505 before anybody looks at its method.
    pub fn parse(text: &'a Unfolded<'_>, framing: Framing) -> Result<Self, ParseError<'a>> {
        Self::read(text.received(), Some(text), framing)
    }

    /// Reads `bytes`; those of `folded` instead if they turn out to have folds.
    fn read(bytes: &'a [u8], folded: Option<&'a Unfolded<'_>>, framing: Framing) -> Result<Self, ParseError<'a>> {
        let mut rest = bytes;
        while let [b'\r' | b'\n', after @ ..] = rest {
            rest = after;
        }
        let silent = |reason| ParseError { fault: Fault::bad(reason), request: None };
        let mut lines = Lines::new(rest);
        let start = lines.next().ok_or(silent("Empty Message"))?;
        let mut headers = Headers::new();
        let fault = read_headers(&mut lines, &mut headers);
        // What a fold begins is no header: a head without a fault has none, and few have.
        if fault.is_some()
            && let Some(whole) = folded.and_then(Unfolded::whole)
        {
            return Self::read(whole, None, framing);
        }
        if lines.had_bare_cr() {
            // Copied into a reply it could pass for a line's end.
            return Err(silent("Bare CR"));
        }
        if start.len() >= 4 && start[..4].eq_ignore_ascii_case(b"SIP/") {
            return Response::read(start, headers).map(Self::Response).ok_or(silent("Malformed Response"));
        }
        let line = StartLine::read(start);
        let fault = line.fault.or(fault);
        let via = headers.first(Name::Via).and_then(Via::parse).ok_or(silent("Missing or Malformed Via"))?;
        let mut request = Request::unread((line.method, line.uri), via, headers, lines.rest());
        let read = request.read_common();
        let body = request.cut_body(framing);
        match fault.map_or(Ok(()), Err).and(read).and(body) {
            Ok(()) => Ok(Self::Request(request)),
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
        } else {
            None
        };
        let answerable =
            is_token(method) && (versioned || line.windows(5).any(|part| part.eq_ignore_ascii_case(b" SIP/")));
        Self { method, uri, fault, answerable }
    }
}

/// Reads header lines up to the empty one; what is left is the body then. Gives what is wrong with them.
fn read_headers<'a>(lines: &mut Lines<'a>, headers: &mut Headers<'a>) -> Option<Fault> {
    let mut fault = None;
    for line in lines.by_ref() {
        if line.is_empty() {
            return fault;
        }
        let Some((written, value)) = name_and_value(line) else {
            fault = Some(Fault::bad("Malformed Header"));
            continue;
        };
        if headers.len() == HEADERS_MAX {
            return Some(Fault::bad("Too Many Headers"));
        }
        headers.push(Header { name: Name::of(written), value });
    }
    // What came may be the half of a message.
    fault.or(Some(Fault::bad("Missing Empty Line after Headers")))
}

impl<'a> Response<'a> {
    fn read(start: &'a [u8], headers: Headers<'a>) -> Option<Self> {
        let rest = start.get(..8).filter(|version| version.eq_ignore_ascii_case(b"SIP/2.0 ")).map(|_| &start[8..])?;
        let digits = rest.split(|byte| *byte == b' ').next()?;
        let status = bounded_u32(digits, 699).filter(|status| *status >= 100 && digits.len() == 3)?;
        let call_id = headers.first(Name::CallId)?;
        let cseq = CSeq::read(headers.first(Name::CSeq)?)?;
        Some(Self { status: u16::try_from(status).ok()?, call_id, cseq, headers })
    }
}
