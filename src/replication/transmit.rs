//! What goes out on a Live link, when its writer can take it: batching comes from load. Decides nothing.

use aorta_proto::NodeId;
use aorta_proto::frame::{Envelope, Frame, SAVED_SINCE, encode_deltas};
use aorta_proto::mutant::{Mutant, is};

use super::live::Live;
use crate::clock::Now;

/// Changes put into one frame, bytes: large enough to carry what gathered during a send, small enough that an ack behind
/// it is not late.
const DELTAS_BYTES: usize = 64 * 1024;

impl<R> Live<R> {
    /// Appends what is due to `buf`; whether that was anything. After `false` the link sleeps until it is woken.
    pub(super) fn transmit(&mut self, peer_id: &NodeId, buf: &mut Vec<u8>, now: Now) -> bool {
        let head = self.outbox.head();
        let Some(peer) = self.peers.get_mut(peer_id) else { return false };
        if !peer.has_due(head, true) {
            // The usual end: a writer asks until there is nothing.
            if let Some(link) = &mut peer.link {
                link.awake = false;
            }
            return false;
        }
        let (before, envelope) = (buf.len(), self.envelope());
        self.put_notices(peer_id, buf, envelope);
        self.put_changes(peer_id, buf, envelope, now);
        let Some(link) = self.peers.get_mut(peer_id).and_then(|peer| peer.link.as_mut()) else { return false };
        link.awake = buf.len() > before;
        if link.awake {
            link.last_sent_us = now.mono_us;
        }
        link.awake
    }

    fn put_notices(&mut self, peer_id: &NodeId, buf: &mut Vec<u8>, envelope: Envelope) {
        let epoch = self.epoch;
        let state = self.peers.get(peer_id).and_then(|peer| peer.link.as_ref()).is_some_and(|link| link.state_due);
        let state = state.then(|| self.state());
        let Some(peer) = self.peers.get_mut(peer_id) else { return };
        let Some(link) = &mut peer.link else { return };
        // Each of these is far below the limit of a frame.
        let mut put = |frame: Frame<'_>| drop(frame.encode(envelope, buf));
        if std::mem::take(&mut link.subscribe_due) {
            put(Frame::Subscribe { epoch });
        }
        if let Some(state) = state {
            link.state_due = false;
            put(Frame::State(state));
        }
        if let Some((epoch, why)) = link.rejoin_due.take() {
            put(Frame::Rejoin { epoch, why });
        }
        if let Some(nonce) = link.pong_due.take() {
            put(Frame::Pong { nonce });
        }
        if let Some(nonce) = link.ping_due.take() {
            put(Frame::Ping { nonce });
        }
        while let Some(node) = link.forget_due.pop_first() {
            put(Frame::Forget { node });
        }
        if std::mem::take(&mut link.ack_due) && peer.intake.epoch == epoch {
            put(Frame::Ack { epoch, seq: peer.intake.next - 1 });
        }
        // Older versions have no words for disks: what is due stays so.
        let of_disks = envelope.version >= SAVED_SINCE;
        if of_disks && std::mem::take(&mut link.ask_saved_due) {
            put(Frame::AskSaved);
        }
        if of_disks && std::mem::take(&mut link.saved_due) && peer.intake.epoch == epoch && peer.intake.saved > 0 {
            put(Frame::Saved { epoch, seq: peer.intake.saved });
        }
    }

    fn put_changes(&mut self, peer_id: &NodeId, buf: &mut Vec<u8>, envelope: Envelope, now: Now) {
        let Some(peer) = self.peers.get_mut(peer_id) else { return };
        let Some(link) = &mut peer.link else { return };
        let place = peer.subscriber.as_mut().filter(|place| link.subscribed && !place.overtaken);
        if let Some(place) = place {
            let epoch = place.epoch;
            if let Some(first_seq) = link.backlog_due.take() {
                drop(Frame::Backlog { epoch, first_seq }.encode(envelope, buf));
            }
            if is(Mutant::MarkBeforeBacklog) && place.mark_at.take().is_some() {
                place.marked = true;
                drop(Frame::Mark { epoch }.encode(envelope, buf));
                return;
            }
            if place.sent < self.outbox.head() {
                let first_seq = place.sent + 1;
                let published_us = self.outbox.published_us(first_seq).unwrap_or(now.mono_us);
                let waited_us = now.mono_us.saturating_sub(published_us);
                let changes = self.outbox.from(first_seq);
                let taken = encode_deltas(epoch, first_seq, waited_us, changes, DELTAS_BYTES, envelope, buf);
                place.sent += taken as u64;
            }
            if place.mark_at.take_if(|at| *at <= place.sent).is_some() {
                place.marked = true;
                drop(Frame::Mark { epoch }.encode(envelope, buf));
            }
            if place.sent < self.outbox.head() {
                return;
            }
        }
        if std::mem::take(&mut link.bye_due) {
            drop(Frame::Bye.encode(envelope, buf));
        }
    }
}
