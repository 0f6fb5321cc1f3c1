//! Messages out of a byte stream (RFC 3261 §18.3, RFC 5626 §3.5.1). Holds bytes, reads no socket and no clock.

use super::Unfolded;
use super::lines::{Lines, Name, head_end, name_and_value};
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
            let within = &waiting[..waiting.len().min(self.max_bytes)];
            let Some(end) = head_end(within, self.searched) else {
                if waiting.len() > self.max_bytes {
                    self.broken = true;
                    return Some(Framed::Broken(b""));
                }
                // The empty line may have come in part: its first bytes are searched again.
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
    let mut length = None;
    for line in Lines::new(head.as_bytes()) {
        if let Some((written, value)) = name_and_value(line)
            && Name::of(written) == Name::ContentLength
            && length.replace(bounded_u32(value, u32::MAX)?).is_some()
        {
            return None;
        }
    }
    usize::try_from(length?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    const MESSAGE: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nContent-Length: \r\n 4\r\n\r\nbody";

    /// All frames of a stream that arrives in pieces of `step` bytes: messages as text, pings as `.`, a break as `!`.
    fn frames(stream: &[u8], step: usize, max: usize) -> Vec<String> {
        let mut framer = Framer::new(max);
        let mut found = Vec::new();
        for piece in stream.chunks(step) {
            framer.push(piece);
            while let Some(frame) = framer.next_frame() {
                found.push(match frame {
                    Framed::Message(bytes) => show(bytes),
                    Framed::Ping => ".".to_owned(),
                    Framed::Broken(head) => format!("!{}", show(head)),
                });
            }
        }
        found
    }

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let stream = [b"\r\n\r\n", MESSAGE, b"\r\n\r\n", b"\r\n", MESSAGE, MESSAGE].concat();
        let message = show(MESSAGE);
        for step in 1..stream.len() {
            let found = frames(&stream, step, 1000);
            let expected = [".", &message, ".", &message, &message];
            assert_eq!(found, expected, "{step}");
        }
    }

    #[test]
    fn a_stream_that_cannot_be_followed_is_given_up() {
        let head = "OPTIONS sip:a SIP/2.0\r\n";
        for (rest, answerable) in [
            ("X: y\r\n\r\n", true),
            ("l: 4\r\nContent-Length: 4\r\n\r\nbody", true),
            ("Content-Length: x\r\n\r\n", true),
            ("Content-Length: 4294967295\r\n\r\n", true),
            ("Content-Length: 99999999999999999999999\r\n\r\n", true),
            (&"X: y\r\n".repeat(40), false),
        ] {
            let stream = format!("{head}{rest}{head}");
            for step in [1, 7, 1000] {
                let found = frames(stream.as_bytes(), step, 200);
                assert_eq!(found.len(), 1, "{rest}");
                assert_eq!(found[0].len() > 1, answerable, "{found:?}");
                assert!(found[0].starts_with('!'));
            }
        }
    }

    #[test]
    fn a_partial_message_is_known_as_such() {
        let mut framer = Framer::new(100);
        assert!(!framer.is_partial());
        framer.push(b"\r\n");
        assert!(framer.next_frame().is_none() && !framer.is_partial());
        framer.push(&MESSAGE[..10]);
        assert!(framer.next_frame().is_none() && framer.is_partial());
        framer.push(&MESSAGE[10..]);
        assert!(matches!(framer.next_frame(), Some(Framed::Message(MESSAGE))));
        assert!(!framer.is_partial());
    }
}
