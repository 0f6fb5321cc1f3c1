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
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};

use super::cores::{Cores, confine};

/// Datagrams of one system call at most.
const AT_ONCE: usize = 64;
/// Room for one datagram.
const DATAGRAM_BYTES: usize = 1024;
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
    let fd = socket.as_raw_fd();
    let mut received = MultiHeaders::<SockaddrIn>::preallocate(AT_ONCE, None);
    let mut sent = MultiHeaders::<SockaddrIn>::preallocate(AT_ONCE, None);
    let mut room = vec![0; AT_ONCE * DATAGRAM_BYTES];
    let mut whom = [(0, None); AT_ONCE];
    while !stop.load(Ordering::Acquire) {
        let mut rest = room.chunks_exact_mut(DATAGRAM_BYTES);
        let mut parts: [[IoSliceMut<'_>; 1]; AT_ONCE] =
            std::array::from_fn(|_| [IoSliceMut::new(rest.next().unwrap_or_default())]);
        let count = match recvmmsg(fd, &mut received, parts.iter_mut(), MsgFlags::MSG_WAITFORONE, None) {
            Ok(messages) => {
                messages.zip(&mut whom).map(|(message, whom)| *whom = (message.bytes, message.address)).count()
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => continue,
            Err(_) => return,
        };
        let mut answers = [[IoSlice::new(&[]), IoSlice::new(&[])]; AT_ONCE];
        let mut addresses = [None; AT_ONCE];
        let mut answered = 0;
        for ((bytes, address), request) in whom.iter().take(count).zip(room.chunks_exact(DATAGRAM_BYTES)) {
            if let Some(answer) = answer(&request[..*bytes]) {
                answers[answered] = answer.map(IoSlice::new);
                addresses[answered] = *address;
                answered += 1;
            }
        }
        // What a full socket does not take, the load asks for again.
        let _ = sendmmsg(fd, &mut sent, &answers[..answered], &addresses[..answered], [], MsgFlags::empty());
    }
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
