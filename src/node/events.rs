//! What an operator reads in the log about the cluster: one line a turn, at the level that says who should care.

use aorta_proto::NodeId;

use crate::location::Room;
use crate::replication::{Event, Purpose};

/// Writes an event's line.
pub(super) fn log(event: &Event) {
    match event {
        Event::Ready => tracing::info!("ready: this node serves"),
        Event::Fenced { why } => tracing::warn!(why, "not ready: rejoins"),
        Event::ClockSet { cluster_us } => tracing::info!(cluster_us, "cluster time is set"),
        Event::ClockMoved { peer, by_us } => tracing::warn!(%peer, by_us, "cluster time was moved forward"),
        Event::Suspect { peer, why } => tracing::warn!(%peer, why, "suspect: its acks are not awaited"),
        Event::Trusted { peer } => tracing::info!(%peer, "a suspect caught up and is awaited again"),
        Event::DiskLate { node } => {
            tracing::warn!(%node, "its disk does not keep up: replies do not wait for it, and leave short")
        }
        Event::DiskCaughtUp { node } => tracing::info!(%node, "its disk has caught up: replies wait for it again"),
        Event::Overflow { peer } => tracing::warn!(%peer, "fell behind what is kept for it and has to rejoin"),
        Event::Parted { peer } => tracing::info!(%peer, "said good-bye, or was forgotten"),
        Event::ExchangeDone { peer, purpose: Purpose::Routine, moved } if moved.buckets == 0 => {
            tracing::trace!(%peer, bytes_in = moved.bytes_in, bytes_out = moved.bytes_out, "in step");
        }
        Event::ExchangeDone { peer, purpose, moved } => tracing::info!(
            %peer,
            ?purpose,
            bytes_in = moved.bytes_in,
            bytes_out = moved.bytes_out,
            records_in = moved.records_in,
            entries_out = moved.entries_out,
            buckets = moved.buckets,
            "exchange done"
        ),
        Event::ExchangeFailed { peer, purpose, why } => tracing::info!(%peer, ?purpose, why, "exchange broke off"),
        Event::StampAhead { peer, count } => {
            tracing::error!(%peer, count, "refused changes from too far ahead; look at that node's clock");
        }
        Event::Conflict { peer, count } => {
            tracing::error!(%peer, count, "two values under one stamp: a bug; resolved the same way on every node");
        }
        Event::VersionRefused { peer, why } => tracing::warn!(%peer, "wire version refused: {why}"),
        Event::Room { room, full } => log_room(*room, full),
        Event::TooLarge { bytes } => tracing::error!(bytes, "a change is larger than a frame and was not published"),
        Event::Drained => tracing::info!("drained: nothing is left here that others lack"),
        Event::DrainTimeout { only_here } => {
            tracing::error!(only_here, "drain timed out: so many entries are, as far as known, only here");
        }
    }
}

fn log_room(room: Room, full: &[NodeId]) {
    let full = full.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
    match room {
        Room::ForAll => tracing::info!("memory has room again: new AoRs are accepted"),
        Room::ForKnown => tracing::warn!(full, "memory is full: AoRs of which nothing is known get 403"),
        Room::ForRegistered => tracing::warn!(full, "memory is fuller still: AoRs without a contact get 403"),
    }
}
