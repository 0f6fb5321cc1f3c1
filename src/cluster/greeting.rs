//! The first bytes of a link: who opens it, for what, and who decides whether it stays. Bytes only, no socket.
//!
//! The one stream of a connection begins with a [`Greeting`] each way. Then one side, the node with the smaller id,
//! decides: it sends [`Verdict::Go`], or closes because a healthy link of this class is there already. The other side
//! says [`Verdict::Consent`] if it dialled, for by then it has judged the greeting too. One decider a pair: two nodes that
//! dial each other at once cannot each close the other's connection. Frames follow the Go.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use aorta_proto::BootId;
use aorta_proto::frame::Class;

/// Says that these bytes are a greeting of this layout; ALPN has the version of everything after it.
const MAGIC: &[u8; 6] = b"AORTA\x01";

/// Bytes of a greeting before the Hello: magic, class, flags, boot id, generation, address, port, length of the Hello.
pub(super) const GREETING_BYTES: usize = 6 + 1 + 1 + 8 + 8 + 16 + 2 + 4;

/// The longest Hello frame, bytes; one is a few hundred.
pub(super) const HELLO_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a verdict: kind and turn.
pub(super) const VERDICT_BYTES: usize = 1 + 8;

const CLASS_LIVE: u8 = 1;
const CLASS_BULK: u8 = 2;
const FLAG_LINKED: u8 = 1;

/// What each end says first. Its node id is not in it: that comes from the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    /// What the connection is for.
    pub(super) class: Class,
    /// Whether the sender has a healthy link of this class with the receiver already.
    pub(super) linked: bool,
    /// The sender's process.
    pub(super) boot: BootId,
    /// The sender's generation in gossip.
    pub(super) generation: u64,
    /// Where others dial the sender.
    pub(super) advertise: SocketAddr,
}

/// What an end says once it has judged the other's greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The dialler, which does not decide, has no objection.
    Consent,
    /// The decider takes this connection. Of two the higher turn is the later one.
    Go(u64),
}

impl Greeting {
    /// The greeting, followed by the Hello frame.
    pub(super) fn encode(&self, hello: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(GREETING_BYTES + hello.len());
        out.extend_from_slice(MAGIC);
        out.push(match self.class {
            Class::Live => CLASS_LIVE,
            Class::Bulk => CLASS_BULK,
        });
        out.push(if self.linked { FLAG_LINKED } else { 0 });
        out.extend_from_slice(&self.boot.0.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        let ip = match self.advertise.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.advertise.port().to_le_bytes());
        out.extend_from_slice(&u32::try_from(hello.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(hello);
        out
    }

    /// Reads a greeting; with it the length of the Hello that follows.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub(super) fn decode(bytes: &[u8; GREETING_BYTES]) -> Result<(Self, usize), String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("the peer did not greet as an Aorta node does")?;
        let mut at = Cursor { rest };
        let class = match at.take::<1>()? {
            [CLASS_LIVE] => Class::Live,
            [CLASS_BULK] => Class::Bulk,
            _ => return Err("the peer greets for a class that this version lacks".into()),
        };
        let linked = at.take::<1>()?[0] & FLAG_LINKED != 0;
        let boot = BootId(u64::from_le_bytes(at.take()?));
        let generation = u64::from_le_bytes(at.take()?);
        let ip = Ipv6Addr::from(at.take::<16>()?).to_canonical();
        let port = u16::from_le_bytes(at.take()?);
        let hello = usize::try_from(u32::from_le_bytes(at.take()?)).unwrap_or(usize::MAX);
        if hello > HELLO_BYTES_MAX {
            return Err(format!("the peer announces a Hello of {hello} bytes, more than {HELLO_BYTES_MAX}"));
        }
        Ok((Self { class, linked, boot, generation, advertise: SocketAddr::new(ip, port) }, hello))
    }
}

impl Verdict {
    pub(super) fn encode(self) -> [u8; VERDICT_BYTES] {
        let (kind, turn) = match self {
            Self::Consent => (1, 0),
            Self::Go(turn) => (2, turn),
        };
        let mut out = [0; VERDICT_BYTES];
        out[0] = kind;
        out[1..].copy_from_slice(&u64::to_le_bytes(turn));
        out
    }

    /// Reads a verdict; `None` for other bytes.
    pub(super) fn decode(bytes: [u8; VERDICT_BYTES]) -> Option<Self> {
        let mut turn = [0; 8];
        turn.copy_from_slice(&bytes[1..]);
        match bytes[0] {
            1 => Some(Self::Consent),
            2 => Some(Self::Go(u64::from_le_bytes(turn))),
            _ => None,
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or("the greeting is cut short")?;
        self.rest = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            class: Class::Bulk,
            linked: true,
            boot: BootId(7),
            generation: 9,
            advertise: "192.0.2.1:7060".parse().unwrap(),
        }
    }

    fn head(bytes: &[u8]) -> &[u8; GREETING_BYTES] {
        bytes.first_chunk().unwrap()
    }

    #[test]
    fn a_greeting_survives_its_bytes() {
        let bytes = greeting().encode(b"hello");
        assert_eq!(Greeting::decode(head(&bytes)), Ok((greeting(), 5)));
        assert_eq!(&bytes[GREETING_BYTES..], b"hello");
        let six = Greeting { advertise: "[2001:db8::1]:1".parse().unwrap(), ..greeting() };
        assert_eq!(Greeting::decode(head(&six.encode(b""))), Ok((six, 0)));
    }

    #[test]
    fn hostile_greetings_are_errors() {
        let good = greeting().encode(b"");
        for at in 0..8 {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            assert!(Greeting::decode(head(&bytes)).is_err() || at == 7, "byte {at}");
        }
        let mut long = good;
        long[GREETING_BYTES - 4..GREETING_BYTES].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Greeting::decode(head(&long)).is_err());
    }

    #[test]
    fn verdicts_survive_their_bytes() {
        for verdict in [Verdict::Consent, Verdict::Go(0), Verdict::Go(u64::MAX)] {
            assert_eq!(Verdict::decode(verdict.encode()), Some(verdict));
        }
        assert_eq!(Verdict::decode([9; VERDICT_BYTES]), None);
    }
}
