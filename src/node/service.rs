//! SIP's way through the house: one synchronous call on the thread that read the message, up to where the change is in
//! every outbox. Judges nothing.

use crate::clock::wall_us;
use crate::sip::transport::{Flow, ReplyPath, Service};
use crate::sip::uas::{Answer, Moment};

use super::core::{Core, Waiting};

impl Service for Core {
    fn handle(&self, message: &[u8], flow: &Flow, path: ReplyPath) {
        let now = self.clock.now();
        let moment = Moment { now, wall_us: wall_us(), serving: self.serving() };
        match self.uas.answer(message, flow, moment, || self.replication.reserve()) {
            Answer::Silent => {}
            Answer::Reply { bytes, via } => path.send(&bytes, &via),
            Answer::AfterAcks { aor, delta, reply, via, slot } => {
                let waiting = Waiting::Sip { bytes: reply, path, via, since_us: now.mono_us };
                let effects = self.replication.publish(slot, &aor, &delta, waiting, now);
                self.gauges.published();
                self.act(effects, now);
            }
        }
    }

    fn slept(&self, gap_us: u64) {
        let now = self.clock.now();
        let effects = self.replication.slept(gap_us, now);
        self.act(effects, now);
    }
}
