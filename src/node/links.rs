//! The cluster room's place in a node: it is started here, on the thread of sockets. Knows no frame.

use std::sync::Arc;

use anyhow::Context as _;
use aorta_proto::NodeId;
use tokio::runtime::Handle;
use tracing::info;

use super::core::Core;
use crate::cluster::{Cluster, ClusterSettings, Identity, Peers};
use crate::config::Config;

/// The links of a running node.
pub(super) struct Links {
    pub(super) cluster: Arc<Cluster>,
}

impl Links {
    /// Starts the cluster room on `sockets`; `None` when no cluster is configured.
    pub(super) async fn start(
        config: &Config,
        node: &NodeId,
        identity: Option<Identity>,
        core: &Arc<Core>,
        generation: u64,
        sockets: &Handle,
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
        let peers = Arc::<Core>::clone(core) as Arc<dyn Peers>;
        let started = sockets.spawn(Cluster::start(settings, identity, peers)).await;
        let cluster = Arc::new(started.context("starting the cluster endpoint")??);
        core.cluster.store(Some(Arc::clone(&cluster)));
        core.introduce(&cluster);
        Ok(Some(Self { cluster }))
    }

    /// Says good-bye on every link and ends them.
    pub(super) async fn leave(self, core: &Core) {
        self.cluster.close(&[]).await;
        core.cluster.store(None);
    }
}
