//! One thread that reads a UDP socket: who is heard, what is too old, and whether the process slept.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::Service;
use super::batch::{Batch, Read, guarded};
use super::counts::{Sheet, count};
use super::settings::{Settings, micros};
use super::tick::{TICK_MS, Tick};
use super::udp::{Room, UdpPort};
use crate::clock::Clock;

/// One reader's own things: its reply paths hold them too, so that threads do not count references on one cache line.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) port: Arc<UdpPort>,
    pub(super) sheet: Sheet,
    pub(super) settings: Arc<Settings>,
}

/// One thread that reads a UDP socket.
pub(super) struct Reader {
    pub(super) desk: Arc<Desk>,
    pub(super) service: Arc<dyn Service>,
    pub(super) clock: Arc<Clock>,
    pub(super) tick: Arc<Tick>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Reader {
    /// Reads until told to stop.
    pub(super) fn run(self) {
        let port = Arc::clone(&self.desk.port);
        let mut room = Room::new();
        let mut failing = false;
        let mut turn = None;
        while !self.stop.load(Ordering::Acquire) {
            turn = turn.take().or_else(|| port.turn());
            // Whoever has the turn may be held up: without it this thread takes what is there, and beats the tick as all do.
            let received = port.receive(&mut room, turn.is_some());
            if room.is_full() {
                // More may be there than one thread handles in time: the next one takes it meanwhile.
                turn = None;
            }
            self.tick.beat(self.clock.now().mono_us, |gap_us| {
                count(&self.desk.sheet.sleeps);
                self.service.slept(gap_us);
            });
            let failed_before = std::mem::replace(&mut failing, received.is_err());
            match received {
                Ok(()) => {
                    for datagrams in room.batches() {
                        let batch = Batch(Read::Datagrams { reader: &self, room: &room, datagrams });
                        guarded(&self.desk.sheet, &[], || self.service.handle(batch));
                    }
                }
                Err(error) => {
                    // Such as ENOMEM: the socket is still there, so is the next datagram. Said once.
                    if !failed_before {
                        warn!(listen = %self.desk.port.local(), %error, "UDP receive fails");
                    }
                    thread::sleep(Duration::from_millis(TICK_MS));
                }
            }
        }
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
