//! Replies that leave together. Over UDP they are gathered and handed to the kernel in as few calls as can be; over TCP
//! each goes to its connection at once. Decides nothing but where the top Via sends them.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tracing::trace;

use super::reader::Desk;
use super::udp::{DATAGRAMS_AT_ONCE, Outgoing};
use super::{DEFAULT_PORT, ReplyPath, ViaTarget, Way, destination};

/// Gathered replies. Those over UDP leave with [`Replies::send`] and not before; dropped, they are lost.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    desk: Arc<Desk>,
    bytes: Range<usize>,
    to: SocketAddr,
    from: IpAddr,
}

impl Replies {
    /// Adds a whole reply. UDP: from the address that the request came to, to its source address, at the source port if
    /// the Via has `rport`, else at its sent-by port. TCP: on the request's connection, or if that is gone on a new one to
    /// the source address at the sent-by port. A reply that cannot be sent is counted and lost, as on any network.
    pub fn push(&mut self, path: &ReplyPath, reply: &[u8], via: &ViaTarget) {
        match &path.0 {
            Way::Udp { desk, peer, local } => {
                let to = destination(*peer, via, |maddr| desk.settings.allows(maddr));
                let start = self.bytes.len();
                self.bytes.extend_from_slice(reply);
                let bytes = start..self.bytes.len();
                self.waiting.push(Waiting { desk: Arc::clone(desk), bytes, to, from: *local });
            }
            Way::Tcp { connection, tcp } => tcp.reply(connection, reply, via.port.unwrap_or(DEFAULT_PORT)),
        }
    }

    /// Sends what was gathered, and is empty again. What goes one way side by side, and of it what is of one length: so most of
    /// it leaves in one piece. UDP promises no order, and a phone awaits one reply at a time.
    pub fn send(&mut self) {
        let way = |waiting: &Waiting| (Arc::as_ptr(&waiting.desk.port), waiting.from, waiting.to, waiting.bytes.len());
        self.waiting.sort_by_key(way);
        for together in self.waiting.chunk_by(|one, two| Arc::ptr_eq(&one.desk.port, &two.desk.port)) {
            let Some(first) = together.first() else { continue };
            let outgoing = together.iter().map(|waiting| Outgoing {
                bytes: self.bytes.get(waiting.bytes.clone()).unwrap_or_default(),
                to: waiting.to,
                from: waiting.from,
            });
            let outgoing: SmallVec<[Outgoing<'_>; DATAGRAMS_AT_ONCE]> = outgoing.collect();
            let (failed, why) = first.desk.port.send_all(&outgoing);
            if let Some(error) = why {
                trace!(failed, %error, "replies not sent");
            }
            let sheet = &first.desk.sheet;
            sheet.replies_sent.fetch_add((together.len() - failed) as u64, Ordering::Relaxed);
            sheet.replies_failed.fetch_add(failed as u64, Ordering::Relaxed);
        }
        self.bytes.clear();
        self.waiting.clear();
    }
}
