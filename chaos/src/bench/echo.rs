//! What a server costs that does nothing: a thread on each of the servers' processors that turns a request into an answer.
//! What the load reaches against it is the load's own ceiling.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, getsockopt, recvmmsg, sendmsg, setsockopt,
    sockopt,
};

use super::cores::{Cores, confine};

/// Datagrams, or pieces of several, received by one system call at most.
const AT_ONCE: usize = 16;
/// Room for one: more than UDP can carry.
const ROOM_BYTES: usize = 65_536 + 64;
/// Datagrams in one piece at most, sent: what kernels before 6.9 take.
const IN_PIECE_MAX: usize = 64;
/// Room in a socket, each way.
const BUFFER_BYTES: usize = 8 << 20;
/// Longest wait for a datagram, so that an end is noticed.
const TICK: Duration = Duration::from_millis(20);

/// Some echoes. Dropped, they end.
#[derive(Debug)]
pub(super) struct Echo {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// As many addresses as there are servers' processors.
    ///
    /// # Errors
    /// When there are no sockets or threads to be had.
    pub(super) fn start(cores: &Cores) -> anyhow::Result<Self> {
        let mut echo = Self { addresses: Vec::new(), stop: Arc::default(), threads: Vec::new() };
        for core in &cores.servers {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening an echo's socket")?;
            let forced = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES);
            forced.or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES))?;
            socket.set_read_timeout(Some(TICK))?;
            echo.addresses.push(socket.local_addr()?);
            let (stop, core) = (Arc::clone(&echo.stop), *core);
            let serve = move || {
                // Elsewhere it is a worse ceiling, and still one.
                let _ = confine(&[core]);
                serve(&socket, &stop);
            };
            echo.threads.push(thread::Builder::new().name("echo".to_owned()).spawn(serve)?);
        }
        Ok(echo)
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool) {
    let in_pieces = getsockopt(socket, sockopt::UdpGsoSegment).is_ok();
    // A system that cannot hands over one by one.
    let _one_by_one = setsockopt(socket, sockopt::UdpGroSegment, &true);
    let mut room = vec![0; AT_ONCE * ROOM_BYTES];
    while !stop.load(Ordering::Acquire) {
        let mut rest = room.chunks_exact_mut(ROOM_BYTES);
        let mut parts: [[IoSliceMut<'_>; 1]; AT_ONCE] =
            std::array::from_fn(|_| [IoSliceMut::new(rest.next().unwrap_or_default())]);
        // Made for each call: nix leaves the room for control messages as short as the kernel last used it.
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(AT_ONCE, Some(cmsg_space!(i32)));
        let flags = MsgFlags::MSG_WAITFORONE;
        let messages = match recvmmsg(socket.as_raw_fd(), &mut headers, parts.iter_mut(), flags, None) {
            Ok(messages) => messages,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => continue,
            Err(_) => return,
        };
        for message in messages {
            let cut = message.cmsgs().ok().and_then(|mut items| {
                items.find_map(|item| match item {
                    ControlMessageOwned::UdpGroSegments(bytes) => usize::try_from(bytes).ok(),
                    _ => None,
                })
            });
            let cut = cut.filter(|bytes| *bytes > 0).unwrap_or(ROOM_BYTES);
            let requests: Vec<&[u8]> = message.iovs().flat_map(|piece| piece.chunks(cut)).collect();
            for few in requests.chunks(if in_pieces { IN_PIECE_MAX } else { 1 }) {
                reply(socket, few, message.address);
            }
        }
    }
}

/// Answers requests of one length and one sender, in one piece if they are several.
fn reply(socket: &UdpSocket, requests: &[&[u8]], to: Option<SockaddrIn>) {
    let answers: Vec<[&[u8]; 2]> = requests.iter().filter_map(|request| answer(request)).collect();
    let Some([line, rest]) = answers.first() else { return };
    let Ok(segment) = u16::try_from(line.len() + rest.len()) else { return };
    let cut = [ControlMessage::UdpGsoSegments(&segment)];
    let cut = if answers.len() > 1 { &cut[..] } else { &[] };
    let parts: Vec<IoSlice<'_>> = answers.iter().flatten().map(|part| IoSlice::new(part)).collect();
    // What a full socket does not take, the load asks for again.
    let _ = sendmsg(socket.as_raw_fd(), &parts, cut, MsgFlags::empty(), to.as_ref());
}

/// A status line, and the request from its second line on; nothing for an ACK.
fn answer(request: &[u8]) -> Option<[&[u8]; 2]> {
    let end = request.iter().position(|byte| *byte == b'\n')? + 1;
    match request.first()? {
        b'A' => None,
        b'I' => Some([b"SIP/2.0 302 Moved Temporarily\r\n", &request[end..]]),
        _ => Some([b"SIP/2.0 200 OK\r\n", &request[end..]]),
    }
}
