//! One TCP connection: bytes to messages, replies to bytes, and when it has to end (RFC 3261 §18, §18.3).

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::trace;

use super::batch::{Batch, Read, guarded};
use super::counts::count;
use super::settings::micros;
use super::tcp::Tcp;
use super::{Flow, Transport};
use crate::sip::message::{Framed, Framer};

/// What may wait to be written on one connection, bytes: some hundred replies. Beyond it the peer does not read.
const WRITE_QUEUE_BYTES_MAX: usize = 256 << 10;

/// With more than this waiting to be written no more is read: most slow readers recover.
const WRITE_QUEUE_BYTES_FULL: usize = WRITE_QUEUE_BYTES_MAX / 2;

/// What one read takes, bytes.
const READ_BYTES: usize = 16 << 10;

/// How long a closing connection may take to write what is queued and to hear the other side close.
const CLOSING: Duration = Duration::from_secs(1);

/// A connection, as its own task and everybody's reply paths share it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    outgoing: Mutex<Outgoing>,
    /// Something is to be written that could not be at once.
    more: Notify,
    /// The connection is to be closed.
    shut: CancellationToken,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    open: bool,
}

/// What became of bytes to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Written or queued.
    Taken,
    /// The connection is gone.
    Gone,
    /// The peer does not read; the connection is being closed.
    TooSlow,
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Stopped,
    TimedOut,
    Unframed,
    Aged,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, shut: CancellationToken) -> io::Result<Arc<Self>> {
        // Replies are small and awaited.
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let outgoing = Mutex::new(Outgoing { bytes: Vec::new(), open: true });
        Ok(Arc::new(Self { stream, peer, local, outgoing, more: Notify::new(), shut }))
    }

    /// Writes `bytes` now or queues them. Never waits.
    pub(super) fn write(&self, bytes: &[u8]) -> Written {
        let mut outgoing = self.outgoing.lock();
        if !outgoing.open {
            return Written::Gone;
        }
        let mut rest = bytes;
        if outgoing.bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => rest = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    outgoing.open = false;
                    self.shut.cancel();
                    return Written::Gone;
                }
            }
        }
        if outgoing.bytes.len() + rest.len() > WRITE_QUEUE_BYTES_MAX {
            outgoing.open = false;
            outgoing.bytes = Vec::new();
            self.shut.cancel();
            return Written::TooSlow;
        }
        if !rest.is_empty() {
            outgoing.bytes.extend_from_slice(rest);
            self.more.notify_one();
        }
        Written::Taken
    }

    fn queued(&self) -> usize {
        self.outgoing.lock().bytes.len()
    }

    /// Writes what the socket takes of what is queued.
    fn flush(&self) -> io::Result<()> {
        let mut outgoing = self.outgoing.lock();
        match self.stream.try_write(&outgoing.bytes) {
            Ok(written) => {
                outgoing.bytes.drain(..written);
                if outgoing.bytes.is_empty() {
                    outgoing.bytes = Vec::new();
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(self: Arc<Self>, tcp: Arc<Tcp>) {
        let end = self.serve(&tcp).await;
        trace!(peer = %self.peer, ?end, "TCP connection ends");
        let counter: Option<&AtomicU64> = match end {
            End::TimedOut => Some(&tcp.sheet.tcp_timed_out),
            End::Unframed => Some(&tcp.sheet.tcp_unframed),
            End::Aged => Some(&tcp.sheet.tcp_aged),
            End::Closed | End::Stopped => None,
        };
        if let Some(counter) = counter {
            count(counter);
        }
        // Whoever took too long or is gone gets no more of our time.
        if matches!(end, End::Unframed | End::Stopped) {
            let _in_time = timeout(CLOSING, self.linger()).await;
        }
        self.outgoing.lock().open = false;
    }

    async fn serve(self: &Arc<Self>, tcp: &Arc<Tcp>) -> End {
        let mut input = Input {
            framer: Framer::new(tcp.settings.max_message_bytes),
            idle_since: Instant::now(),
            message_since: None,
        };
        loop {
            let queued = self.queued();
            tokio::select! {
                biased;
                () = self.shut.cancelled() => return if tcp.is_stopping() { End::Stopped } else { End::Closed },
                () = self.more.notified() => {}
                ready = self.stream.writable(), if queued > 0 => {
                    if ready.and_then(|()| self.flush()).is_err() {
                        return End::Closed;
                    }
                }
                ready = self.stream.readable(), if queued < WRITE_QUEUE_BYTES_FULL => {
                    let read = ready.and_then(|()| self.read(&mut input, tcp));
                    if let Some(end) = read.unwrap_or(Some(End::Closed)) {
                        return end;
                    }
                }
                () = sleep_until(input.deadline(tcp)) => return End::TimedOut,
            }
        }
    }

    /// Reads once and hands over every message that is whole. `Some` when the connection has to end.
    fn read(self: &Arc<Self>, input: &mut Input, tcp: &Arc<Tcp>) -> io::Result<Option<End>> {
        let mut bytes = [0; READ_BYTES];
        let len = match self.stream.try_read(&mut bytes) {
            Ok(0) => return Ok(Some(End::Closed)),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if tcp.may_have_waited() {
            return Ok(Some(End::Aged));
        }
        input.framer.push(&bytes[..len]);
        while let Some(framed) = input.framer.next_frame() {
            match framed {
                Framed::Message(message) => {
                    input.idle_since = Instant::now();
                    input.message_since = None;
                    self.hand_over(message, tcp);
                }
                Framed::Ping => {
                    input.idle_since = Instant::now();
                    self.write(b"\r\n");
                }
                Framed::Broken(head) => {
                    if !head.is_empty() {
                        // Refused there with 400, which is written before the connection ends.
                        self.hand_over(head, tcp);
                    }
                    return Ok(Some(End::Unframed));
                }
            }
        }
        if input.framer.is_partial() {
            input.message_since.get_or_insert_with(Instant::now);
        }
        Ok(None)
    }

    fn hand_over(self: &Arc<Self>, bytes: &[u8], tcp: &Arc<Tcp>) {
        let batch = Batch(Read::Message { bytes, connection: self, tcp });
        guarded(&tcp.sheet, bytes, || tcp.service.handle(batch));
    }

    pub(super) fn flow(&self) -> Flow {
        Flow { transport: Transport::Tcp, peer: self.peer, local: self.local, received_age_us: 0 }
    }

    /// Writes what is queued, says that nothing follows, and reads on until the other side closes: a close with unread
    /// bytes would reset the connection and could take the last reply with it.
    async fn linger(&self) {
        while self.queued() > 0 {
            if self.stream.writable().await.and_then(|()| self.flush()).is_err() {
                return;
            }
        }
        if socket2::SockRef::from(&self.stream).shutdown(Shutdown::Write).is_err() {
            return;
        }
        let mut unread = [0; 1024];
        while self.stream.readable().await.is_ok() {
            match self.stream.try_read(&mut unread) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}

/// What a connection's task knows of what it read.
struct Input {
    framer: Framer,
    /// The last message or ping was whole.
    idle_since: Instant,
    /// The first byte of a message that is not whole came.
    message_since: Option<Instant>,
}

impl Input {
    fn deadline(&self, tcp: &Tcp) -> Instant {
        let idle = self.idle_since + tcp.settings.tcp.idle;
        self.message_since.map_or(idle, |since| idle.min(since + tcp.settings.tcp.partial))
    }
}

/// How long bytes may have waited, as a duration of the settings.
pub(super) fn within(now_us: u64, since_us: u64, limit: Duration) -> bool {
    since_us > 0 && now_us.saturating_sub(since_us) <= micros(limit)
}
