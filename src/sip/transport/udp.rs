//! One UDP socket and its readers (RFC 3261 §18.2). Reads datagrams and sends replies from the address that the request
//! came to; knows nothing of what is in them.
//!
//! **2026-11, several readers of one socket.** A Session Border Controller sends everything from one address and port,
//! which plain `SO_REUSEPORT` hashes onto one socket and so onto one core. Measured (700 B echo, 4 cores, one source):
//! four blocking readers of one socket 175–187 k/s at 9.1–9.6 µs of processor a request, four `SO_REUSEPORT` sockets with
//! a random BPF program 186–191 k/s at 7.7–7.9 µs; with 4 µs more work a request there is no difference (208–229 against
//! 200–208 k/s). Chosen: one socket, for any idle reader takes the next datagram (with sockets of their own those behind
//! a stalled reader wait), the buffer is one and whole, and no `unsafe` is needed. What would change our mind: machines
//! with so many cores that the lock of one receive queue shows in a profile, or `recvmmsg` (several datagrams a call),
//! which fits behind [`UdpPort::receive`].

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::tick::TICK_MS;
use crate::clock;

/// Room for one datagram: more than UDP can carry (65 507), so none is ever cut.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_536;

/// A bound UDP socket. Any number of threads may receive from it and send through it.
#[derive(Debug)]
pub(super) struct UdpPort {
    socket: Socket,
    local: SocketAddr,
    kernel_drops: AtomicU32,
}

/// One datagram, received.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Its length; it is at the start of the buffer given.
    pub(super) len: usize,
    pub(super) peer: SocketAddr,
    /// The address and port that it was sent to.
    pub(super) local: SocketAddr,
    /// How long it waited in the socket, microseconds. 0 for what came within some milliseconds of the bind of the first
    /// such socket on a machine: the kernel takes so long to begin to stamp.
    pub(super) age_us: u64,
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
        socket.set_read_timeout(Some(Duration::from_millis(TICK_MS)))?;
        size_buffers(&socket, addr, buffer_bytes);
        socket.bind(&addr.into())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok(Self { socket, local, kernel_drops: AtomicU32::new(0) })
    }

    /// The address bound, with its port.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// How many datagrams the kernel dropped for want of room, as of the last datagram received.
    pub(super) fn kernel_drops(&self) -> u64 {
        u64::from(self.kernel_drops.load(Ordering::Relaxed))
    }

    /// Waits at most [`TICK_MS`] for one datagram; `None` when none came. `control` is space for [`control_space`].
    ///
    /// # Errors
    /// What the system says of a socket that no longer serves.
    pub(super) fn receive(&self, buffer: &mut [u8], control: &mut Vec<u8>) -> io::Result<Option<Datagram>> {
        let mut parts = [IoSliceMut::new(buffer)];
        let fd = self.socket.as_raw_fd();
        match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(control.as_mut_slice()), MsgFlags::empty()) {
            Ok(message) => Ok(self.read_ancillary(&message)),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read_ancillary(&self, message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Datagram> {
        let peer = socket_address(message.address.as_ref()?)?;
        let mut datagram = Datagram { len: message.bytes, peer, local: self.local, age_us: 0 };
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
                    datagram.age_us = clock::kernel_wall_us().saturating_sub(received_us);
                }
                ControlMessageOwned::RxqOvfl(drops) => {
                    self.kernel_drops.fetch_max(drops, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        Some(datagram)
    }

    /// Sends `bytes` to `to` from the address `from`. Never waits: a full send buffer is an error.
    ///
    /// # Errors
    /// What the system says: no route, no room, too long for a datagram.
    pub(super) fn send(&self, bytes: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
        let parts = [IoSlice::new(bytes)];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = match (to, from) {
            (SocketAddr::V4(to), IpAddr::V4(from)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&SockaddrIn::from(to)))
            }
            (SocketAddr::V6(to), IpAddr::V6(from)) => {
                let ipi6_addr = libc::in6_addr { s6_addr: from.octets() };
                let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: to.scope_id() };
                sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&SockaddrIn6::from(to)))
            }
            _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        sent.map(drop).map_err(io::Error::from)
    }
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
