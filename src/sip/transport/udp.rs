//! One UDP socket and its readers (RFC 3261 §18.2). Reads datagrams and sends replies from the address that the request
//! came to; knows nothing of what is in them.
//!
//! **2026-11, several readers of one socket.** A Session Border Controller sends everything from one address and port,
//! which plain `SO_REUSEPORT` hashes onto one socket and so onto one core. Measured (700 B echo, 4 cores, one source):
//! four blocking readers of one socket 175–187 k/s at 9.1–9.6 µs of processor a request, four `SO_REUSEPORT` sockets with
//! a random BPF program 186–191 k/s at 7.7–7.9 µs; with 4 µs more work a request there is no difference (208–229 against
//! 200–208 k/s). Chosen: one socket, for any idle reader takes the next datagram (with sockets of their own those behind
//! a stalled reader wait), the buffer is one and whole, and no `unsafe` is needed. What would change our mind: machines
//! with so many cores that the lock of one receive queue shows in a profile.
//!
//! A call receives what is there, up to [`DATAGRAMS_AT_ONCE`], and waits only for the first: a batch comes from load, never
//! from waiting. So do the replies that [`UdpPort::send_all`] sends in one call.
//!
//! **2026-11, readers take turns.** With every idle reader waiting in the socket each datagram wakes a thread of its own,
//! and batches stay small however high the load. So one reader waits ([`UdpPort::turn`]) and handles what it received
//! before it reads on; what comes meanwhile is its next batch. Only when a call brought as much as it could, the turn goes
//! to the next thread: threads join in as load grows. Nobody reads while a batch is handled, some tens of microseconds; when
//! that lasts longer than a tick, the thread was held up, and others take what is there without their turn.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, sendmmsg, sendmsg,
    setsockopt, sockopt,
};
use parking_lot::{Mutex, MutexGuard};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::tick::TICK;
use crate::clock;

/// Room for one datagram: more than UDP can carry (65 507), so none is ever cut.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Datagrams that one call receives or sends at most: enough to spread the price of a system call, so few that idle readers
/// find work when a burst comes.
pub(super) const DATAGRAMS_AT_ONCE: usize = 16;

/// From the begin of one datagram's room to the next. Not a multiple of a page, or the first bytes of all datagrams would
/// compete for the same lines of a processor's cache.
const ROOM_STRIDE: usize = DATAGRAM_BYTES_MAX + 17 * 64;

/// A bound UDP socket. Any number of threads may receive from it and send through it.
#[derive(Debug)]
pub(super) struct UdpPort {
    socket: Socket,
    local: SocketAddr,
    kernel_drops: AtomicU32,
    turn: Mutex<()>,
}

/// Room for what one call receives; one a reader.
#[derive(Debug)]
pub(super) struct Room {
    bytes: Vec<u8>,
    datagrams: Vec<Datagram>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; DATAGRAMS_AT_ONCE * ROOM_STRIDE], datagrams: Vec::with_capacity(DATAGRAMS_AT_ONCE) }
    }

    /// Whether the last call received nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Whether the last call received as much as it could: more may be there.
    pub(super) fn is_full(&self) -> bool {
        self.datagrams.len() == DATAGRAMS_AT_ONCE
    }

    /// What the last call received, in order.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&[u8], &Datagram)> {
        let bytes = |place: usize, len| self.bytes.get(place * ROOM_STRIDE..).and_then(|room| room.get(..len));
        self.datagrams.iter().map(move |datagram| (bytes(datagram.place, datagram.len).unwrap_or_default(), datagram))
    }
}

/// One datagram, received.
#[derive(Debug)]
pub(super) struct Datagram {
    place: usize,
    len: usize,
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
        socket.set_read_timeout(Some(TICK))?;
        size_buffers(&socket, addr, buffer_bytes);
        socket.bind(&addr.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok(Self { socket, local, kernel_drops: AtomicU32::new(0), turn: Mutex::new(()) })
    }

    /// Waits until it is this thread's turn to receive, at most [`TICK`]; while it is, it is nobody else's.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock_for(TICK)
    }

    /// The address bound, with its port.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// How many datagrams the kernel dropped for want of room, as of the last datagram received.
    pub(super) fn kernel_drops(&self) -> u64 {
        u64::from(self.kernel_drops.load(Ordering::Relaxed))
    }

    /// Takes the datagrams that are there and puts them into `room`; none when none is. If it `waits`, then for the first,
    /// at most [`TICK`].
    ///
    /// # Errors
    /// What the system says of a socket that no longer serves.
    pub(super) fn receive(&self, room: &mut Room, waits: bool) -> io::Result<()> {
        room.datagrams.clear();
        let mut rooms = room.bytes.chunks_exact_mut(ROOM_STRIDE);
        let mut parts: [_; DATAGRAMS_AT_ONCE] = std::array::from_fn(|_| {
            let room = rooms.next().and_then(|room| room.get_mut(..DATAGRAM_BYTES_MAX));
            [IoSliceMut::new(room.unwrap_or_default())]
        });
        // Made for each call: nix leaves the room for control messages as short as the kernel last used it.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(DATAGRAMS_AT_ONCE, Some(control_space()));
        let fd = self.socket.as_raw_fd();
        let flags = if waits { MsgFlags::MSG_WAITFORONE } else { MsgFlags::MSG_DONTWAIT };
        let received = match recvmmsg(fd, &mut headers, parts.iter_mut(), flags, None) {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let read = received.enumerate().filter_map(|(place, message)| self.read_ancillary(place, &message));
        room.datagrams.extend(read);
        Ok(())
    }

    fn read_ancillary(&self, place: usize, message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Datagram> {
        let peer = socket_address(message.address.as_ref()?)?;
        let mut datagram = Datagram { place, len: message.bytes, peer, local: self.local, received_us: None };
        for item in message.cmsgs().ok()? {
            match item {
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
        Some(datagram)
    }

    /// Sends all of `datagrams`, in as few calls as can be. Never waits: a full send buffer is an error. Gives how many were
    /// not sent, and why the last of them was not.
    pub(super) fn send_all<'a>(&self, datagrams: impl Iterator<Item = Outgoing<'a>>) -> (usize, Option<io::Error>) {
        let (mut failed, mut last) = (0, None);
        let mut datagrams = datagrams.peekable();
        while let Some(first) = datagrams.next() {
            let mut run = [first; DATAGRAMS_AT_ONCE];
            let mut length = 1;
            let together = |other: &Outgoing<'_>| other.from == first.from && other.to.is_ipv4() == first.to.is_ipv4();
            while let Some(place) = run.get_mut(length)
                && let Some(next) = datagrams.next_if(together)
            {
                *place = next;
                length += 1;
            }
            let mut rest = &run[..length];
            while !rest.is_empty() {
                let sent = self.send_run(rest).unwrap_or_else(|error| {
                    failed += 1;
                    last = Some(error);
                    1
                });
                // One is sent at least, or given up.
                rest = rest.get(sent.max(1)..).unwrap_or_default();
            }
        }
        (failed, last)
    }

    /// Sends datagrams that leave from one address; how many were sent, from the front.
    fn send_run(&self, run: &[Outgoing<'_>]) -> io::Result<usize> {
        match run.first().map(|first| (first.to, first.from)) {
            None => Ok(0),
            // The socket has no other address.
            Some((_, from)) if from == self.local.ip() => self.send_under(run, None, &[]),
            Some((SocketAddr::V4(_), IpAddr::V4(from))) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let space = nix::cmsg_space!(libc::in_pktinfo);
                self.send_under(run, Some(space), &[ControlMessage::Ipv4PacketInfo(&info)])
            }
            Some((SocketAddr::V6(to), IpAddr::V6(from))) => {
                let ipi6_addr = libc::in6_addr { s6_addr: from.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: to.scope_id() };
                let space = nix::cmsg_space!(libc::in6_pktinfo);
                self.send_under(run, Some(space), &[ControlMessage::Ipv6PacketInfo(&info)])
            }
            Some(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// One call, every datagram with the same control messages, which take `space`.
    fn send_under(
        &self,
        run: &[Outgoing<'_>],
        space: Option<Vec<u8>>,
        control: &[ControlMessage<'_>],
    ) -> io::Result<usize> {
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        if let [only] = run {
            let to = SockaddrStorage::from(only.to);
            return Ok(sendmsg(fd, &[IoSlice::new(only.bytes)], control, flags, Some(&to)).map(|_| 1)?);
        }
        let parts: [_; DATAGRAMS_AT_ONCE] =
            std::array::from_fn(|at| [IoSlice::new(run.get(at).map_or(&[], |datagram| datagram.bytes))]);
        let to: [_; DATAGRAMS_AT_ONCE] =
            std::array::from_fn(|at| run.get(at).map(|datagram| SockaddrStorage::from(datagram.to)));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(run.len(), space);
        let sent = sendmmsg(fd, &mut headers, parts.iter().take(run.len()), to, control, flags)?;
        Ok(sent.count())
    }
}

/// A datagram to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) to: SocketAddr,
    /// The address that it leaves from.
    pub(super) from: IpAddr,
}

/// Space for every control message that [`UdpPort::receive`] asks the kernel for.
pub(super) fn control_space() -> Vec<u8> {
    nix::cmsg_space!(libc::in6_pktinfo, libc::timespec, u32)
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
