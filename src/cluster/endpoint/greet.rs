//! Two ends greet: from a connection whose certificates were verified to a link that both agree on, or a reason why not.

use std::sync::Arc;
use std::time::Duration;

use aorta_proto::NodeId;
use aorta_proto::frame::Class;
use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, WriteError};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::GREETING_WAIT;
use crate::cluster::admission::{Offer, Opened, Refused};
use crate::cluster::greeting::{GREETING_BYTES, Greeting, VERDICT_BYTES, Verdict};
use crate::cluster::identity::bearer;
use crate::cluster::link::{Close, canonical, printable, run};
use crate::cluster::refusals::RefusalKind;
use crate::cluster::switchboard::Switchboard;

/// QUIC reports a TLS alert as an error code from here on.
const CRYPTO_ERRORS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// How long after the end of its stream a peer's reason may take to arrive.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// A connection whose two ends have greeted and do not object to each other.
pub(super) struct Greeted {
    connection: Connection,
    peer: NodeId,
    dialled: bool,
    theirs: Greeting,
    hello: Vec<u8>,
    send: SendStream,
    recv: RecvStream,
}

pub(super) async fn greet_dialled(
    connection: &Connection,
    class: Class,
    board: &Switchboard,
) -> Result<Greeted, Refused> {
    let peer = name(connection).ok_or_else(|| Refused::protocol("its certificate names no node"))?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&board.greeting(&peer, class)).await?;
    let (theirs, hello) = read_greeting(&mut recv).await?;
    if theirs.class != class {
        return Err(Refused::protocol("it answers for another class of link"));
    }
    board.check_twin(&peer, &theirs, canonical(connection.remote_address())).await?;
    Ok(Greeted { connection: connection.clone(), peer, dialled: true, theirs, hello, send, recv })
}

pub(super) async fn greet_accepted(connection: &Connection, board: &Switchboard) -> Result<Greeted, Refused> {
    let peer = name(connection).ok_or_else(|| Refused::protocol("its certificate names no node"))?;
    let (mut send, mut recv) = connection.accept_bi().await?;
    let (theirs, hello) = read_greeting(&mut recv).await?;
    board.check_twin(&peer, &theirs, canonical(connection.remote_address())).await?;
    send.write_all(&board.greeting(&peer, theirs.class)).await?;
    Ok(Greeted { connection: connection.clone(), peer, dialled: false, theirs, hello, send, recv })
}

async fn read_greeting(recv: &mut RecvStream) -> Result<(Greeting, Vec<u8>), Refused> {
    let mut head = [0; GREETING_BYTES];
    recv.read_exact(&mut head).await?;
    let (theirs, hello_bytes) = Greeting::decode(&head).map_err(Refused::protocol)?;
    let mut hello = vec![0; hello_bytes];
    recv.read_exact(&mut hello).await?;
    Ok((theirs, hello))
}

async fn read_verdict(recv: &mut RecvStream) -> Result<Verdict, Refused> {
    let mut bytes = [0; VERDICT_BYTES];
    timeout(GREETING_WAIT, recv.read_exact(&mut bytes)).await.map_err(|_| Refused::Quietly(Close::Slow))??;
    Verdict::decode(bytes).ok_or_else(|| Refused::protocol("it sends no verdict that this version knows"))
}

impl Greeted {
    /// Agrees with the peer whether this connection is the link, and tells the rooms above.
    async fn admit(self, board: &Arc<Switchboard>) -> Result<Link, Refused> {
        let Self { connection, peer, dialled, theirs, hello, mut send, mut recv } = self;
        let decides = board.decides(&peer);
        let offer = Offer { peer, theirs, dialled, connection };
        if decides {
            if !dialled && read_verdict(&mut recv).await? != Verdict::Consent {
                return Err(Refused::protocol("it decides what is not its to decide"));
            }
            let admission = board.claim(offer).await?;
            let turn = admission.session.turn;
            let opened = admission.open(&hello)?;
            send.write_all(&Verdict::Go(turn).encode()).await?;
            return Ok(Link { opened, send, recv });
        }
        if dialled {
            send.write_all(&Verdict::Consent.encode()).await?;
        }
        let Verdict::Go(turn) = read_verdict(&mut recv).await? else {
            return Err(Refused::protocol("it consents to what is its to decide"));
        };
        let opened = board.follow(offer, turn).await?.open(&hello)?;
        Ok(Link { opened, send, recv })
    }
}

/// A link that is agreed on, about to run.
pub(super) struct Link {
    opened: Opened,
    send: SendStream,
    recv: RecvStream,
}

impl Link {
    pub(super) async fn run(self, board: Arc<Switchboard>) {
        let Some(session) = self.opened.session().cloned() else { return };
        let ending = run(&session, self.send, self.recv, &board).await;
        self.opened.ended(&ending);
    }
}

/// The node that a connection's certificate names. The handshake has verified it.
pub(super) fn name(connection: &Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    bearer(chain.first()?).ok().map(|bearer| bearer.node)
}

/// What a failed connection means: a refusal by either side, or a peer that went away.
pub(super) fn refused(error: &ConnectionError) -> Refused {
    match error {
        ConnectionError::TransportError(fault) if CRYPTO_ERRORS.contains(&u64::from(fault.code)) => {
            Refused::Loudly(RefusalKind::Handshake, Close::Refused, handshake(&fault.reason))
        }
        ConnectionError::ConnectionClosed(fault) if CRYPTO_ERRORS.contains(&u64::from(fault.error_code)) => {
            let why = handshake(&printable(&fault.reason));
            Refused::Loudly(RefusalKind::ByPeer, Close::Refused, format!("it said: {why}"))
        }
        ConnectionError::ApplicationClosed(fault) => match Close::of(error) {
            Some(code @ (Close::Duplicate | Close::Own | Close::NoLive)) => Refused::Quietly(code),
            Some(Close::Twin | Close::Refused | Close::Protocol) => {
                Refused::Loudly(RefusalKind::ByPeer, Close::Refused, printable(&fault.reason))
            }
            _ => Refused::Lost(error.to_string()),
        },
        other => Refused::Lost(other.to_string()),
    }
}

/// Greets and agrees, and if that fails says why: a stream that ended is followed by a close with the reason.
pub(super) async fn settle(
    connection: &Connection,
    greeted: impl Future<Output = Result<Greeted, Refused>>,
    board: &Arc<Switchboard>,
) -> Result<Link, Refused> {
    let failed = match timeout(GREETING_WAIT, greeted).await {
        Ok(Ok(greeted)) => match greeted.admit(board).await {
            Ok(link) => return Ok(link),
            Err(failed) => failed,
        },
        Ok(Err(failed)) => failed,
        Err(_) => Refused::Quietly(Close::Slow),
    };
    if !matches!(failed, Refused::Ended) {
        return Err(failed);
    }
    Err(match timeout(CLOSE_WAIT, connection.closed()).await {
        Ok(error) => refused(&error),
        Err(_) => Refused::protocol("the peer ended its greeting early"),
    })
}

/// A TLS failure in the words of `verify`, which rustls and quinn have wrapped, or in theirs with the way out.
fn handshake(reason: &str) -> String {
    const OURS: &str = "unexpected error: ";
    if let Some(at) = reason.find(OURS) {
        return reason[at + OURS.len()..].to_owned();
    }
    if reason.contains("sent no certificates") {
        return "the peer shows no certificate; issue it one with `aorta cert issue`".into();
    }
    if ["any known protocol", "application protocol", "NoApplicationProtocol"].iter().any(|said| reason.contains(said))
    {
        return format!("the peer speaks another version of the peer protocol ({reason}); upgrade one node at a time");
    }
    format!("{reason}; check cluster.ca, cluster.certificate and cluster.key on both nodes")
}

impl From<ConnectionError> for Refused {
    fn from(error: ConnectionError) -> Self {
        refused(&error)
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<ReadExactError> for Refused {
    fn from(error: ReadExactError) -> Self {
        match error {
            ReadExactError::FinishedEarly(_) => Self::Ended,
            ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error)) => error.into(),
            ReadExactError::ReadError(other) => Self::Lost(other.to_string()),
        }
    }
}
