//! Where messages end in a stream (RFC 3261 §18.3) and what is only a keep-alive (RFC 5626 §3.5.1). Pure; understands no
//! header but Content-Length.

use memchr::memmem;

/// Cuts a stream into messages. Holds at most one incomplete message and what was pushed with it.
#[derive(Debug)]
pub(super) struct Framer {
    bytes: Vec<u8>,
    /// What was given out already.
    start: usize,
    /// Up to here no end of a header was found.
    searched: usize,
    /// One line end was skipped; a second makes a ping.
    line_ended: bool,
    message_bytes_max: usize,
}

/// What comes next in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framed<'a> {
    /// A whole message, with its body.
    Message(&'a [u8]),
    /// Two line ends where a message could start: a ping, to be answered with one line end.
    Ping,
    /// Nothing whole is there yet.
    Incomplete,
    /// The stream cannot be framed any further. `head` is the header of the message at fault, if it was whole.
    Broken {
        /// Start line and header fields, with the empty line.
        head: Option<&'a [u8]>,
        /// Status of the answer that it deserves.
        status: u16,
        /// What is wrong, as a reason phrase.
        reason: &'static str,
    },
}

impl Framer {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, searched: 0, line_ended: false, message_bytes_max }
    }

    /// Takes what was read.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether a message has begun and is not whole.
    pub(super) fn is_within_message(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// What comes next. To be asked until it says [`Framed::Incomplete`] or [`Framed::Broken`].
    pub(super) fn next(&mut self) -> Framed<'_> {
        while self.bytes[self.start..].starts_with(b"\r\n") {
            self.start += 2;
            self.line_ended = !self.line_ended;
            if !self.line_ended {
                return Framed::Ping;
            }
        }
        if !self.is_within_message() {
            self.release_memory();
            return Framed::Incomplete;
        }
        let rest = &self.bytes[self.start..];
        // The end may straddle what was searched and what is new, by up to three bytes.
        let from = self.searched.saturating_sub(self.start).saturating_sub(3);
        let Some(end) = memmem::find(&rest[from..], b"\r\n\r\n") else {
            self.searched = self.bytes.len();
            let broken = Framed::Broken { head: None, status: 413, reason: "Header Too Large" };
            return if rest.len() > self.message_bytes_max { broken } else { Framed::Incomplete };
        };
        let head_len = from + end + 4;
        self.searched = self.start + head_len - 4;
        let head = Some(&rest[..head_len]);
        let body_len = match content_length(&rest[..head_len]) {
            Ok(Some(len)) => len,
            Ok(None) => return Framed::Broken { head, status: 400, reason: "Missing Content-Length" },
            Err(reason) => return Framed::Broken { head, status: 400, reason },
        };
        let whole = head_len.saturating_add(body_len);
        if whole > self.message_bytes_max {
            return Framed::Broken { head, status: 413, reason: "Request Entity Too Large" };
        }
        if rest.len() < whole {
            return Framed::Incomplete;
        }
        let begin = self.start;
        self.start += whole;
        self.searched = self.start;
        self.line_ended = false;
        Framed::Message(&self.bytes[begin..begin + whole])
    }

    /// An idle connection keeps no buffer.
    fn release_memory(&mut self) {
        self.bytes = Vec::new();
        (self.start, self.searched) = (0, 0);
    }
}

/// The Content-Length of a header; several must agree.
fn content_length(head: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut found = None;
    let mut lines = memmem::find_iter(head, b"\r\n").peekable();
    let mut begin = lines.next().map_or(head.len(), |end| end + 2);
    while let Some(mut end) = lines.next() {
        // A line that starts with white space goes on with the one before.
        while matches!(head.get(end + 2), Some(b' ' | b'\t')) {
            let Some(next) = lines.next() else { break };
            end = next;
        }
        if let Some(len) = line_content_length(&head[begin..end])? {
            if found.is_some_and(|before| before != len) {
                return Err("Contradictory Content-Length");
            }
            found = Some(len);
        }
        begin = end + 2;
    }
    Ok(found)
}

fn line_content_length(line: &[u8]) -> Result<Option<usize>, &'static str> {
    let Some(colon) = memchr::memchr(b':', line) else { return Ok(None) };
    let name = line[..colon].trim_ascii_end();
    if !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"l") {
        return Ok(None);
    }
    let digits = line[colon + 1..].trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("Bad Content-Length");
    }
    // A number too long for a usize is certainly too long for a message.
    let text = std::str::from_utf8(digits).map_err(|_| "Bad Content-Length")?;
    Ok(Some(text.parse().unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"REGISTER sip:a SIP/2.0\r\nVia: x\r\nContent-Length : 3\r\n\r\nabc";
    const TWO: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nl:\r\n 0\r\nX: y\r\n\r\n";

    fn messages(framer: &mut Framer) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        loop {
            match framer.next() {
                Framed::Message(message) => found.push(message.to_vec()),
                Framed::Ping => found.push(b"ping".to_vec()),
                Framed::Incomplete => return found,
                broken @ Framed::Broken { .. } => panic!("{broken:?}"),
            }
        }
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages() {
        let stream = [b"\r\n", ONE, TWO, b"\r\n\r\n", ONE, b"\r\n", TWO].concat();
        let wanted: Vec<&[u8]> = vec![ONE, TWO, b"ping", ONE, TWO];
        for first in 0..stream.len() {
            for second in [first, (first + 1).min(stream.len()), (first + 40).min(stream.len())] {
                let mut framer = Framer::new(65_535);
                let mut found = Vec::new();
                for piece in [&stream[..first], &stream[first..second], &stream[second..]] {
                    framer.push(piece);
                    found.extend(messages(&mut framer));
                }
                assert_eq!(found, wanted, "cut at {first} and {second}");
            }
        }
        let mut framer = Framer::new(65_535);
        let mut found = Vec::new();
        for byte in &stream {
            framer.push(std::slice::from_ref(byte));
            found.extend(messages(&mut framer));
        }
        assert_eq!(found, wanted, "byte by byte");
        assert!(!framer.is_within_message());
    }

    fn broken(stream: &[u8], max: usize) -> (bool, u16, &'static str) {
        let mut framer = Framer::new(max);
        framer.push(stream);
        match framer.next() {
            Framed::Broken { head, status, reason } => (head.is_some(), status, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_framed_says_why() {
        assert_eq!(broken(b"X y SIP/2.0\r\nVia: x\r\n\r\n", 999), (true, 400, "Missing Content-Length"));
        for bad in ["-1", "3x", "", "0x3", "1 2", "+1"] {
            let stream = format!("X y SIP/2.0\r\nContent-Length: {bad}\r\n\r\nabc");
            assert_eq!(broken(stream.as_bytes(), 999), (true, 400, "Bad Content-Length"), "{bad:?}");
        }
        let two = b"X y SIP/2.0\r\nContent-Length: 1\r\nl: 2\r\n\r\nabc";
        assert_eq!(broken(two, 999), (true, 400, "Contradictory Content-Length"));
        let huge = b"X y SIP/2.0\r\nContent-Length: 99999999999999999999999\r\n\r\n";
        assert_eq!(broken(huge, 999), (true, 413, "Request Entity Too Large"));
        assert_eq!(broken(&[b'x'; 1000], 999), (false, 413, "Header Too Large"));
    }

    #[test]
    fn the_longest_message_allowed_is_taken() {
        let stream = b"X y SIP/2.0\r\nl: 3\r\n\r\nabc";
        let mut framer = Framer::new(stream.len());
        framer.push(stream);
        assert_eq!(framer.next(), Framed::Message(stream));
        assert_eq!(broken(stream, stream.len() - 1).1, 413);
    }
}
