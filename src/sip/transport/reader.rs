//! Those who read one UDP socket: who is heard, what is too old, and whether the process slept.
//!
//! The first reader of a socket is a task on the node's thread of sockets, where the links are, and what comes while it handles a
//! batch is its next batch. The others are threads that are called ([`Call`]) when a reader falls behind: two receives one after the
//! other brought as much as they could, or as one thread should handle ([`HANDLED_AT_ONCE`]). They read while that is so:
//! threads join in as load grows. Each also looks once a tick, for the first reader may be held up.
//!
//! **2026-11, the first reader is where the links are.** A REGISTER is read, published and sent to the other nodes without a
//! second thread that must be woken, and what its change costs in caches it costs once. Measured with three nodes on three
//! processors, in turns with readers that all had threads of their own: a closed loop of 256 refreshes did 1.3 to 1.5 times as
//! many, for 0.8 to 0.9 of the processor time, one of 64 1.1 to 1.3 times; refreshes that come alone took 0.93. Threads that join
//! in at the first full receive do no more look-ups, for a tenth more processor time.
//!
//! [`HANDLED_AT_ONCE`]: super::udp::HANDLED_AT_ONCE

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::Service;
use super::batch::{Batch, Read, guarded};
use super::counts::{Sheet, count};
use super::settings::{Settings, micros};
use super::tick::{TICK, Tick};
use super::udp::{Datagram, Room, UdpPort};
use crate::clock::Clock;

/// One reader's own things: its reply paths hold them too, so that threads do not count references on one cache line.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) port: Arc<UdpPort>,
    pub(super) sheet: Sheet,
    pub(super) settings: Arc<Settings>,
}

/// Calls one of the threads that wait to read a socket.
#[derive(Debug, Default)]
pub(super) struct Call {
    made: Mutex<bool>,
    heard: Condvar,
}

impl Call {
    /// Wakes one thread, if any waits; else the next that would wait does not.
    fn make(&self) {
        *self.made.lock() = true;
        self.heard.notify_one();
    }

    /// Waits for a call, at most [`TICK`].
    fn wait(&self) {
        let mut made = self.made.lock();
        if !*made {
            self.heard.wait_for(&mut made, TICK);
        }
        *made = false;
    }
}

/// What a receive brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Brought {
    /// All that was there, or nothing.
    #[default]
    All,
    /// As much as it could, or as one thread should handle: more may be there.
    Much,
    /// Nothing, for it failed.
    Error,
}

/// Reads a UDP socket.
pub(super) struct Reader {
    pub(super) desk: Arc<Desk>,
    pub(super) service: Arc<dyn Service>,
    pub(super) clock: Arc<Clock>,
    pub(super) tick: Arc<Tick>,
    pub(super) call: Arc<Call>,
    /// What the last receive brought.
    pub(super) brought: Brought,
}

impl Reader {
    /// Reads as a task, whenever `watched`, its port, says that something comes.
    pub(super) async fn read_first(mut self, watched: AsyncFd<Arc<UdpPort>>) {
        let mut room = Room::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                ready = watched.readable() => match ready {
                    // It counts as read before it is: what comes meanwhile makes it readable again.
                    Ok(mut ready) => ready.clear_ready(),
                    // The runtime ends.
                    Err(_) => return,
                },
                _ = ticks.tick() => {}
            }
            let mut more = true;
            while more {
                more = self.receive(&mut room);
                for datagrams in room.batches() {
                    self.handle(&room, datagrams);
                    if more {
                        // What was published is on its way before the next are handled.
                        yield_now().await;
                    }
                }
            }
        }
    }

    /// Reads on a thread of its own when it is called, and once a tick, until told to stop.
    pub(super) fn read_when_called(mut self, stop: &AtomicBool) {
        let mut room = Room::new();
        while !stop.load(Ordering::Acquire) {
            self.call.wait();
            let mut more = true;
            while more && !stop.load(Ordering::Acquire) {
                more = self.receive(&mut room);
                room.batches().for_each(|datagrams| self.handle(&room, datagrams));
            }
        }
    }

    /// Receives what is there; whether there may be more.
    fn receive(&mut self, room: &mut Room) -> bool {
        let received = self.desk.port.receive(room);
        self.is_awake();
        let brought = match &received {
            Ok(()) if room.is_full() => Brought::Much,
            Ok(()) => Brought::All,
            Err(_) => Brought::Error,
        };
        let before = std::mem::replace(&mut self.brought, brought);
        match (before, received) {
            (Brought::Much, Ok(())) if brought == Brought::Much => self.call.make(),
            (Brought::All | Brought::Much, Err(error)) => {
                // Such as ENOMEM: the socket is still there, so is the next datagram. Said once.
                warn!(listen = %self.desk.port.local(), %error, "UDP receive fails");
            }
            _ => {}
        }
        brought == Brought::Much
    }

    fn handle(&self, room: &Room, datagrams: &[Datagram]) {
        // Others may have had their turn since these were received.
        self.is_awake();
        let batch = Batch(Read::Datagrams { reader: self, room, datagrams });
        guarded(&self.desk.sheet, &[], || self.service.handle(batch));
    }

    fn is_awake(&self) {
        self.tick.beat(self.clock.now().mono_us, |gap_us| {
            count(&self.desk.sheet.sleeps);
            self.service.slept(gap_us);
        });
    }

    /// Whether a datagram is handled if it has not waited too long.
    pub(super) fn may_admit(&self, message: &[u8], peer: IpAddr) -> bool {
        std::ptr::eq(self.counter(message, peer, 0), &self.desk.sheet.udp_messages)
    }

    /// Whether a datagram is handled, now: one may have waited for those before it while the process slept.
    pub(super) fn admits(&self, message: &[u8], peer: IpAddr, age_us: u64) -> bool {
        let counter = self.counter(message, peer, age_us);
        count(counter);
        std::ptr::eq(counter, &self.desk.sheet.udp_messages)
    }

    /// Where a datagram of this age counts: among those that are handled, or dropped for some reason.
    fn counter(&self, message: &[u8], peer: IpAddr, age_us: u64) -> &AtomicU64 {
        let (sheet, settings) = (&self.desk.sheet, &self.desk.settings);
        if !settings.allows(peer) {
            &sheet.dropped_not_allowed
        } else if age_us > micros(settings.max_age) {
            &sheet.dropped_aged
        } else if message.len() > settings.max_message_bytes {
            &sheet.dropped_too_large
        } else if message.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            &sheet.dropped_empty
        } else {
            &sheet.udp_messages
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("desk", &self.desk).finish_non_exhaustive()
    }
}
