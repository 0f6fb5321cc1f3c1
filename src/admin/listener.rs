//! Connections of HTTP: so many at a time, none that makes no progress.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tracing::warn;

/// Connections at a time; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// A connection on which no byte moved for so long is closed: slow senders, readers that stopped, idle ones.
const STALL: Duration = Duration::from_secs(30);

/// How long accepting rests when the system has no file descriptor to give.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A listener with bounds.
#[derive(Debug)]
pub(super) struct Bounded {
    listener: TcpListener,
    seats: Arc<Semaphore>,
    stall: Duration,
}

impl Bounded {
    pub(super) async fn bind(addr: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind(addr).await?;
        let local = listener.local_addr()?;
        Ok((Self { listener, seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)), stall: STALL }, local))
    }
}

impl axum::serve::Listener for Bounded {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        loop {
            let seat = Arc::clone(&self.seats).acquire_owned().await;
            match (seat, self.listener.accept().await) {
                (Ok(seat), Ok((stream, peer))) => return (Watched::new(stream, self.stall, seat), peer),
                (_, Ok(_)) => {}
                (_, Err(error)) => {
                    warn!(%error, "HTTP connection not accepted");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing moves on it, in either direction, for too long.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    stall: Duration,
    alarm: Pin<Box<Sleep>>,
    _seat: OwnedSemaphorePermit,
}

impl Watched {
    fn new(stream: TcpStream, stall: Duration, seat: OwnedSemaphorePermit) -> Self {
        Self { stream, stall, alarm: Box::pin(sleep(stall)), _seat: seat }
    }

    /// Passes on what happened; progress sets the alarm anew.
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.alarm.as_mut().reset(Instant::now() + self.stall);
            return polled;
        }
        ready!(self.alarm.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, into);
        self.watch(context, polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(stall: Duration) -> (Watched, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("accepted");
        let seat = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("free");
        let (stream, _) = listener.accept().await.expect("connected");
        (Watched::new(stream, stall, seat), client)
    }

    #[tokio::test]
    async fn a_connection_without_progress_fails_in_both_directions() {
        let stall = Duration::from_millis(20);
        let (mut silent, _client) = pair(stall).await;
        let error = silent.read_u8().await.expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (mut unread, _client) = pair(stall).await;
        let error = loop {
            if let Err(error) = unread.write_all(&[0; 65_536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
