//! Replies that leave together. Over UDP they are gathered and handed to the kernel in as few calls as can be; over TCP
//! each goes to its connection at once. Decides nothing but where the top Via sends them.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tracing::trace;

use super::reader::Desk;
use super::udp::{DATAGRAMS_AT_ONCE, Outgoing};
use super::{DEFAULT_PORT, ReplyPath, ViaTarget, Way, destination};
use crate::sip::message::reuse;

/// Gathered replies. Those over UDP leave with [`Replies::send`] and not before; dropped, they are lost.
#[derive(Debug)]
pub struct Replies {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    desk: Arc<Desk>,
    bytes: Vec<u8>,
    to: SocketAddr,
    from: IpAddr,
}

/// Replies that were gathered at once for whose like a thread keeps places.
const KEPT_MAX: usize = 1024;

thread_local! {
    /// Places of the replies that this thread sent last.
    static PLACES: Cell<Vec<Waiting>> = const { Cell::new(Vec::new()) };
}

impl Default for Replies {
    fn default() -> Self {
        Self { waiting: PLACES.take() }
    }
}

impl Replies {
    /// Adds a whole reply. UDP: from the address that the request came to, to its source address, at the source port if
    /// the Via has `rport`, else at its sent-by port. TCP: on the request's connection, or if that is gone on a new one to
    /// the source address at the sent-by port. A reply that cannot be sent is counted and lost, as on any network.
    pub fn push(&mut self, path: &ReplyPath, reply: Vec<u8>, via: &ViaTarget) {
        match &path.0 {
            Way::Udp { desk, peer, local } => {
                let to = destination(*peer, via, |maddr| desk.settings.allows(maddr));
                self.waiting.push(Waiting { desk: Arc::clone(desk), bytes: reply, to, from: *local });
            }
            Way::Tcp { connection, tcp } => {
                tcp.reply(connection, &reply, via.port.unwrap_or(DEFAULT_PORT));
                reuse(reply);
            }
        }
    }

    /// Sends what was gathered. What goes one way side by side, and of it what is of one length: so most of it leaves in one
    /// piece. UDP promises no order, and a phone awaits one reply at a time.
    pub fn send(mut self) {
        let way = |waiting: &Waiting| (Arc::as_ptr(&waiting.desk.port), waiting.from, waiting.to, waiting.bytes.len());
        self.waiting.sort_by_key(way);
        for together in self.waiting.chunk_by(|one, two| Arc::ptr_eq(&one.desk.port, &two.desk.port)) {
            let Some(first) = together.first() else { continue };
            let outgoing =
                together.iter().map(|waiting| Outgoing { bytes: &waiting.bytes, to: waiting.to, from: waiting.from });
            let outgoing: SmallVec<[Outgoing<'_>; DATAGRAMS_AT_ONCE]> = outgoing.collect();
            let (failed, why) = first.desk.port.send_all(&outgoing);
            if let Some(error) = why {
                trace!(failed, %error, "replies not sent");
            }
            let sheet = &first.desk.sheet;
            sheet.replies_sent.fetch_add((together.len() - failed) as u64, Ordering::Relaxed);
            sheet.replies_failed.fetch_add(failed as u64, Ordering::Relaxed);
        }
        self.waiting.drain(..).for_each(|waiting| reuse(waiting.bytes));
        if self.waiting.capacity() <= KEPT_MAX {
            PLACES.set(self.waiting);
        }
    }
}
