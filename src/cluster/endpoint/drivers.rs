//! Where the packets of a connection are made, sealed, opened and sent: quinn has a task of its own for that, the driver, on
//! the runtime that is entered where the connection begins. Those of bulk connections run beside those of live ones, and
//! give way.

use std::future::poll_fn;
use std::io::Result;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, ConnectionId, Incoming, Runtime, TokioRuntime};
use tokio::runtime::Handle;

use crate::cluster::Class;

/// Bytes of the id that a dial for bulk makes up for the other end (RFC 9000 §7.2: 8 at least), which sees by them what the
/// connection is for before it has said so; those of other dials have quinn's 20. Who knows nothing of this, or lies, loses
/// some speed and nothing else.
const FIRST_ID_BYTES_BULK: usize = 16;

/// The first id of a dial for bulk.
pub(super) fn first_id_for_bulk() -> ConnectionId {
    let mut id = [0; FIRST_ID_BYTES_BULK];
    // One that could be guessed makes this dial easier to disturb; the next one is due in a moment.
    let _ = rustls::crypto::ring::default_provider().secure_random.fill(&mut id);
    ConnectionId::new(&id)
}

/// What a connection is for, as far as can be seen before it has said so.
pub(super) fn class_of(incoming: &Incoming) -> Class {
    if incoming.orig_dst_cid().len() == FIRST_ID_BYTES_BULK { Class::Bulk } else { Class::Live }
}

/// Begins a connection whose driver is to run on `runtime`.
pub(super) fn driven_on<T>(runtime: &Handle, begin: impl FnOnce() -> T) -> T {
    let _there = runtime.enter();
    begin()
}

/// quinn's drivers on Tokio.
#[derive(Debug)]
pub(super) struct Drivers {
    /// Those that run here give way.
    pub(super) bulk: Handle,
}

impl Runtime for Drivers {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, mut driver: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if Handle::current().id() != self.bulk.id() {
            return TokioRuntime.spawn(driver);
        }
        TokioRuntime.spawn(Box::pin(poll_fn(move |context| {
            let driven = driver.as_mut().poll(context);
            // As between two frames: see `link`.
            thread::yield_now();
            driven
        })));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}
