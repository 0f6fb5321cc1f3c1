//! SIP's way through the house: one synchronous call on the thread that read the messages, up to where every change is in
//! every outbox. Judges nothing.

use std::cell::Cell;

use crate::clock::wall_us;
use crate::location::SOUGHT_AT_ONCE;
use crate::replication::Publications;
use crate::sip::transport::{Batch, Replies, Service};
use crate::sip::uas::{Answer, Moment};

use super::core::{Core, Waiting};

thread_local! {
    /// Memory for what one batch publishes.
    static PUBLISHED: Cell<Publications<Waiting>> = Cell::default();
}

impl Service for Core {
    fn handle(&self, batch: Batch<'_>) {
        let now = self.clock.now();
        let moment = Moment { now, wall_us: wall_us(), serving: self.serving() };
        let (mut replies, mut publications) = (Replies::default(), PUBLISHED.take());
        let foresee = |messages: &[&[u8]]| self.uas.foresee(messages);
        batch.for_each((SOUGHT_AT_ONCE, foresee), |message, flow, path| {
            match self.uas.answer(message, flow, moment, || self.replication.reserve()) {
                Answer::Silent => {}
                Answer::Reply { bytes, via } => replies.push(&path, bytes, &via),
                Answer::AfterAcks { aor, delta, reply, via, slot } => {
                    let reply = Waiting::Sip { bytes: reply, path, via, since_us: now.mono_us };
                    self.replication.add(&mut publications, slot, &aor, &delta, reply);
                }
            }
        });
        if !publications.is_empty() {
            self.gauges.published(publications.len());
            let effects = self.replication.publish_all(&mut publications, now);
            self.act(effects, now);
        }
        PUBLISHED.set(publications);
        replies.send();
    }

    fn slept(&self, gap_us: u64) {
        let now = self.clock.now();
        let effects = self.replication.slept(gap_us, now);
        self.act(effects, now);
    }
}
