//! The way from a connection whose ends have greeted to a link that the rooms above know of, and back: each step undoes
//! itself when it is dropped, so that no early return leaves a place taken.

use std::sync::Arc;

use aorta_proto::NodeId;
use aorta_proto::frame::Class;
use tokio_util::sync::CancellationToken;

use super::endpoint::Wire;
use super::greeting::Greeting;
use super::link::{Close, Ending};
use super::refusals::{Refusal, RefusalKind};
use super::session::Session;
use super::switchboard::Switchboard;

/// Why a connection gets no link.
#[derive(Debug)]
pub(super) enum Refused {
    /// Nothing to tell an operator: closed with this code.
    Quietly(Close),
    /// Worth a line: closed with this code and these words.
    Loudly(RefusalKind, Close, String),
    /// It is gone already, for this reason.
    Lost(String),
    /// The peer ended its stream: why, it says in the close that follows.
    Ended,
}

impl Refused {
    pub(super) fn protocol(why: impl Into<String>) -> Self {
        Self::Loudly(RefusalKind::Protocol, Close::Protocol, why.into())
    }
}

/// A connection whose two ends have greeted.
pub(super) struct Offer {
    pub(super) peer: NodeId,
    pub(super) theirs: Greeting,
    pub(super) dialled: bool,
    pub(super) connection: Wire,
}

impl Offer {
    /// The session that it would be.
    pub(super) fn session(self, turn: u64, stop: CancellationToken) -> Session {
        Session::new(self.peer, self.theirs, self.dialled, turn, self.connection, stop)
    }
}

/// A session in the table; dropping it takes the session out again.
pub(super) struct Admission {
    pub(super) board: Arc<Switchboard>,
    pub(super) session: Arc<Session>,
}

impl Admission {
    /// Tells the rooms above, which may refuse.
    pub(super) fn open(self, hello: &[u8]) -> Result<Opened, Refused> {
        let session = &self.session;
        self.board
            .peers()
            .linked(&session.peer, session.boot(), session.class, hello)
            .map_err(|why| Refused::Loudly(RefusalKind::Hello, Close::Refused, why))?;
        session.set_open();
        self.board.change();
        let (peer, class, address) = (&session.peer, session.class, session.view().address);
        match class {
            Class::Live => tracing::info!(%peer, %address, "linked"),
            Class::Bulk => tracing::debug!(%peer, %address, "bulk link"),
        }
        Ok(Opened { admission: Some(self) })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.board.release(&self.session);
    }
}

/// A session that the rooms above know of; they are told when it ends, also when its task is stopped.
pub(super) struct Opened {
    admission: Option<Admission>,
}

impl Opened {
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        self.admission.as_ref().map(|admission| &admission.session)
    }

    pub(super) fn ended(mut self, ending: &Ending) {
        self.close(ending);
    }

    fn close(&mut self, ending: &Ending) {
        let Some(admission) = self.admission.take() else { return };
        let (board, session) = (&admission.board, &admission.session);
        let (peer, class, why) = (&session.peer, session.class, ending.why.as_str());
        match class {
            Class::Live => tracing::info!(%peer, why, "unlinked"),
            Class::Bulk => tracing::debug!(%peer, why, "bulk link ended"),
        }
        match (ending.by_peer, ending.close) {
            (true, Some(Close::GoodBye)) | (false, Some(Close::Done)) => {
                board.gossip().left(peer, session.theirs.generation);
            }
            (true, Some(Close::Refused | Close::Protocol | Close::Twin)) => board.shunned(session, why),
            (false, Some(Close::Refused | Close::Protocol)) => {
                let kind = RefusalKind::Protocol;
                let address = session.view().address;
                board.refuse(&Refusal { address, peer: Some(peer.clone()), kind, why: why.to_owned() });
            }
            _ => {}
        }
        board.peers().unlinked(peer, class, why);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.close(&Ending { why: "this node stops".into(), close: None, by_peer: false });
    }
}
