//! The whole table as lines of JSON, bucket by bucket: no lock is held for longer than a bucket takes, and memory is
//! bounded however large the table is. Not a snapshot: each line is true when its bucket is read.
//!
//! Nodes with one table give the lines in one order: buckets are keyed alike in a cluster, AoRs are sorted within them,
//! contacts by their keys.

use std::convert::Infallible;
use std::sync::Arc;

use aorta_proto::Record;
use aorta_proto::digest::BUCKETS;
use axum::body::Bytes;
use futures_util::stream::{Stream, unfold};
use serde::Serialize;

use super::view::{self, ContactView, GoneView};
use crate::clock::Clock;
use crate::location::Location;

/// A piece is sent on when it has so many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// So many buckets are read before other tasks get their turn.
const BUCKETS_PER_TURN: u32 = 256;

#[derive(Serialize)]
struct Line<'a, T> {
    aor: &'a str,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
struct ClearedView {
    cleared: String,
}

/// Every live contact, a line each; with `gone`, what is remembered too.
pub(super) fn lines(
    location: Arc<Location>,
    clock: Arc<Clock>,
    gone: bool,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(0, move |mut bucket| {
        let (location, clock) = (Arc::clone(&location), Arc::clone(&clock));
        async move {
            let mut piece = Vec::new();
            while bucket < BUCKETS && piece.len() < PIECE_BYTES {
                write_bucket(&location, bucket, clock.now().cluster_us, gone, &mut piece);
                bucket += 1;
                if bucket.is_multiple_of(BUCKETS_PER_TURN) {
                    tokio::task::yield_now().await;
                }
            }
            (!piece.is_empty()).then(|| (Ok(Bytes::from(piece)), bucket))
        }
    })
}

fn write_bucket(location: &Location, bucket: u32, now_us: u64, gone: bool, piece: &mut Vec<u8>) {
    let mut records = location.bucket(bucket);
    records.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    for (aor, record) in &records {
        let aor = aor.as_str();
        view::live(record, now_us).for_each(|what: ContactView| write(&Line { aor, what }, piece));
        if gone {
            view::gone(record, now_us).for_each(|what: GoneView| write(&Line { aor, what }, piece));
            cleared(record).into_iter().for_each(|what| write(&Line { aor, what }, piece));
        }
    }
}

fn cleared(record: &Record) -> Option<ClearedView> {
    record.cleared.map(|cleared| ClearedView { cleared: view::text(cleared.stamp) })
}

fn write<T: Serialize>(line: &Line<'_, T>, piece: &mut Vec<u8>) {
    // Text and numbers only, written to memory: it cannot fail. Were it to, a short line would say so.
    let _cannot_fail = serde_json::to_writer(&mut *piece, line);
    piece.push(b'\n');
}
