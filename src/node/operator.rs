//! What operators see and order, as HTTP asks for it. Judges nothing but whether an order makes sense now.

use std::collections::BTreeMap;

use aorta_proto::hash::uri_hash;
use aorta_proto::uri::{Uri, canonical_contact};
use aorta_proto::{Aor, ContactKey, NodeId, Record};
use tokio::sync::oneshot;

use super::core::{Core, HTTP_KEY, TABLE_KEY, VERSION_KEY, Waiting};
use super::gauges::Gauges;
use crate::admin::{ClusterView, MemberView, Node, Promise, Refused, Removal, TableView};
use crate::cluster::GossipMember;
use crate::registrar::{Removed, Which, remove};
use crate::replication::{Member, PeerView};

impl Node for Core {
    fn readiness(&self) -> Result<Option<String>, String> {
        let readiness = self.replication.readiness(self.clock.now());
        let certificate = self.gauges.certificate_problem();
        let trouble = self.disk_trouble.load().as_deref().map(|why| format!("cannot write to its disk: {why}"));
        let reason = match (readiness.reason, certificate) {
            // What forbids the cold start says it already.
            (Some(reason), Some(certificate)) if !reason.contains(&certificate) => {
                Some(format!("{reason}; {certificate}"))
            }
            (reason, certificate) => reason.or(certificate),
        };
        let reason = [reason, trouble].into_iter().flatten().reduce(|one, two| format!("{one}; {two}"));
        if readiness.ready && !self.serving().requests {
            return Err("waits for the disk to take the time ceiling".to_owned());
        }
        let notes = self.clock_notes();
        let reasons: Vec<String> = reason.into_iter().chain(notes).collect();
        let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        if readiness.ready { Ok(reason) } else { Err(reason.unwrap_or_else(|| "not in sync".to_owned())) }
    }

    fn cluster(&self) -> ClusterView {
        let now = self.clock.now();
        let counts = self.location.counts();
        let view = self.replication.view(now);
        let shown = self.gauges.members();
        let skews_us = self.clock_skews_us();
        let (ready, reason) = match self.readiness() {
            Ok(reason) => (true, reason),
            Err(reason) => (false, Some(reason)),
        };
        ClusterView {
            node: view.node.to_string(),
            boot: format!("{:016x}", view.boot.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: view.state.to_owned(),
            ready,
            reason,
            cluster_time_us: now.cluster_us,
            floor_us: view.floor_us,
            aors: counts.aors,
            contacts: counts.live,
            gone: counts.gone,
            location_bytes: counts.bytes,
            memory_max_bytes: view.memory_max_bytes,
            memory_full: view.memory_full.iter().map(ToString::to_string).collect(),
            digest: format!("{:032x}", view.root),
            pending_replies: view.replies_waiting as u64,
            wire_version_max: view.wire_version_max,
            wire_version: view.wire_version,
            clock_notes: self.clock_notes(),
            members: view.peers.iter().map(|peer| member(peer, &shown, &skews_us)).collect(),
        }
    }

    fn remove<'a>(&'a self, aor: Aor, contact: Option<String>) -> Promise<'a, Result<Removal, Refused>> {
        Box::pin(self.remove_and_await(aor, contact))
    }

    fn drain(&self) {
        self.order_to_leave();
    }

    fn force_ready(&self) -> Result<(), Refused> {
        let now = self.clock.now();
        // Nothing is forced, and a log that says so would frighten somebody.
        if self.replication.readiness(now).ready {
            return Ok(());
        }
        let effects = self.replication.force_ready(now);
        self.act(effects, now);
        let readiness = self.replication.readiness(now);
        if readiness.ready {
            tracing::warn!("forced ready by an operator: what only other nodes hold is not known here");
            return Ok(());
        }
        Err(Refused::Conflict(readiness.reason.unwrap_or_else(|| "this node cannot serve now".to_owned())))
    }

    fn forget(&self, node: &NodeId) -> Result<(), Refused> {
        let now = self.clock.now();
        let view = self.replication.view(now);
        if *node == view.node {
            return Err(Refused::Bad(format!("{node} is this node; `aorta drain` makes it leave")));
        }
        let Some(peer) = view.peers.iter().find(|peer| peer.node == *node) else {
            return Err(Refused::Unknown(format!("no member {node} is known or remembered")));
        };
        if peer.linked {
            return Err(Refused::Conflict(format!(
                "{node} is linked; drain it, or stop it, first (the link to one that died ends within 2 s)"
            )));
        }
        let effects = self.replication.forget(node, now);
        self.act(effects, now);
        tracing::info!(%node, "forgotten by an operator");
        Ok(())
    }
}

impl Core {
    async fn remove_and_await(&self, aor: Aor, contact: Option<String>) -> Result<Removal, Refused> {
        let which = match &contact {
            None => Which::All,
            Some(text) => which(text)?,
        };
        if !self.serving().requests {
            return Err(Refused::Unavailable("this node is not ready; ask another".to_owned()));
        }
        let slot = self.replication.reserve();
        let slot = slot.ok_or_else(|| Refused::Unavailable("too many replies wait for acks; try again".to_owned()))?;
        let now = self.clock.now();
        let limits = self.uas.limits();
        let remove = |record: &Record| remove(&which, record, now.cluster_us, limits, self.clock.draw());
        let removed = self.location.update(&aor, remove, |removed| removed.delta.as_ref());
        let Removed { delta: Some(delta), live } = removed else {
            return Ok(Removal { removed: 0, short: false });
        };
        let (tell, told) = oneshot::channel();
        let effects = self.replication.publish(slot, &aor, &delta, Waiting::Operator(tell), now);
        self.act(effects, now);
        let short = told.await.unwrap_or(true);
        tracing::info!(removed = live, short, "contacts removed by an operator");
        tracing::debug!(%aor, ?contact, "removed by an operator");
        Ok(Removal { removed: live, short })
    }
}

fn which(contact: &str) -> Result<Which, Refused> {
    let uri = Uri::parse(contact.as_bytes())
        .map_err(|error| Refused::Bad(format!("'{contact}' is no Contact URI: {error}")))?;
    let canonical = canonical_contact(&uri);
    Ok(Which::Uri { key: ContactKey::uri(&canonical), uri_hash: uri_hash(&canonical) })
}

fn member(peer: &PeerView, shown: &[GossipMember], skews_us: &BTreeMap<NodeId, i64>) -> MemberView {
    let gossip = shown.iter().find(|member| member.node == peer.node);
    let value = |key: &str| gossip.and_then(|member| member.values.get(key)).cloned();
    MemberView {
        node: peer.node.to_string(),
        boot: value("boot").unwrap_or_default(),
        state: match (peer.state, gossip) {
            ("missing", Some(member)) => Gauges::state_of(member),
            (state, _) => state.to_owned(),
        },
        version: value(VERSION_KEY).unwrap_or_default(),
        address: gossip.map(|member| member.address.to_string()).unwrap_or_default(),
        http: value(HTTP_KEY),
        present: gossip.is_some(),
        linked: peer.linked,
        suspect: peer.suspect,
        lag: peer.lag,
        lag_us: peer.lag_us,
        wall_clock_skew_us: skews_us.get(&peer.node).copied(),
        wire_version_max: peer.wire_version_max,
        table: gossip.and_then(table),
    }
}

/// What a member gossips of its table; `None` where it has not, or not in a form known here.
fn table(member: &GossipMember) -> Option<TableView> {
    let mut words = member.values.get(TABLE_KEY)?.split(' ');
    let (digest, contacts, aors) = (words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let mut bytes = || words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
    let (location_bytes, memory_max_bytes) = (bytes(), bytes());
    let typed = Member::from_keys(member.node.clone(), &member.values).ok()?;
    let links = typed.links.iter().map(ToString::to_string).collect();
    Some(TableView { aors, contacts, location_bytes, memory_max_bytes, digest, links })
}
