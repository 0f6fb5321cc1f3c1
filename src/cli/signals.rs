//! SIGINT and SIGTERM of a command that waits, as something that it can look at. Nodes have their own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Requests to stop, one for each signal.
#[derive(Debug)]
pub(super) struct Stops(Receiver<()>);

/// Stops that are remembered while nobody looks.
const REMEMBERED: usize = 8;

/// Exit code of a command that was interrupted.
const INTERRUPTED: i32 = 130;

impl Stops {
    /// Takes both signals from now on.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let (sender, receiver) = sync_channel(REMEMBERED);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("starting to wait for signals")?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let wait = move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if sender.try_send(()).is_err() {
                        return;
                    }
                }
            });
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("starting to wait for signals")?;
        Ok(Self(receiver))
    }

    /// Waits for a request to stop, at most this long; whether one came.
    pub(super) fn within(&self, wait: Duration) -> bool {
        match self.0.recv_timeout(wait) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        }
    }

    /// Ends this process at the first request to stop, after `farewell`.
    pub(super) fn end_by_them(self, farewell: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        let wait = move || {
            if self.0.recv().is_ok() {
                farewell();
                std::process::exit(INTERRUPTED);
            }
        };
        std::thread::Builder::new().name("stops".to_owned()).spawn(wait).context("starting to wait for signals")?;
        Ok(())
    }
}
