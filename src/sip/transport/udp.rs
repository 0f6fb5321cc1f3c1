//! One UDP socket and its readers (RFC 3261 §18.2). Reads datagrams and sends replies from the address that the request
//! came to; knows nothing of what is in them.
//!
//! **2026-11, several readers of one socket.** A Session Border Controller sends everything from one address and port,
//! which plain `SO_REUSEPORT` hashes onto one socket and so onto one core. Measured (700 B echo, 4 cores, one source):
//! four blocking readers of one socket 175–187 k/s at 9.1–9.6 µs of processor a request, four `SO_REUSEPORT` sockets with
//! a random BPF program 186–191 k/s at 7.7–7.9 µs; with 4 µs more work a request there is no difference (208–229 against
//! 200–208 k/s). Chosen: one socket, for any reader may take the next datagram (with sockets of their own those behind
//! a stalled reader wait), the buffer is one and whole, and no `unsafe` is needed. What would change our mind: machines
//! with so many cores that the lock of one receive queue shows in a profile.
//!
//! A call receives what is there, up to [`DATAGRAMS_AT_ONCE`], and waits for nothing: a batch comes from load. So do the replies
//! that [`UdpPort::send_all`] sends in one call.
//!
//! **2026-11, datagrams in one piece.** Much of what a datagram costs the kernel it costs once for a piece of many (UDP_GRO):
//! where the network brought datagrams of one source and one length one behind the other, as from a Session Border
//! Controller under load, one place of a call takes up to 64 KiB of them.
//!
//! Who reads it when is the affair of [`super::reader`].

mod send;

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

pub(super) use send::Outgoing;

use crate::clock;

/// Room for one datagram, or several in one piece: more than UDP can carry (65 507), so none is ever cut.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Datagrams that one call receives or sends at most, or pieces of them: enough to spread the price of a system call, so few
/// that idle readers find work when a burst comes.
pub(super) const DATAGRAMS_AT_ONCE: usize = 16;

/// Datagrams that are handled as one batch at most, a fraction of a millisecond: what they change is on its way to other
/// nodes while the next are handled.
pub(super) const HANDLED_AT_ONCE: usize = 64;

/// From the begin of one datagram's room to the next. Not a multiple of a page, or the first bytes of all datagrams would
/// compete for the same lines of a processor's cache.
const ROOM_STRIDE: usize = DATAGRAM_BYTES_MAX + 17 * 64;

/// A bound UDP socket. Any number of threads may receive from it and send through it.
#[derive(Debug)]
pub(super) struct UdpPort {
    socket: Socket,
    local: SocketAddr,
    kernel_drops: AtomicU32,
    /// Longer datagrams are not sent in one piece, bytes: the system cannot, or would not take it.
    in_pieces_up_to: AtomicUsize,
}

/// Room for what one call receives; one a reader.
#[derive(Debug)]
pub(super) struct Room {
    bytes: Vec<u8>,
    datagrams: Vec<Datagram>,
    /// Every place of the last call was taken, or it was cut short.
    full: bool,
}

impl Room {
    pub(super) fn new() -> Self {
        let datagrams = Vec::with_capacity(DATAGRAMS_AT_ONCE);
        Self { bytes: vec![0; DATAGRAMS_AT_ONCE * ROOM_STRIDE], datagrams, full: false }
    }

    /// Whether the last call received as much as it could, or as one thread should handle: more may be there.
    pub(super) fn is_full(&self) -> bool {
        self.full || self.datagrams.len() >= HANDLED_AT_ONCE
    }

    /// What the last call received, in order, so many at once as are to be handled as one batch.
    pub(super) fn batches(&self) -> impl Iterator<Item = &[Datagram]> {
        self.datagrams.chunks(HANDLED_AT_ONCE)
    }

    /// The bytes of a datagram that is in here.
    pub(super) fn bytes_of(&self, datagram: &Datagram) -> &[u8] {
        self.bytes.get(datagram.bytes.clone()).unwrap_or_default()
    }
}

/// One datagram, received.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    bytes: Range<usize>,
    pub(super) peer: SocketAddr,
    /// The address and port that it was sent to.
    pub(super) local: SocketAddr,
    /// When the kernel received it, on its wall clock, microseconds. `None` for what came within some milliseconds of the
    /// bind of the first such socket on a machine: the kernel takes so long to begin to stamp.
    received_us: Option<u64>,
}

impl Datagram {
    /// How long it has waited by now, in the socket and behind those that were received with it, microseconds.
    pub(super) fn age_us(&self) -> u64 {
        self.received_us.map_or(0, |received_us| clock::kernel_wall_us().saturating_sub(received_us))
    }
}

impl UdpPort {
    /// Binds `addr` with buffers of `buffer_bytes` each way; port 0 takes any. An IPv6 socket takes IPv6 only, so that
    /// `[::]` and `0.0.0.0` can both be listed.
    ///
    /// # Errors
    /// What the system says: address in use or not ours, no permission.
    pub(super) fn bind(addr: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        match addr {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        // A system that cannot brings datagrams one by one.
        let _one_by_one = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        socket.set_nonblocking(true)?;
        size_buffers(&socket, addr, buffer_bytes);
        socket.bind(&addr.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(addr);
        let in_pieces_up_to = AtomicUsize::new(send::in_pieces_up_to(&socket));
        Ok(Self { socket, local, kernel_drops: AtomicU32::new(0), in_pieces_up_to })
    }

    /// Has the runtime that this is called in tell when something comes. Not when there is room to send: each reply that has
    /// left makes some, and would wake the thread for nothing.
    ///
    /// # Errors
    /// What the system says when it cannot be watched.
    #[expect(deprecated, reason = "what took its place is unsafe; here the watched socket is owned by who watches it")]
    pub(super) fn watched(self: &Arc<Self>) -> io::Result<AsyncFd<Arc<Self>>> {
        AsyncFd::with_interest(Arc::clone(self), Interest::READABLE)
    }

    /// The address bound, with its port.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// How many datagrams, or pieces of several, the kernel dropped for want of room, as of the last datagram received.
    pub(super) fn kernel_drops(&self) -> u64 {
        u64::from(self.kernel_drops.load(Ordering::Relaxed))
    }

    /// Takes the datagrams that are there and puts them into `room`; none when none is. Never waits.
    ///
    /// # Errors
    /// What the system says of a socket that no longer serves.
    pub(super) fn receive(&self, room: &mut Room) -> io::Result<()> {
        room.datagrams.clear();
        room.full = false;
        let mut rooms = room.bytes.chunks_exact_mut(ROOM_STRIDE);
        let mut parts: [_; DATAGRAMS_AT_ONCE] = std::array::from_fn(|_| {
            let room = rooms.next().and_then(|room| room.get_mut(..DATAGRAM_BYTES_MAX));
            [IoSliceMut::new(room.unwrap_or_default())]
        });
        // Made for each call: nix leaves the room for control messages as short as the kernel last used it.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(DATAGRAMS_AT_ONCE, Some(control_space()));
        let fd = self.socket.as_raw_fd();
        let received = match recvmmsg(fd, &mut headers, parts.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR | Errno::ECONNREFUSED) => {
                room.full = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for (place, message) in received.enumerate() {
            room.full = place + 1 == DATAGRAMS_AT_ONCE;
            let start = place * ROOM_STRIDE;
            let Some((whole, each)) = self.read_ancillary(start, &message) else { continue };
            // The last one may be shorter. Nothing at all is one datagram, too.
            let end = whole.bytes.end;
            let starts = (start..end).step_by(each).skip(1);
            let cut = |start: usize| Datagram { bytes: start..end.min(start.saturating_add(each)), ..whole.clone() };
            room.datagrams.push(cut(start));
            room.datagrams.extend(starts.map(cut));
        }
        Ok(())
    }

    /// What came in one place, which begins at `start`, and how long each datagram in it is, bytes.
    fn read_ancillary(&self, start: usize, message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<(Datagram, usize)> {
        let peer = socket_address(message.address.as_ref()?)?;
        let bytes = start..start + message.bytes;
        let mut datagram = Datagram { bytes, peer, local: self.local, received_us: None };
        let mut each = DATAGRAM_BYTES_MAX;
        for item in message.cmsgs().ok()? {
            match item {
                ControlMessageOwned::UdpGroSegments(bytes) => {
                    each = usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(each);
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    datagram.local.set_ip(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    datagram.local.set_ip(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                ControlMessageOwned::ScmTimestampns(at) => {
                    let received_us = u64::try_from(Duration::from(at).as_micros()).unwrap_or(u64::MAX);
                    datagram.received_us = Some(received_us);
                }
                ControlMessageOwned::RxqOvfl(drops) => {
                    self.kernel_drops.fetch_max(drops, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        Some((datagram, each))
    }
}

/// Space for every control message that [`UdpPort::receive`] asks the kernel for.
pub(super) fn control_space() -> Vec<u8> {
    nix::cmsg_space!(libc::in6_pktinfo, libc::timespec, u32, libc::c_int)
}

impl AsRawFd for UdpPort {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*v4).into());
    }
    storage.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into())
}

/// Asks for `wanted` bytes each way, past the system's limits when the process may, and says so when they were not given.
fn size_buffers(socket: &Socket, addr: SocketAddr, wanted: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &wanted).is_err() {
        // Refused without the right to it; what the plain option then gives is read back below.
        let _read_back = socket.set_recv_buffer_size(wanted);
    }
    if setsockopt(socket, sockopt::SndBufForce, &wanted).is_err() {
        let _read_back = socket.set_send_buffer_size(wanted);
    }
    let limits = [("rmem_max", "receive", socket.recv_buffer_size()), ("wmem_max", "send", socket.send_buffer_size())];
    for (limit, way, given) in limits {
        // The kernel doubles what is asked for, to cover its own overhead, and reports the double.
        let bytes = given.unwrap_or_default() / 2;
        if bytes < wanted {
            warn!(
                listen = %addr, bytes, wanted,
                "UDP {way} buffer is short, bursts will be lost: run `sysctl -w net.core.{limit}={wanted}`"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn port() -> UdpPort {
        UdpPort::bind((Ipv4Addr::LOCALHOST, 0).into(), 4 << 20).expect("a port")
    }

    /// What arrives of datagrams of these lengths, each full of its number, and how many pieces it came in.
    fn carried(from: &UdpPort, lengths: &[usize]) -> (Vec<(usize, u8)>, usize) {
        let to = port();
        let texts: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(at, len)| vec![at as u8; *len]).collect();
        let outgoing = |text| Outgoing { bytes: text, to: to.local(), from: from.local().ip() };
        let outgoing: Vec<Outgoing<'_>> = texts.iter().map(|text| outgoing(text)).collect();
        let (failed, why) = from.send_all(&outgoing);
        assert_eq!(failed, 0, "{why:?}");
        let (mut room, mut arrived, mut pieces) = (Room::new(), Vec::new(), 0);
        let begun = Instant::now();
        while arrived.len() < lengths.len() {
            to.receive(&mut room).expect("received");
            let read: Vec<&Datagram> = room.batches().flatten().collect();
            assert!(begun.elapsed() < Duration::from_secs(20), "no more than {arrived:?}");
            pieces += read.chunk_by(|one, two| one.bytes.end == two.bytes.start).count();
            for datagram in read {
                assert_eq!(datagram.peer, from.local());
                let bytes = room.bytes_of(datagram);
                arrived.push((bytes.len(), bytes.first().copied().unwrap_or(u8::MAX)));
            }
        }
        (arrived, pieces)
    }

    fn sent(lengths: &[usize]) -> Vec<(usize, u8)> {
        let number = |(at, len): (usize, &usize)| (*len, if *len == 0 { u8::MAX } else { at as u8 });
        lengths.iter().enumerate().map(number).collect()
    }

    #[test]
    fn what_is_alike_travels_in_one_piece_and_arrives_as_it_was() {
        let port = port();
        for (lengths, pieces) in [
            (vec![700; 64], 1),
            (vec![700; 100], 2),
            (vec![1500; 60], 2),
            (vec![1], 1),
            (vec![0, 0, 5, 5, 0], 4),
            (vec![10, 20, 20, 20, 30, 40, 40], 4),
            (vec![30_000, 30_000, 30_000], 2),
            (vec![40_000, 40_000], 2),
        ] {
            assert_eq!(carried(&port, &lengths), (sent(&lengths), pieces), "{lengths:?}");
        }
    }

    #[test]
    fn what_the_system_does_not_take_in_one_piece_leaves_one_by_one() {
        let port = port();
        port.in_pieces_up_to.store(699, Ordering::Relaxed);
        assert_eq!(carried(&port, &[700; 20]), (sent(&[700; 20]), 20));
        assert_eq!(carried(&port, &[699; 20]), (sent(&[699; 20]), 1));
    }
}
