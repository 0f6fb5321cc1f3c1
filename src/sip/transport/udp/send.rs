//! Datagrams out of a UDP socket, as many in a call as can be. Never waits.
//!
//! Datagrams of one length from one address to one other leave in one piece that the system cuts (UDP_SEGMENT): what it
//! would do for each, it does once. Where it cannot (a device without checksums of its own, IPsec, datagrams longer than a
//! packet on that way), it says so, nothing has left, and datagrams of that length leave one by one from then on.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, getsockopt, sendmmsg, sendmsg, sockopt,
};
use smallvec::SmallVec;
use socket2::Socket;

use super::{DATAGRAMS_AT_ONCE, UdpPort};

/// Datagrams in one piece at most: what kernels before 6.9 take.
const IN_PIECE_MAX: usize = 64;

/// Bytes in one piece at most: what UDP can carry over IPv4.
const PIECE_BYTES_MAX: usize = 65_507;

/// A datagram to send.
#[derive(Debug, Clone, Copy)]
pub(in crate::sip::transport) struct Outgoing<'a> {
    pub(in crate::sip::transport) bytes: &'a [u8],
    pub(in crate::sip::transport) to: SocketAddr,
    /// The address that it leaves from.
    pub(in crate::sip::transport) from: IpAddr,
}

impl Outgoing<'_> {
    fn is_alike(&self, other: &Outgoing<'_>) -> bool {
        self.bytes.len() == other.bytes.len() && self.to == other.to && self.from == other.from
    }
}

/// What datagrams a new socket may send in one piece, bytes: a system that does not know the word would send the whole piece
/// as one datagram.
pub(super) fn in_pieces_up_to(socket: &Socket) -> usize {
    if getsockopt(socket, sockopt::UdpGsoSegment).is_ok() { PIECE_BYTES_MAX / 2 } else { 0 }
}

impl UdpPort {
    /// Sends all of `datagrams`, in as few calls as can be; most is gained where those alike are side by side. Never waits: a
    /// full send buffer is an error. Gives how many were not sent, and why the last of them was not.
    pub(in crate::sip::transport) fn send_all(&self, datagrams: &[Outgoing<'_>]) -> (usize, Option<io::Error>) {
        let (mut failed, mut last) = (0, None);
        let mut rest = datagrams;
        while !rest.is_empty() {
            let alike = self.alike(rest);
            let (tried, sent) = if alike > 1 {
                (alike, self.send_piece(&rest[..alike]))
            } else {
                let run = &rest[..self.mixed(rest)];
                // One is sent at least, or given up.
                (1, self.send_run(run))
            };
            let done = match sent {
                Ok(sent) => sent.max(1),
                Err(Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE) if alike > 1 => {
                    self.in_pieces_up_to.fetch_min(rest[0].bytes.len() - 1, Ordering::Relaxed);
                    continue;
                }
                Err(error) => {
                    failed += tried;
                    last = Some(error.into());
                    tried
                }
            };
            rest = rest.get(done..).unwrap_or_default();
        }
        (failed, last)
    }

    /// How many datagrams from the first on can leave in one piece.
    fn alike(&self, datagrams: &[Outgoing<'_>]) -> usize {
        let Some(first) = datagrams.first() else { return 0 };
        let bytes = first.bytes.len();
        if bytes == 0 || bytes > self.in_pieces_up_to.load(Ordering::Relaxed) {
            return 1;
        }
        let most = IN_PIECE_MAX.min(PIECE_BYTES_MAX / bytes);
        datagrams.iter().take(most).take_while(|other| other.is_alike(first)).count()
    }

    /// How many datagrams from the first on leave in one call, each by itself, until some can leave in one piece.
    fn mixed(&self, datagrams: &[Outgoing<'_>]) -> usize {
        let Some(first) = datagrams.first() else { return 0 };
        let together = |other: &Outgoing<'_>| other.from == first.from && other.to.is_ipv4() == first.to.is_ipv4();
        let most = datagrams.iter().take(DATAGRAMS_AT_ONCE).take_while(|other| together(other)).count();
        (1..most).find(|at| self.alike(&datagrams[*at..]) > 1).unwrap_or(most)
    }

    /// Sends datagrams that are alike, all or none.
    fn send_piece(&self, alike: &[Outgoing<'_>]) -> Result<usize, Errno> {
        let Some(first) = alike.first() else { return Ok(0) };
        let bytes = u16::try_from(first.bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
        let parts: SmallVec<[IoSlice<'_>; IN_PIECE_MAX]> =
            alike.iter().map(|datagram| IoSlice::new(datagram.bytes)).collect();
        let (fd, to) = (self.socket.as_raw_fd(), SockaddrStorage::from(first.to));
        self.under_address(first, |from| {
            let mut control = SmallVec::<[_; 2]>::from_iter(from);
            control.push(ControlMessage::UdpGsoSegments(&bytes));
            sendmsg(fd, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to)).map(|_| alike.len())
        })
    }

    /// Sends datagrams that leave from one address; how many were sent, from the front.
    fn send_run(&self, run: &[Outgoing<'_>]) -> Result<usize, Errno> {
        let Some(first) = run.first() else { return Ok(0) };
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        self.under_address(first, |from| {
            let control = from.as_slice();
            if let [only] = run {
                let to = SockaddrStorage::from(only.to);
                return sendmsg(fd, &[IoSlice::new(only.bytes)], control, flags, Some(&to)).map(|_| 1);
            }
            let parts: [_; DATAGRAMS_AT_ONCE] =
                std::array::from_fn(|at| [IoSlice::new(run.get(at).map_or(&[], |datagram| datagram.bytes))]);
            let to: [_; DATAGRAMS_AT_ONCE] =
                std::array::from_fn(|at| run.get(at).map(|datagram| SockaddrStorage::from(datagram.to)));
            let space = from.map(|_| nix::cmsg_space!(libc::in6_pktinfo));
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(run.len(), space);
            sendmmsg(fd, &mut headers, parts.iter().take(run.len()), to, control, flags).map(Iterator::count)
        })
    }

    /// Has `send` send what leaves from the address of `first`: with a control message where the socket has others, too.
    fn under_address<T>(
        &self,
        first: &Outgoing<'_>,
        send: impl FnOnce(Option<ControlMessage<'_>>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match (first.to, first.from) {
            (_, from) if from == self.local.ip() => send(None),
            (SocketAddr::V4(_), IpAddr::V4(from)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                send(Some(ControlMessage::Ipv4PacketInfo(&info)))
            }
            (SocketAddr::V6(to), IpAddr::V6(from)) => {
                let ipi6_addr = libc::in6_addr { s6_addr: from.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: to.scope_id() };
                send(Some(ControlMessage::Ipv6PacketInfo(&info)))
            }
            _ => Err(Errno::EADDRNOTAVAIL),
        }
    }
}
