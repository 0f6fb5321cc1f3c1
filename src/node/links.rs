//! The cluster room's place in a node: it is started here, on a thread of its own. Knows no frame.
//!
//! **2026-11, one thread for all links.** What a change sets off runs through many small tasks: the writer of a link, the
//! driver of its connection, at the other end the endpoint, the connection, the reader, then the writer again with the ack.
//! On a runtime of several threads each of them may wake another thread for a few microseconds of work; on one thread they
//! follow one another, and the thread is woken once for a datagram. Exchanges in bulk go beside it: their
//! packets are opened and their frames merged on the runtime of the node, so that deltas never wait behind a chunk of them.
//! What would change our mind: a node whose deltas keep a whole processor busy, which is some hundred thousand changes a
//! second.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use aorta_proto::NodeId;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::core::Core;
use crate::cluster::{Cluster, ClusterSettings, Identity, Peers};
use crate::config::Config;

/// After so many polls of tasks the thread looks at its sockets and timers, whatever else is due: a poll may merge a frame.
const POLLS_BETWEEN_LOOKS: u32 = 16;

/// The links of a running node.
pub(super) struct Links {
    pub(super) cluster: Arc<Cluster>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Links {
    /// Starts the cluster room; `None` when no cluster is configured.
    pub(super) async fn start(
        config: &Config,
        node: &NodeId,
        identity: Option<Identity>,
        core: &Arc<Core>,
        generation: u64,
    ) -> anyhow::Result<Option<Self>> {
        let (Some(cluster), Some(identity)) = (&config.cluster, identity) else {
            info!(%node, "no cluster is configured: this node runs alone");
            return Ok(None);
        };
        let settings = ClusterSettings {
            listen: cluster.listen,
            advertise: (cluster.advertise.port() != 0).then_some(cluster.advertise),
            seeds: cluster.seeds.clone(),
            last_known: core.known_addresses(),
            boot: core.clock.boot(),
            generation,
            gossip: core.gossip_keys(),
            bulk: Handle::current(),
        };
        let (stop, peers) = (CancellationToken::new(), Arc::<Core>::clone(core) as Arc<dyn Peers>);
        let (runtime, thread) = thread(stop.clone()).context("starting the thread of the links")?;
        let started = runtime.spawn(Cluster::start(settings, identity, peers)).await;
        let cluster = Arc::new(started.context("starting the cluster endpoint")??);
        core.cluster.store(Some(Arc::clone(&cluster)));
        core.introduce(&cluster);
        Ok(Some(Self { cluster, stop, thread }))
    }

    /// Says good-bye on every link and ends them.
    pub(super) async fn leave(self, core: &Core) {
        self.cluster.close(&[]).await;
        core.cluster.store(None);
        drop(self.cluster);
        self.stop.cancel();
        let thread = self.thread;
        if !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(()))) {
            error!("the thread of the links ended in a panic");
        }
    }
}

/// A runtime of one thread, until it is stopped.
fn thread(stop: CancellationToken) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let runtime = Builder::new_current_thread().enable_all().event_interval(POLLS_BETWEEN_LOOKS).build()?;
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new().name("links".to_owned());
    let thread = thread.spawn(move || runtime.block_on(stop.cancelled()))?;
    Ok((handle, thread))
}
