//! One simulated node: the real pure rooms, a clock that the simulator turns, and a disk that keeps what was flushed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aorta::clock::{Clock, Now};
use aorta::location::Location;
use aorta::location::snapshot::value;
use aorta::registrar::RegistrarLimits;
use aorta::replication::{Replication, Settings, Start};
use aorta_proto::frame::LastKnown;
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Aor, BootId, Entry, NodeId, Record, Stamp};

use super::commits::Writing;
use super::plan::Limits;

/// The digest key of the simulated cluster.
pub(super) const DIGEST_KEY: [u8; 16] = *b"simulated digest";

/// Cluster time up to which stamps may be drawn before the next snapshot is flushed, µs ahead.
pub(super) const CEILING_AHEAD_US: u64 = 2_000_000;

/// What survives a crash.
#[derive(Debug, Default, Clone)]
pub(super) struct Disk {
    records: BTreeMap<Aor, Record>,
    last_known: Vec<LastKnown>,
    cluster_us: u64,
    wall_us: u64,
    /// Its last write was cut short.
    torn: Option<Aor>,
    /// It could not be kept up: the disk was full.
    ceiling_lost: bool,
}

impl Disk {
    /// One write was under way when the process died: half of it is there.
    pub(super) fn tear(&mut self, which: usize) {
        self.torn = self.records.keys().nth(which % self.records.len().max(1)).cloned();
    }

    /// How many others it knows to be members.
    pub(super) fn members(&self) -> usize {
        self.last_known.len()
    }

    /// What a commit wrote. A snapshot may have written something newer meanwhile.
    pub(super) fn take(&mut self, records: Vec<(Aor, Record)>) {
        for (aor, record) in records.into_iter().filter(|(_, record)| !record.is_empty()) {
            self.records.entry(aor).or_default().merge(&record);
        }
    }
}

/// A process that runs, or is stopped by SIGSTOP.
pub(super) struct Process {
    pub(super) location: Arc<Location>,
    pub(super) clock: Arc<Clock>,
    pub(super) replication: Replication<u64>,
    pub(super) asleep: bool,
    pub(super) drained: bool,
    pub(super) leaving: bool,
    pub(super) boot: u64,
    pub(super) limits: RegistrarLimits,
    pub(super) writing: Writing,
    /// The stamp that was drawn last, until somebody asks.
    pub(super) drawn: Cell<Option<Stamp>>,
    mono: Arc<AtomicU64>,
}

/// A machine.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disk: Disk,
    /// The disk as it was a while ago: a backup, a clone.
    pub(super) older: Disk,
    pub(super) process: Option<Process>,
    /// When its oscillator was last set (true time), what its monotonic clock said then, and how fast it runs since.
    set_us: u64,
    set_mono_us: u64,
    drift_ppm: i64,
    /// Its wall clock minus the true one, µs.
    wall_skew_us: i64,
    /// The seeds that its process knows to be unreached.
    pub(super) seeds_unreached: Vec<usize>,
    /// The highest wire version of its build.
    pub(super) wire_version_max: u8,
    boots: u64,
    snapshots: u64,
    /// Nothing can be written.
    pub(super) disk_full: bool,
}

/// Every so many snapshots the older copy of the disk is replaced.
const OLDER_EVERY: u64 = 8;

/// Buckets that the sweeper looks at after each snapshot.
const SWEEP_BUCKETS: u32 = aorta_proto::digest::BUCKETS / 8;

/// The true wall clock at the simulator's zero, µs since 1970.
const EPOCH_US: u64 = 1_700_000_000_000_000;

impl Node {
    pub(super) fn new(index: usize, mono_offset_us: u64, wall_skew_us: i64) -> Self {
        let id = NodeId::new(&format!("n{}", index + 1)).expect("a node id");
        Self {
            id,
            disk: Disk::default(),
            older: Disk::default(),
            process: None,
            set_us: 0,
            set_mono_us: mono_offset_us,
            drift_ppm: 0,
            wall_skew_us,
            seeds_unreached: Vec::new(),
            wire_version_max: aorta_proto::frame::VERSION_MAX,
            boots: 0,
            snapshots: 0,
            disk_full: false,
        }
    }

    fn mono_us(&self, true_us: u64) -> u64 {
        let passed_us = i64::try_from(true_us - self.set_us).unwrap_or(i64::MAX);
        self.set_mono_us.saturating_add_signed(passed_us + passed_us * self.drift_ppm / 1_000_000)
    }

    /// From now on its oscillator is off by so much.
    pub(super) fn drift(&mut self, true_us: u64, ppm: i64) {
        (self.set_mono_us, self.set_us, self.drift_ppm) = (self.mono_us(true_us), true_us, ppm);
    }

    /// Somebody sets its wall clock.
    pub(super) fn jump_wall(&mut self, by_us: i64) {
        self.wall_skew_us += by_us;
    }

    fn wall_us(&self, true_us: u64) -> u64 {
        (EPOCH_US + true_us).saturating_add_signed(self.wall_skew_us)
    }

    /// Starts a process from what the disk holds, of the build that is installed.
    pub(super) fn start(&mut self, true_us: u64, index: usize, seeds: Vec<String>, min_nodes: usize, limits: &Limits) {
        self.boots += 1;
        let boot = (index as u64 + 1) << 32 | self.boots;
        let mono = Arc::new(AtomicU64::new(self.mono_us(true_us)));
        let clock = Arc::new(Clock::manual(Arc::clone(&mono), BootId(boot)));
        let location = Arc::new(Location::new(DIGEST_KEY, true));
        let torn = self.disk.torn.take();
        for (aor, record) in &self.disk.records {
            if let Some(record) = self.loaded(aor, record, torn.as_ref() == Some(aor)) {
                location.restore(aor, record);
            }
        }
        let wall_us = self.wall_us(true_us);
        let persisted = self.disk.cluster_us > 0;
        let passed_us = wall_us.saturating_sub(self.disk.wall_us);
        let start = Start {
            wall_us,
            clock_guess_us: persisted.then_some(self.disk.cluster_us + passed_us),
            clock_ceiling_us: persisted.then_some(self.disk.cluster_us + CEILING_AHEAD_US),
            clock_only_from_peers: self.disk.ceiling_lost,
            last_known: self.disk.last_known.clone(),
            seeds_unreached: seeds,
        };
        let settings = Settings {
            bootstrap_min_nodes: min_nodes,
            ack: limits.ack.into(),
            outbox_bytes_max: limits.outbox_bytes_max,
            pending_replies_max: limits.pending_replies_max,
            expires_max_s: limits.grants_s(index),
            clock_ahead_max_s: limits.clock_ahead_max_s,
            wire_version_max: self.wire_version_max,
            ..Settings::new(self.id.clone(), BootId(boot))
        };
        let (table, time) = (Arc::clone(&location), Arc::clone(&clock));
        let replication = Replication::new(settings, start, table, time, clock.now());
        let (asleep, drained, leaving, writing) = (false, false, false, Writing::default());
        let (limits, drawn) = (registrar_limits(limits, index), Cell::new(None));
        self.process = Some(Process {
            location,
            clock,
            replication,
            asleep,
            drained,
            leaving,
            boot,
            limits,
            writing,
            drawn,
            mono,
        });
    }

    /// A record as the disk gives it back: what is torn does not come back.
    fn loaded(&self, aor: &Aor, record: &Record, torn: bool) -> Option<Record> {
        let mut bytes = Vec::new();
        value::encode(aor, record, &mut bytes).ok()?;
        bytes.truncate(if torn { bytes.len() / 2 } else { bytes.len() });
        let mut record = value::decode(aor, &bytes).ok()?;
        let lives = |entry: &Entry| entry.lapses_us().is_none_or(|lapses_us| lapses_us > self.disk.cluster_us);
        if is(Mutant::LapsedSkippedAtLoad) {
            record.entries.retain(lives);
        }
        Some(record)
    }

    /// Turns the clock and gives the process, if one runs and is not stopped.
    pub(super) fn awake(&mut self, true_us: u64) -> Option<(&mut Process, Now)> {
        let (mono_us, wall_us) = (self.mono_us(true_us), self.wall_us(true_us));
        let process = self.process.as_mut().filter(|process| !process.asleep)?;
        process.mono.store(mono_us, Ordering::Release);
        let mut now = process.clock.now();
        if is(Mutant::LapseByWallClock) {
            now.cluster_us = wall_us;
        }
        Some((process, now))
    }

    /// Whether a process runs and is not stopped.
    pub(super) fn is_awake(&self) -> bool {
        self.process.as_ref().is_some_and(|process| !process.asleep)
    }

    /// Writes what time it is, and so the ceiling, if it can.
    pub(super) fn keeps_time(&mut self, true_us: u64) {
        let (wall_us, disk_full) = (self.wall_us(true_us), self.disk_full);
        let Some((_, now)) = self.awake(true_us).filter(|_| !disk_full) else { return };
        (self.disk.cluster_us, self.disk.wall_us) = (now.cluster_us, wall_us);
    }

    /// Writes what changed since the last time.
    pub(super) fn snapshot(&mut self, true_us: u64) {
        let (wall_us, disk_full) = (self.wall_us(true_us), self.disk_full);
        let Some((process, now)) = self.awake(true_us) else { return };
        if !process.clock.is_set() {
            return;
        }
        if disk_full {
            self.disk.ceiling_lost = true;
            return;
        }
        let (location, last_known) = (Arc::clone(&process.location), process.replication.last_known());
        let dirty = location.take_dirty();
        let dirty: Vec<_> = dirty.into_iter().flat_map(|tag| location.take_records(tag)).collect();
        // What is forgotten goes sooner or later.
        self.disk.records.retain(|aor, _| location.get(aor, |record| record.is_some()));
        self.disk.records.extend(dirty);
        location.sweep(now, SWEEP_BUCKETS);
        self.disk.ceiling_lost = false;
        self.disk.last_known = last_known;
        self.disk.cluster_us = now.cluster_us;
        self.disk.wall_us = wall_us;
        self.snapshots += 1;
        if self.snapshots.is_multiple_of(OLDER_EVERY) {
            self.older = self.disk.clone();
        }
    }
}

/// Short lifetimes are allowed, so that contacts lapse within a run.
fn registrar_limits(limits: &Limits, index: usize) -> RegistrarLimits {
    RegistrarLimits {
        expires_min_s: 2,
        expires_max_s: limits.grants_s(index),
        max_contacts_per_aor: limits.max_contacts_per_aor,
        ..RegistrarLimits::default()
    }
}
