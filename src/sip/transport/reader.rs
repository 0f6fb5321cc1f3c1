//! One thread that reads a UDP socket: who is heard, what is too old, and whether the process slept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tracing::{error, warn};

use super::counts::{Sheet, count};
use super::settings::{Settings, micros};
use super::tick::{TICK_MS, Tick};
use super::udp::{self, UdpPort};
use super::{Flow, ReplyPath, Service, Transport, Way};
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
        let mut buffer = vec![0; udp::DATAGRAM_BYTES_MAX];
        let mut control = udp::control_space();
        let mut failing = false;
        while !self.stop.load(Ordering::Acquire) {
            let received = self.desk.port.receive(&mut buffer, &mut control);
            self.tick.beat(self.clock.now().mono_us, |gap_us| {
                count(&self.desk.sheet.sleeps);
                self.service.slept(gap_us);
            });
            let failed_before = std::mem::replace(&mut failing, received.is_err());
            match received {
                Ok(Some(datagram)) => self.judge(&buffer[..datagram.len], &datagram),
                Ok(None) => {}
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

    fn judge(&self, message: &[u8], datagram: &udp::Datagram) {
        let sheet = &self.desk.sheet;
        if !self.desk.settings.allows(datagram.peer.ip()) {
            return count(&sheet.dropped_not_allowed);
        }
        if datagram.age_us > micros(self.desk.settings.max_age) {
            return count(&sheet.dropped_aged);
        }
        if message.len() > self.desk.settings.max_message_bytes {
            return count(&sheet.dropped_too_large);
        }
        if message.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return count(&sheet.dropped_empty);
        }
        count(&sheet.udp_messages);
        let flow = Flow {
            transport: Transport::Udp,
            peer: datagram.peer,
            local: datagram.local,
            received_age_us: datagram.age_us,
        };
        let way = Way::Udp { desk: Arc::clone(&self.desk), peer: datagram.peer, local: datagram.local.ip() };
        let handled = catch_unwind(AssertUnwindSafe(|| self.service.handle(message, &flow, ReplyPath(way))));
        if handled.is_err() {
            count(&sheet.dropped_panicked);
            error!(bytes = message.len(), "a message made its handling panic; it was dropped");
        }
    }
}
