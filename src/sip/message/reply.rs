//! Responses to received requests (RFC 3261 §8.2.6): what is copied, what is added. Sends nothing, chooses no status.

use std::cell::RefCell;
use std::net::SocketAddr;

use aorta_proto::uri::push_decimal;
use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::lines::Name;
use super::request::Request;

/// A response while it is written. Status line, Via, From, To, Call-ID and CSeq are there from the start.
#[derive(Debug, Clone)]
pub struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    /// Starts the response to `request` that came from `peer`. Every Via byte is as it came but what RFC 3261 §18.2.1 and
    /// RFC 3581 §4 add to the top one; the To gets `to_tag` when it has no tag (but a 100 gets none).
    #[must_use]
    pub fn to(request: &Request<'_>, peer: SocketAddr, status: u16, reason: &str, to_tag: &str) -> Self {
        let mut bytes = buffer();
        bytes.extend_from_slice(b"SIP/2.0 ");
        push_decimal(&mut bytes, status.into());
        bytes.push(b' ');
        bytes.extend_from_slice(reason.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        for (index, value) in request.all(Name::Via).enumerate() {
            bytes.extend(b"Via: ");
            if index == 0 {
                request.via.write_stamped(peer, &mut bytes);
                bytes.extend(request.via.more);
            } else {
                bytes.extend(value);
            }
            bytes.extend(b"\r\n");
        }
        let mut reply = Self { bytes };
        if let Some(from) = request.first(Name::From) {
            reply.push("From", from, &[]);
        }
        if let Some(to) = request.first(Name::To) {
            let tagged = request.to.tag.is_some() || status == 100;
            let (mark, tag) = if tagged { ("", "") } else { (";tag=", to_tag) };
            reply.push("To", to, &[mark, tag]);
        }
        if let Some(call_id) = request.first(Name::CallId) {
            reply.push("Call-ID", call_id, &[]);
        }
        if let Some(cseq) = request.first(Name::CSeq) {
            reply.push("CSeq", cseq, &[]);
        }
        reply
    }

    /// Adds a header. A CR or LF in `value` becomes a space: nothing that was received can start a line of its own.
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.header_with(name, |line| line.extend_from_slice(value.as_ref()))
    }

    /// Adds a header whose value `write` appends, as [`Reply::header`].
    #[must_use]
    pub fn header_with(mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.line(name, write);
        self
    }

    /// Ends the response, which has no body.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend(b"Content-Length: 0\r\n\r\n");
        self.bytes
    }

    /// Adds a header of the request as it came: one line, which holds no line's end.
    fn push(&mut self, name: &str, value: &[u8], more: &[&str]) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        more.iter().for_each(|part| self.bytes.extend_from_slice(part.as_bytes()));
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn line(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b": ");
        let start = self.bytes.len();
        write(&mut self.bytes);
        let mut rest = self.bytes.get_mut(start..).unwrap_or_default();
        while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
            rest[at] = b' ';
            rest = &mut rest[at + 1..];
        }
        self.bytes.extend_from_slice(b"\r\n");
    }
}

/// Room for most replies.
const REPLY_BYTES: usize = 1024;

/// Buffers that a thread keeps: as many replies as one batch makes.
const SPARE_MAX: usize = 32;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What threads that send more than they write leave to those that write more than they send: a reply that waits for acks is
/// written where its request came in, and sent where the last ack did.
static DEPOT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Buffers that are there at most: those of the replies of some milliseconds.
const DEPOT_MAX: usize = 1024;

/// Buffers that go there, or come from there, at once.
const DEPOT_AT_ONCE: usize = SPARE_MAX / 2;

/// An empty buffer for a reply.
fn buffer() -> Vec<u8> {
    let spare = SPARE.with_borrow_mut(|spare| {
        if spare.is_empty() {
            let mut depot = DEPOT.lock();
            let left = depot.len().saturating_sub(DEPOT_AT_ONCE);
            spare.extend(depot.drain(left..));
        }
        spare.pop()
    });
    spare.unwrap_or_else(|| Vec::with_capacity(REPLY_BYTES))
}

/// Takes back the bytes of a reply that was sent: a later one is written to them.
pub fn reuse(mut reply: Vec<u8>) {
    if reply.capacity() <= 4 * REPLY_BYTES {
        reply.clear();
        SPARE.with_borrow_mut(|spare| {
            spare.push(reply);
            if spare.len() > SPARE_MAX {
                let mut depot = DEPOT.lock();
                let room = DEPOT_MAX.saturating_sub(depot.len());
                depot.extend(spare.drain(SPARE_MAX - DEPOT_AT_ONCE..).take(room));
            }
        });
    }
}

const RFC1123: &[BorrowedFormatItem<'static>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// The value of a Date header (RFC 3261 §20.17) for a wall-clock time in seconds since 1970.
#[must_use]
pub fn http_date(unix_s: u64) -> String {
    let time = i64::try_from(unix_s).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(RFC1123).unwrap_or_default()
}

thread_local! {
    /// The Date that this thread wrote last, and its second.
    static WRITTEN: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

/// Appends [`http_date`], which many replies of one second share.
pub fn push_http_date(unix_s: u64, out: &mut Vec<u8>) {
    WRITTEN.with_borrow_mut(|(second, date)| {
        if *second != unix_s {
            (*second, *date) = (unix_s, http_date(unix_s));
        }
        out.extend_from_slice(date.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn buffers_go_from_the_thread_that_sends_to_the_thread_that_writes_and_are_bounded() {
        let written: Vec<_> = (0..DEPOT_MAX / 2).map(|_| buffer()).collect();
        let places: HashSet<_> = written.iter().map(|bytes| bytes.as_ptr() as usize).collect();
        let sends = move || {
            written.into_iter().for_each(|mut bytes| {
                bytes.extend_from_slice(b"SIP/2.0 200 OK");
                reuse(bytes);
            });
            // The sender stays, and keeps some, while another writes.
            let again: Vec<_> = thread::spawn(|| (0..DEPOT_MAX / 4).map(|_| buffer()).collect()).join().unwrap();
            assert!(again.iter().all(Vec::is_empty));
            let kept = again.iter().filter(|bytes| places.contains(&(bytes.as_ptr() as usize)));
            assert!(kept.count() > DEPOT_MAX / 8, "other tests may have taken some");
            (0..4 * DEPOT_MAX).for_each(|_| reuse(Vec::with_capacity(REPLY_BYTES)));
            assert!(SPARE.with_borrow(Vec::len) <= SPARE_MAX);
            assert!(DEPOT.lock().len() <= DEPOT_MAX);
        };
        thread::spawn(sends).join().unwrap();
    }
}
