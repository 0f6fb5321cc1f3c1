//! Says a refusal once: one log line a peer, topic and minute, however often the peer tries. Decides nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use aorta_proto::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a peer's refusals of one topic stay one line.
pub(super) const QUIET: Duration = Duration::from_secs(60);

/// Peers and topics remembered; beyond it, new ones are not said, only counted, until [`QUIET`] has passed for some.
const REMEMBERED_MAX: usize = 128;

/// Why a peer was not let in, or did not let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Its certificate: foreign CA, out of its dates, another cluster's, none at all; or another protocol version.
    Handshake,
    /// A living process has the same node id.
    Twin,
    /// Its Hello did not please.
    Hello,
    /// It did not speak the protocol.
    Protocol,
    /// A peer whose certificate is good refused us; its words are in the text.
    ByPeer,
}

impl RefusalKind {
    /// What one line stands for: two nodes that dial each other refuse the same thing now at this end, now at that.
    fn topic(self) -> Self {
        if self == Self::ByPeer { Self::Handshake } else { self }
    }
}

/// One refused link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whose address.
    pub address: SocketAddr,
    /// Which node, where its certificate was good.
    pub peer: Option<NodeId>,
    /// What kind.
    pub kind: RefusalKind,
    /// Why, and the way out, in one sentence.
    pub why: String,
}

/// Which refusals have been said lately.
#[derive(Default)]
pub(super) struct RefusalLog {
    said: Mutex<HashMap<(SocketAddr, RefusalKind), Said>>,
}

struct Said {
    at: Instant,
    unsaid: u64,
}

impl RefusalLog {
    /// Writes the line, unless one about this peer and topic was written in the last minute. Returns whether it did.
    pub(super) fn say(&self, refusal: &Refusal) -> bool {
        let Some(unsaid) = self.due(refusal, Instant::now()) else { return false };
        let peer = refusal.peer.as_ref().map_or("?", |peer| peer.as_str());
        let (address, why) = (refusal.address, &refusal.why);
        match refusal.kind {
            RefusalKind::Twin => tracing::error!(%address, peer, unsaid, "link refused: {why}"),
            RefusalKind::ByPeer => tracing::warn!(%address, peer, unsaid, "peer refused the link: {why}"),
            _ => tracing::warn!(%address, peer, unsaid, "link refused: {why}"),
        }
        true
    }

    /// How many went unsaid since the last line, if a line is due now.
    fn due(&self, refusal: &Refusal, now: Instant) -> Option<u64> {
        let mut said = self.said.lock();
        let key = (refusal.address, refusal.kind.topic());
        if let Some(before) = said.get_mut(&key) {
            if now.duration_since(before.at) < QUIET {
                before.unsaid = before.unsaid.saturating_add(1);
                return None;
            }
            let unsaid = std::mem::take(&mut before.unsaid);
            before.at = now;
            return Some(unsaid);
        }
        if said.len() >= REMEMBERED_MAX {
            said.retain(|_, before| now.duration_since(before.at) < QUIET);
        }
        if said.len() >= REMEMBERED_MAX {
            return None;
        }
        said.insert(key, Said { at: now, unsaid: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(port: u16, kind: RefusalKind) -> Refusal {
        Refusal { address: ([127, 0, 0, 1], port).into(), peer: None, kind, why: "because".into() }
    }

    #[test]
    fn one_line_a_peer_topic_and_minute() {
        let log = RefusalLog::default();
        let now = Instant::now();
        assert_eq!(log.due(&refusal(1, RefusalKind::Twin), now), Some(0));
        assert_eq!(log.due(&refusal(1, RefusalKind::Twin), now), None);
        assert_eq!(log.due(&refusal(1, RefusalKind::Hello), now), Some(0));
        assert_eq!(log.due(&refusal(2, RefusalKind::Twin), now), Some(0));
        assert_eq!(log.due(&refusal(3, RefusalKind::Handshake), now), Some(0));
        assert_eq!(log.due(&refusal(3, RefusalKind::ByPeer), now), None);
        assert_eq!(log.due(&refusal(1, RefusalKind::Twin), now + QUIET), Some(1));
    }

    #[test]
    fn a_flood_of_peers_is_forgotten_in_time() {
        let log = RefusalLog::default();
        let now = Instant::now();
        for port in 0..1000 {
            log.due(&refusal(port, RefusalKind::Protocol), now);
        }
        assert_eq!(log.said.lock().len(), REMEMBERED_MAX);
        assert_eq!(log.due(&refusal(2000, RefusalKind::Protocol), now + QUIET), Some(0));
    }
}
