//! UDP sockets of the load: many datagrams a system call, and where the kernel cuts datagrams itself (UDP_SEGMENT) and hands
//! them over uncut (UDP_GRO), many of them in one piece. It knows nothing of SIP.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, getsockopt, recvmmsg, sendmmsg,
    setsockopt, sockopt,
};

/// Datagrams, or pieces of them, received by one system call at most.
const RECEIVED_AT_ONCE: usize = 16;
/// Room for one: more than UDP can carry. Not a multiple of a page, or the first bytes of all would compete for the same lines
/// of a processor's cache.
const ROOM_BYTES: usize = 65_536 + 64;
/// What is read of a datagram: the head of an answer is enough.
const READ_BYTES: usize = 256;
/// Datagrams in one piece at most: what kernels before 6.9 take.
const SEGMENTS_MAX: usize = 64;
/// Bytes in one piece at most: what a UDP datagram may be.
const PIECE_BYTES_MAX: usize = 65_000;
/// Pieces sent by one system call at most.
const SENT_AT_ONCE: usize = 32;
/// Room in a socket, each way.
const BUFFER_BYTES: usize = 8 << 20;
/// How often a full socket is tried again before what it was to send counts as lost.
const FULL_TRIES: usize = 1000;

/// Datagrams of one length to one address, one behind the other.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) to: SocketAddrV4,
    datagram_bytes: usize,
    pub(super) bytes: Vec<u8>,
}

impl Batch {
    /// An empty one.
    pub(super) fn new(to: SocketAddrV4, datagram_bytes: usize) -> Self {
        Self { to, datagram_bytes, bytes: Vec::with_capacity(PIECE_BYTES_MAX) }
    }

    /// Whether one more would not fit a piece.
    pub(super) fn is_full(&self) -> bool {
        let most = SEGMENTS_MAX.min(PIECE_BYTES_MAX / self.datagram_bytes);
        self.bytes.len() >= most * self.datagram_bytes
    }
}

/// Some sockets on loopback.
pub(super) struct Sockets {
    sockets: Vec<UdpSocket>,
    ports: Vec<u16>,
    segments: bool,
    room: Vec<u8>,
    sent: MultiHeaders<SockaddrIn>,
    sent_pieces: MultiHeaders<SockaddrIn>,
    /// Datagrams that the kernel did not take.
    pub(super) refused: u64,
}

impl Sockets {
    /// So many, each with a port of its own. `segments`: whether the kernel may cut, if it can.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(count: usize, segments: bool) -> anyhow::Result<Self> {
        let (mut sockets, mut ports) = (Vec::new(), Vec::new());
        while sockets.len() < count {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a socket for the load")?;
            let port = socket.local_addr()?.port();
            // Past the system's limits where this process may; what it gives is enough to measure with.
            if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
            }
            if setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
                setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES)?;
            }
            if segments {
                // A system that cannot hands over one by one.
                let _one_by_one = setsockopt(&socket, sockopt::UdpGroSegment, &true);
            }
            // A request names its port in five digits.
            if port >= 10_000 {
                sockets.push(socket);
                ports.push(port);
            }
        }
        let can_segment = sockets.first().is_some_and(|socket| getsockopt(socket, sockopt::UdpGsoSegment).is_ok());
        Ok(Self {
            sockets,
            ports,
            segments: segments && can_segment,
            room: vec![0; RECEIVED_AT_ONCE * ROOM_BYTES],
            sent: MultiHeaders::preallocate(SENT_AT_ONCE, None),
            sent_pieces: MultiHeaders::preallocate(SENT_AT_ONCE, Some(cmsg_space!(u16))),
            refused: 0,
        })
    }

    pub(super) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Hands over the head of everything that waits at a socket, up to some number; how many that were. Never waits.
    ///
    /// # Errors
    /// What the system says of a socket that no longer serves.
    pub(super) fn receive(&mut self, socket: usize, mut each: impl FnMut(&[u8])) -> anyhow::Result<usize> {
        let fd = self.sockets[socket].as_raw_fd();
        let mut rest = self.room.chunks_exact_mut(ROOM_BYTES);
        let mut parts: [[IoSliceMut<'_>; 1]; RECEIVED_AT_ONCE] =
            std::array::from_fn(|_| [IoSliceMut::new(rest.next().unwrap_or_default())]);
        // Made for each call: nix leaves the room for control messages as short as the kernel last used it.
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(RECEIVED_AT_ONCE, Some(cmsg_space!(i32)));
        match recvmmsg(fd, &mut headers, parts.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(messages) => {
                let mut count = 0;
                for message in messages {
                    let cut = message.cmsgs()?.find_map(|item| match item {
                        ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
                        _ => None,
                    });
                    let cut = cut.filter(|bytes| *bytes > 0).unwrap_or(ROOM_BYTES);
                    for datagram in message.iovs().flat_map(|piece| piece.chunks(cut)) {
                        each(&datagram[..datagram.len().min(READ_BYTES)]);
                        count += 1;
                    }
                }
                Ok(count)
            }
            // A server that is not there yet, or no longer, says so by ICMP.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(0),
            Err(error) => bail!("receiving: {error}"),
        }
    }

    /// Sends all batches of one length and empties them.
    ///
    /// # Errors
    /// What the system says, but for a full socket: what that does not take counts as refused.
    pub(super) fn send(&mut self, socket: usize, batches: &mut [Batch]) -> anyhow::Result<()> {
        let Some(datagram_bytes) = batches.first().map(|batch| batch.datagram_bytes) else { return Ok(()) };
        if self.segments {
            for few in batches.chunks(SENT_AT_ONCE) {
                let pieces = few.iter().filter(|batch| !batch.bytes.is_empty());
                self.send_pieces(socket, pieces.map(|batch| (batch.to, batch.bytes.as_slice())), Some(datagram_bytes))?;
            }
        } else {
            for batch in &*batches {
                for few in batch.bytes.chunks(datagram_bytes * SENT_AT_ONCE) {
                    self.send_pieces(socket, few.chunks(datagram_bytes).map(|datagram| (batch.to, datagram)), None)?;
                }
            }
        }
        batches.iter_mut().for_each(|batch| batch.bytes.clear());
        Ok(())
    }

    fn send_pieces<'a>(
        &mut self,
        socket: usize,
        pieces: impl Iterator<Item = (SocketAddrV4, &'a [u8])>,
        cut_at: Option<usize>,
    ) -> anyhow::Result<()> {
        let mut slices = [[IoSlice::new(&[])]; SENT_AT_ONCE];
        let mut addresses = [None; SENT_AT_ONCE];
        let mut count = 0;
        for (to, bytes) in pieces {
            slices[count] = [IoSlice::new(bytes)];
            addresses[count] = Some(SockaddrIn::from(to));
            count += 1;
        }
        let fd = self.sockets[socket].as_raw_fd();
        let segment = u16::try_from(cut_at.unwrap_or_default())?;
        let cut = [ControlMessage::UdpGsoSegments(&segment)];
        let (mut done, mut full) = (0, 0);
        while done < count {
            let (slices, addresses) = (&slices[done..count], &addresses[done..count]);
            let sent = if cut_at.is_some() {
                let headers = &mut self.sent_pieces;
                sendmmsg(fd, headers, slices, addresses, cut, MsgFlags::MSG_DONTWAIT).map(Iterator::count)
            } else {
                sendmmsg(fd, &mut self.sent, slices, addresses, [], MsgFlags::MSG_DONTWAIT).map(Iterator::count)
            };
            match sent {
                Ok(sent) => done += sent,
                Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) if full < FULL_TRIES => full += 1,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    self.refused += (count - done) as u64;
                    return Ok(());
                }
                Err(error) => bail!("sending: {error}"),
            }
        }
        Ok(())
    }
}

/// The address of IPv4 that all of the load uses.
///
/// # Errors
/// When it is none.
pub(super) fn v4(address: SocketAddr) -> anyhow::Result<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => bail!("the load speaks IPv4 only, not to {address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(segments: bool) -> anyhow::Result<()> {
        let mut sockets = Sockets::open(2, segments)?;
        let listeners = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
        let mut batches = Vec::new();
        for listener in &listeners {
            let mut batch = Batch::new(v4(listener.local_addr()?)?, 1000);
            while !batch.is_full() {
                let number = (batch.bytes.len() / 1000) as u8;
                batch.bytes.extend_from_slice(&[number; 1000]);
            }
            batches.push(batch);
        }
        sockets.send(1, &mut batches)?;
        assert!(batches.iter().all(|batch| batch.bytes.is_empty()));
        let mut room = [0; 2000];
        for listener in &listeners {
            for number in 0..64_u8 {
                let (bytes, from) = listener.recv_from(&mut room)?;
                assert_eq!((bytes, room[0], room[999]), (1000, number, number));
                assert_eq!(from.port(), sockets.ports()[1]);
                assert_eq!(listener.send_to(&room[..bytes], from)?, 1000);
            }
        }
        let mut heads = Vec::new();
        while heads.len() < 128 {
            sockets.receive(1, |head| heads.push((head.len(), head[0])))?;
        }
        assert_eq!(sockets.receive(0, |_| ())?, 0);
        heads.sort_unstable();
        assert_eq!((heads[0], heads[127]), ((READ_BYTES, 0), (READ_BYTES, 63)));
        Ok(())
    }

    #[test]
    fn datagrams_arrive_in_order_one_by_one_and_in_pieces() -> anyhow::Result<()> {
        carried(false)?;
        carried(true)
    }
}
