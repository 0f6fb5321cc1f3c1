//! The thread of sockets: SIP over UDP is read on it, and the links to other nodes run there. Knows neither.
//!
//! **2026-11, one thread for all links, and for SIP over UDP.** What a change sets off runs through many small tasks: whoever
//! reads the REGISTER, the writer of a link, the driver of its connection, at the other end the endpoint, the connection, the
//! reader, then the writer again with the ack, and the reply. On several threads each of them may wake another thread for
//! a few microseconds of work; on one thread they follow one another, and the thread is woken once for a datagram. Exchanges
//! in bulk go beside it: their packets are opened and their frames merged on the runtime of the node, so that deltas
//! never wait behind a chunk of them. SIP that one thread cannot keep up with is read on others as well.
//! What would change our mind: a node whose deltas keep a whole processor busy, which is some hundred thousand changes a
//! second.

use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::error;

/// After so many polls of tasks the thread looks at its sockets and timers, whatever else is due: a poll may merge a frame.
const POLLS_BETWEEN_LOOKS: u32 = 16;

/// A thread with a runtime of its own. Dropped, it ends on its own.
pub(super) struct Sockets {
    pub(super) handle: Handle,
    running: DropGuard,
    thread: JoinHandle<()>,
}

impl Sockets {
    /// Starts it.
    pub(super) fn start() -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .event_interval(POLLS_BETWEEN_LOOKS)
            .build()
            .context("starting the runtime of the sockets")?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let running = stop.clone().drop_guard();
        let thread = thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || runtime.block_on(stop.cancelled()))
            .context("starting the thread of the sockets")?;
        Ok(Self { handle, running, thread })
    }

    /// Ends it, with all that still runs there, and waits until it has ended.
    pub(super) async fn stop(self) {
        let Self { running, thread, .. } = self;
        drop(running);
        if !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(()))) {
            error!("the thread of the sockets ended in a panic");
        }
    }
}
