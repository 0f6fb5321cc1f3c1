//! What one node says to another, without saying it: no socket, no task, no clock. The caller brings frames, time and
//! views, and carries out the [`Effects`]; links pull what is to be sent when they can send it.
//!
//! | file | what |
//! |---|---|
//! | `mod` | [`Replication`]: the one thing that others hold; which lock when |
//! | `settings`, `effects`, `membership` | what goes in, what comes out, who there is |
//! | `live` | one node's thinking, under one short lock; the state that the next ones act on |
//! | `link`, `intake`, `transmit`, `peer` | a Live link: Hello, frames in, frames out, what is kept of a peer |
//! | `versions` | which wire version is written |
//! | `outbox`, `ack_set`, `slot` | changes not yet acked; whose acks a reply waits for; how many may wait |
//! | `memory` | whom the memory of all nodes has room for |
//! | `commit` | which changes are on whose disk |
//! | `readiness`, `cold_start`, `drain` | when this node serves, starts a cluster, leaves one |
//! | `fencing` | which node gives way when some are out of step |
//! | `anti_entropy` | which exchange is made when |
//! | `bulk`, `joiner`, `donor` | exchanges under way, under a lock of their own: opened, answered |
//!
//! Locks: `live`, then `bulk` if at all; neither while changes are applied to the table.

mod ack_set;
mod anti_entropy;
mod bulk;
mod cold_start;
mod commit;
mod donor;
mod drain;
mod effects;
mod fencing;
mod intake;
mod joiner;
mod link;
mod live;
mod membership;
mod memory;
mod outbox;
mod peer;
mod readiness;
mod settings;
mod slot;
mod transmit;
mod versions;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use aorta_proto::frame::{Class, Frame, FrameError, LastKnown, Packed, change_aor, decode_change, decode_refresh};
use aorta_proto::{Aor, NodeId, Record, Refresh};
use parking_lot::Mutex;
use smallvec::SmallVec;

use bulk::Bulk;
use intake::{Admitted, Took};
use live::Live;
use slot::Slots;

use crate::clock::{Clock, Now};
use crate::location::{Location, SOUGHT_AT_ONCE};

pub use ack_set::Publications;
pub use commit::Commit;
pub use effects::{Effects, Event, Moved, Purpose, Released};
pub use link::Linked;
pub use membership::{Member, state_name};
pub use readiness::{Readiness, Serving};
pub use settings::{AckMode, Settings, Start};
pub use slot::Slot;
pub use view::{ClusterView, PeerView};

/// How often [`Replication::timeout`] should be called at least, µs.
pub const TICK_US: u64 = 20_000;

/// A node's part in its cluster. `R` is a prepared reply, of which nothing is known here. Shared by all threads.
pub struct Replication<R> {
    live: Mutex<Live<R>>,
    bulk: Mutex<Bulk>,
    location: Arc<Location>,
    slots: Slots,
    serving: AtomicU8,
    changes_received: AtomicU64,
    awaits_disks: bool,
    /// `settings.wire_version_max`, without the lock.
    wire_version_max: u8,
}

impl<R> Replication<R> {
    /// A node that has just started: not ready, linked with nobody.
    #[must_use]
    pub fn new(settings: Settings, start: Start, location: Arc<Location>, clock: Arc<Clock>, now: Now) -> Self {
        Self {
            slots: Slots::new(settings.pending_replies_max),
            awaits_disks: settings.ack == AckMode::Disk,
            wire_version_max: settings.wire_version_max,
            live: Mutex::new(Live::new(settings, start, clock, Arc::clone(&location), now)),
            bulk: Mutex::new(Bulk::new(Arc::clone(&location))),
            location,
            serving: AtomicU8::new(0),
            changes_received: AtomicU64::new(0),
        }
    }

    // What SIP needs.

    /// What may be served now. Lock-free.
    #[must_use]
    pub fn serving(&self) -> Serving {
        Serving::from_bits(self.serving.load(Ordering::Acquire))
    }

    /// Takes a place for a reply that will wait for acks; `None` when `pending_replies_max` wait already: answer 503 and
    /// write nothing. Taken before the table is touched, handed to [`Self::publish`] or [`Self::add`] after.
    #[must_use]
    pub fn reserve(&self) -> Option<Slot> {
        self.slots.take()
    }

    /// Publishes a change that is in this node's table already; `reply` comes back in [`Effects::released`], now or later.
    pub fn publish(&self, slot: Slot, aor: &Aor, delta: &Record, reply: R, now: Now) -> Effects<R> {
        let mut one = Publications::default();
        self.add(&mut one, slot, aor, delta, reply);
        self.publish_all(&mut one, now)
    }

    /// Adds a change to those that come at once.
    pub fn add(&self, to: &mut Publications<R>, slot: Slot, aor: &Aor, delta: &Record, reply: R) {
        if self.awaits_disks {
            // A retransmission changes nothing, and what it repeats may not be on disk yet.
            self.location.await_on_disk(aor.as_str());
        }
        to.add(slot, aor, delta, reply);
    }

    /// As [`Self::publish`], for changes that came at once: under one lock, with one wake-up a link. None of them is left, only
    /// their memory for the next.
    pub fn publish_all(&self, publications: &mut Publications<R>, now: Now) -> Effects<R> {
        let mut live = self.live.lock();
        live.publish(publications, now.mono_us);
        live.wake();
        std::mem::take(&mut live.effects)
    }

    /// The process slept `gap_us` (a thread saw its own tick late by half the ack timeout or more). Before any datagram
    /// that waited is looked at.
    pub fn slept(&self, gap_us: u64, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.handle_slept(gap_us, now))
    }

    // What the cluster shell needs.

    /// The first frame on each connection of this node, for both classes.
    #[must_use]
    pub fn hello(&self, now: Now) -> Vec<u8> {
        self.live.lock().hello(now)
    }

    /// The other side's Hello came. Each `Accepted` is a new connection: whatever an older one of this peer and class had
    /// been given and not delivered is sent again on this one.
    pub fn linked(&self, peer: &NodeId, class: Class, hello: &[u8], now: Now) -> (Linked, Effects<R>) {
        let mut linked = Linked::Myself;
        let effects = self.with_live(now, |live| linked = live.handle_linked(peer, class, hello, now));
        (linked, effects)
    }

    /// The connection that serves this peer and class is gone.
    pub fn unlinked(&self, peer: &NodeId, class: Class, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.handle_unlinked(peer, class, now))
    }

    /// One whole frame came on an accepted connection. One call at a time for each connection, in order.
    ///
    /// # Errors
    /// What a correct peer never says, for the log: close the connection (and call [`Self::unlinked`]).
    pub fn received(&self, peer: &NodeId, class: Class, bytes: &[u8], now: Now) -> Result<Effects<R>, String> {
        let (header, frame) =
            Frame::decode(bytes, self.wire_version_max).map_err(|error| self.undecodable(peer, &error))?;
        if header.class() != class && !matches!(frame, Frame::Hello(_)) {
            return Err("a frame of the other connection".into());
        }
        let mut judged = Ok(());
        let effects = match frame {
            Frame::Deltas { epoch, first_seq, waited_us, changes } => {
                let admitted = self.live.lock().admit_changes(peer, header, epoch, first_seq, now)?;
                let took = take_in(&self.location, changes, admitted)?;
                self.changes_received.fetch_add(changes.len() as u64, Ordering::Relaxed);
                let next = first_seq.saturating_add(changes.len() as u64);
                if took.ahead > 0 {
                    judged = Err("sends stamps too far ahead".to_owned());
                }
                self.with_live(now, |live| match took.ahead {
                    0 => {
                        live.changes_applied(peer, epoch, next, took);
                        live.note_lag(peer, header, waited_us);
                    }
                    _ => live.note_took(peer, took),
                })
            }
            frame if class == Class::Bulk => {
                let mut took = Took::default();
                let up_to_us = || self.live.lock().stamps_up_to_us();
                if let Frame::Entries { changes, .. } = &frame {
                    let admitted = Admitted { up_to_us: up_to_us(), awaited_on_disk: false };
                    took = take_in(&self.location, *changes, admitted)?;
                } else if let Frame::Records { records, .. } = &frame {
                    took = take_in_records(&self.location, records, up_to_us())?;
                }
                let (heard, records) = (bytes.len() as u64, took.records);
                // This very frame may have been the first to say what time it is.
                let told = Now { cluster_us: now.cluster_us.max(header.sent_us), ..now };
                let mut effects = self.with_live(now, |live| judged = live.handle_bulk(peer, header, took, now));
                if judged.is_ok() {
                    let (went, later) =
                        self.with_bulk(now, |bulk| bulk.handle_frame(peer, frame, heard, records, told));
                    judged = went;
                    effects.append(later);
                }
                effects
            }
            frame => {
                if matches!(frame, Frame::AskSaved) {
                    // What came from this peer before was not awaited, and is now.
                    self.location.await_all_on_disk();
                }
                self.with_live(now, |live| judged = live.handle_frame(peer, header, frame, now))
            }
        };
        if judged.is_err() {
            // What it brought about all the same goes out with the next call.
            self.live.lock().effects.append(effects);
            return judged.map(|()| Effects::default());
        }
        Ok(effects)
    }

    /// Bytes that are no frame of a version that this node reads, in words.
    fn undecodable(&self, peer: &NodeId, error: &FrameError) -> String {
        let why = error.to_string();
        if matches!(error, FrameError::Version { .. }) {
            let refused = Event::VersionRefused { peer: peer.clone(), why: why.clone() };
            self.live.lock().effects.events.push(refused);
        }
        why
    }

    /// Appends whole frames that are due to `buf`, at most about 64 KiB at a time; `false` when there was nothing: the writer
    /// then sleeps until [`Effects::wake`] names its link.
    pub fn transmit(&self, peer: &NodeId, class: Class, buf: &mut Vec<u8>, now: Now) -> bool {
        if class == Class::Live {
            return self.live.lock().transmit(peer, buf, now);
        }
        let envelope = self.live.lock().envelope();
        self.bulk.lock().transmit(peer, buf, envelope)
    }

    /// The members that gossip shows alive, this node or not; at each change, and as often as you like.
    pub fn members(&self, view: Vec<Member>, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.handle_members(view, now))
    }

    /// The seeds behind which nobody is linked, as an operator would name them; at each change. A node that starts gives
    /// them `seed_fallback_ms`: one of them may serve, or hold a disk.
    pub fn seeds_unreached(&self, seeds: Vec<String>, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.seeds_unreached = seeds)
    }

    /// This node was refused by, or had to refuse, a node that it should be linked with: no cold start while that lasts.
    pub fn refused(&self, who: &str, why: &str, now: Now) {
        self.live.lock().refusal = Some((format!("{who}: {why}"), now.mono_us));
    }

    /// This node may not start a cluster (its certificate is out of its dates), or may again.
    pub fn forbid_cold_start(&self, why: Option<String>) {
        self.live.lock().forbidden = why;
    }

    /// What gossip is to say about this node, key by key.
    #[must_use]
    pub fn gossip(&self) -> BTreeMap<String, String> {
        self.live.lock().member().to_keys()
    }

    // What the disk needs.

    /// A commit begins, as [`Effects::commit_due`] asked: what is in the table now and awaited ([`Location::take_awaited`])
    /// is to be written. One at a time. Drop it when it fails, and begin another: nobody asks again for what it covered.
    pub fn begin_commit(&self) -> Commit {
        self.live.lock().begin_commit()
    }

    /// All that was in the table when this commit began is on disk.
    pub fn committed(&self, commit: Commit, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.committed(commit))
    }

    // Time.

    /// What time brings. Call it at [`Self::next_timeout_us`], and at least every [`TICK_US`].
    pub fn timeout(&self, now: Now) -> Effects<R> {
        let ((), mut effects) = self.with_bulk(now, |bulk| bulk.handle_timeout(now));
        effects.append(self.with_live(now, |live| live.handle_timeout(now)));
        effects
    }

    /// When [`Self::timeout`] is due, monotonic µs.
    #[must_use]
    pub fn next_timeout_us(&self) -> u64 {
        self.live.lock().next_timeout_us()
    }

    /// This node's table takes so many bytes ([`crate::location::Counts::bytes`]); as often as you like.
    pub fn memory(&self, bytes: u64, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.see_memory(bytes))
    }

    // What operators ask for.

    /// Begins to leave: [`Event::Drained`] or [`Event::DrainTimeout`] follows. A second call skips the grace.
    pub fn drain(&self, grace_us: u64, timeout_us: u64, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.drain(grace_us, timeout_us, now))
    }

    /// Says good-bye on every link. Close them once [`Self::said_good_bye`].
    pub fn leave(&self, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.leave())
    }

    /// Whether every link has taken the good-bye to its writer.
    #[must_use]
    pub fn said_good_bye(&self) -> bool {
        self.live.lock().said_good_bye()
    }

    /// Serve with what is here (`aorta ready --force`).
    pub fn force_ready(&self, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.force_ready(now))
    }

    /// A member is gone for good (`aorta forget NODE`); linked nodes are told.
    pub fn forget(&self, node: &NodeId, now: Now) -> Effects<R> {
        self.with_live(now, |live| live.forget(node, now))
    }

    /// Ready or not, and why not.
    #[must_use]
    pub fn readiness(&self, now: Now) -> Readiness {
        self.live.lock().readiness(now)
    }

    /// Members, links, lag: for `/v1/cluster`.
    #[must_use]
    pub fn view(&self, now: Now) -> ClusterView {
        // Before the lock: the sum settles every stripe whenever the floor has risen, and no REGISTER is to wait for that.
        let root = self.location.root();
        let mut view = self.live.lock().view(root, now);
        view.replies_waiting = self.slots.taken();
        view
    }

    /// What the table may take of memory before new AoRs are refused, bytes; 0 for no limit.
    #[must_use]
    pub fn memory_max_bytes(&self) -> u64 {
        self.live.lock().budget.max_bytes()
    }

    /// Bytes kept for others that have not acked them, and replies that wait: what the bounds are about.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        (self.live.lock().outbox.bytes(), self.slots.taken())
    }

    /// The wire version that is written now: the highest that every member it remembers has offered.
    #[must_use]
    pub fn wire_version(&self) -> u8 {
        self.live.lock().version()
    }

    /// The members to remember on disk: [`Start::last_known`] of the next start.
    #[must_use]
    pub fn last_known(&self) -> Vec<LastKnown> {
        self.live.lock().members.last_known.values().cloned().collect()
    }

    /// Changes that came live from other nodes since the start.
    #[must_use]
    pub fn changes_received(&self) -> u64 {
        self.changes_received.load(Ordering::Relaxed)
    }

    /// How long an entry is remembered, µs: what the floor is below cluster time.
    #[must_use]
    pub fn horizon_us(&self, now: Now) -> u64 {
        self.live.lock().horizon_us(now)
    }

    /// One step under the lock, then whatever follows from it.
    fn with_live(&self, now: Now, step: impl FnOnce(&mut Live<R>)) -> Effects<R> {
        let mut live = self.live.lock();
        step(&mut live);
        loop {
            live.advance(now);
            live.advance_drain(now);
            let commands = live.take_commands();
            if commands.is_empty() {
                break;
            }
            // Under both locks, so that orders arrive in their order. They are rare and cheap.
            let mut bulk = self.bulk.lock();
            commands.into_iter().for_each(|command| bulk.obey(command, now));
            let (ended, wakes) = (bulk.take_ended(), bulk.take_wakes());
            drop(bulk);
            live.effects.wake.extend(wakes);
            ended.into_iter().for_each(|ended| live.exchange_ended(ended, now));
        }
        live.wake();
        self.serving.store(live.serving(now.mono_us).to_bits(), Ordering::Release);
        std::mem::take(&mut live.effects)
    }

    /// One step of the exchanges, then what it means for the rest.
    fn with_bulk<T>(&self, now: Now, step: impl FnOnce(&mut Bulk) -> T) -> (T, Effects<R>) {
        let mut bulk = self.bulk.lock();
        let judged = step(&mut bulk);
        let (ended, wakes) = (bulk.take_ended(), bulk.take_wakes());
        drop(bulk);
        let mut effects = Effects::default();
        if !ended.is_empty() {
            effects = self.with_live(now, |live| ended.into_iter().for_each(|ended| live.exchange_ended(ended, now)));
        }
        effects.wake.extend(wakes);
        (judged, effects)
    }
}

/// Applies changes that came from elsewhere, without any lock of this room. Those with a stamp too far ahead are left.
fn take_in(location: &Location, changes: Packed<'_>, admitted: Admitted) -> Result<Took, String> {
    let mut took = Took::default();
    let admits =
        |refresh: &Refresh<'_>| refresh.stamp.time_us <= admitted.up_to_us && !cfg!(feature = "break-replication");
    let seek = |change| {
        let refresh = decode_refresh(change).filter(|(_, refresh)| admits(refresh));
        let aor = refresh.as_ref().map_or_else(|| change_aor(change), |(aor, _)| Ok(aor));
        aor.map(|aor| (location.seek(aor), change, refresh.map(|(_, refresh)| refresh)))
    };
    let mut coming = changes.iter().map(seek);
    let mut several: SmallVec<[_; SOUGHT_AT_ONCE]> = SmallVec::new();
    loop {
        several.clear();
        for change in coming.by_ref().take(SOUGHT_AT_ONCE) {
            several.push(change.map_err(|error| error.to_string())?);
        }
        if several.is_empty() {
            return Ok(took);
        }
        location.touch(several.iter().map(|(sought, ..)| sought.hash()));
        for (sought, change, refresh) in &several {
            took.records += 1;
            if let Some(refresh) = refresh
                && location.refresh(sought, refresh)
            {
                took.latest_us = took.latest_us.max(refresh.stamp.time_us);
            } else {
                let (_, record) = decode_change(change).map_err(|error| error.to_string())?;
                if !took.admits(&record, admitted.up_to_us) {
                    continue;
                }
                took.conflicts += u64::from(location.apply_sought(sought, record).conflict);
            }
            if admitted.awaited_on_disk {
                location.await_on_disk(sought.aor());
            }
        }
    }
}

/// As [`take_in`], of whole records.
fn take_in_records(location: &Location, records: &[u8], up_to_us: u64) -> Result<Took, String> {
    let mut took = Took::default();
    let conflicts = location.apply_parcel(records, |record| {
        took.records += 1;
        took.admits(record, up_to_us)
    });
    took.conflicts = conflicts.ok_or("records that cannot be read")?;
    Ok(took)
}
