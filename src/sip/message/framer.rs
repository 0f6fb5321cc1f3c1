//! Messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §3.5.1). Holds bytes, reads no socket and no clock.

use super::Unfolded;
use super::lines::{Name, head_end, name_and_value, next_line};
use super::values::bounded_u32;

/// Cuts a stream into messages. Memory is bounded by `max_bytes` and one read.
#[derive(Debug)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Bytes given out already.
    taken: usize,
    /// How far the head of the current message was searched for its end.
    searched: usize,
    /// End of the current message's head and its body's length, once known.
    head: Option<(usize, usize)>,
    max_bytes: usize,
    broken: bool,
}

/// What a stream holds next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A whole message.
    Message(&'a [u8]),
    /// CRLF CRLF between messages: answer CRLF.
    Ping,
    /// The stream cannot be followed any further: close it after this. The bytes are a head to answer with 400, which
    /// [`super::Message::parse`] gives for them with [`super::Framing::Stream`]; nothing if there is no whole head.
    Broken(&'a [u8]),
}

impl Framer {
    /// A framer of messages of up to `max_bytes`, head and body together.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { bytes: Vec::new(), taken: 0, searched: 0, head: None, max_bytes, broken: false }
    }

    /// Takes what was read. Call [`Framer::next_frame`] until it gives `None` before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a message has begun and is not whole: the time it may take is counted from its first byte.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.bytes[self.taken..].iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// The next message or ping; `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Framed<'_>> {
        if self.broken {
            return None;
        }
        if self.head.is_none() && self.searched == 0 && self.take_ping() {
            return Some(Framed::Ping);
        }
        let waiting = &self.bytes[self.taken..];
        if self.head.is_none() {
            let Some(end) = head_end(waiting, self.searched) else {
                if waiting.len() > self.max_bytes {
                    self.broken = true;
                    return Some(Framed::Broken(b""));
                }
                // The empty line may have come in part: its first three bytes are searched again.
                self.searched = waiting.len().saturating_sub(3);
                return None;
            };
            match content_length(&waiting[..end]) {
                Some(body) if end.saturating_add(body) <= self.max_bytes => self.head = Some((end, body)),
                _ => {
                    self.broken = true;
                    return Some(Framed::Broken(&self.bytes[self.taken..self.taken + end]));
                }
            }
        }
        let (end, body) = self.head?;
        if waiting.len() < end + body {
            return None;
        }
        let start = self.taken;
        self.taken += end + body;
        self.head = None;
        self.searched = 0;
        Some(Framed::Message(&self.bytes[start..self.taken]))
    }

    /// Skips empty lines before a message; whether two of them in a row were a ping.
    fn take_ping(&mut self) -> bool {
        loop {
            match &self.bytes[self.taken..] {
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    self.taken += 4;
                    return true;
                }
                // One CRLF may be the first half of a ping.
                [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] | [b'\r'] => return false,
                [b'\r', b'\n', ..] => self.taken += 2,
                [b'\n', ..] => self.taken += 1,
                _ => return false,
            }
        }
    }
}

/// The body's length, if the head names exactly one.
fn content_length(head: &[u8]) -> Option<usize> {
    let head = Unfolded::new(head);
    let mut rest = head.as_bytes();
    let mut length = None;
    while let Some(line) = next_line(&mut rest) {
        if let Some((written, value)) = name_and_value(line)
            && Name::of(written) == Name::ContentLength
            && length.replace(bounded_u32(value, u32::MAX)?).is_some()
        {
            return None;
        }
    }
    usize::try_from(length?).ok()
}
