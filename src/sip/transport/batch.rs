//! Messages that were read at once, and how each is handled: one that makes its handling panic takes no other with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use smallvec::SmallVec;
use tracing::error;

use super::connection::Connection;
use super::counts::{Sheet, count};
use super::reader::Reader;
use super::tcp::Tcp;
use super::udp::{Datagram, Room};
use super::{Flow, ReplyPath, Transport, Way};

/// Messages that one thread read at once.
#[derive(Debug)]
pub struct Batch<'a>(pub(super) Read<'a>);

/// Where they are.
#[derive(Debug)]
pub(super) enum Read<'a> {
    /// Datagrams, not yet looked at.
    Datagrams { reader: &'a Reader, room: &'a Room, datagrams: &'a [Datagram] },
    /// One message of a stream.
    Message { bytes: &'a [u8], connection: &'a Arc<Connection>, tcp: &'a Arc<Tcp> },
}

impl Batch<'_> {
    /// Has each message handled, in order. A panic in there is counted and said, and the next message is handled. Where there
    /// are several, `foresee` sees up to `together` of them before the first of these is handled; one that has waited too long may
    /// be seen and then not handled.
    pub fn for_each(
        self,
        (together, foresee): (usize, impl Fn(&[&[u8]])),
        mut handle: impl FnMut(&[u8], &Flow, ReplyPath),
    ) {
        match self.0 {
            Read::Datagrams { reader, room, datagrams } => {
                let desk = &reader.desk;
                for datagrams in datagrams.chunks(together.max(1)) {
                    look_ahead(reader, room, datagrams, &foresee);
                    for datagram in datagrams {
                        let bytes = room.bytes_of(datagram);
                        let (peer, local, received_age_us) = (datagram.peer, datagram.local, datagram.age_us());
                        if !reader.admits(bytes, peer.ip(), received_age_us) {
                            continue;
                        }
                        let flow = Flow { transport: Transport::Udp, peer, local, received_age_us };
                        let way = Way::Udp { desk: Arc::clone(desk), peer, local: local.ip() };
                        guarded(&desk.sheet, bytes, || handle(bytes, &flow, ReplyPath(way)));
                    }
                }
            }
            Read::Message { bytes, connection, tcp } => {
                count(&tcp.sheet.tcp_messages);
                let way = Way::Tcp { connection: Arc::clone(connection), tcp: Arc::clone(tcp) };
                guarded(&tcp.sheet, bytes, || handle(bytes, &connection.flow(), ReplyPath(way)));
            }
        }
    }
}

/// Shows those that may be handled, if there are several. A guess: where it fails all are handled as well.
fn look_ahead(reader: &Reader, room: &Room, datagrams: &[Datagram], foresee: impl Fn(&[&[u8]])) {
    let seen = |datagram: &Datagram| {
        let bytes = room.bytes_of(datagram);
        reader.may_admit(bytes, datagram.peer.ip()).then_some(bytes)
    };
    let messages: SmallVec<[_; 16]> = datagrams.iter().filter_map(seen).collect();
    if messages.len() > 1 {
        _ = catch_unwind(AssertUnwindSafe(|| foresee(&messages)));
    }
}

/// What is done for a whole batch may panic as well.
pub(super) fn guarded(sheet: &Sheet, message: &[u8], handle: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(handle)).is_err() {
        count(&sheet.dropped_panicked);
        error!(bytes = message.len(), "a message made its handling panic; it was dropped");
    }
}
