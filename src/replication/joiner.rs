//! The opening side of an exchange: digest tree down to the buckets that differ, lists of what it has in them, entries
//! each way. Knows where it is and what it asked; holds no entries.

use std::collections::{BTreeSet, VecDeque};

use aorta_proto::digest::{LEAF_LEVEL, children, leaves};
use aorta_proto::frame::{Buckets, Envelope, Frame, Span, encode_entries};

use super::bulk::{SILENCE_US, refusal};
use super::donor::{ENTRIES_BYTES, encoded};
use super::effects::{Moved, Purpose};
use crate::location::Location;

/// Questions under way at a time: enough that the other side never waits, few enough that its memory of them is small.
const WINDOW: usize = 4;

/// Sums asked for in one question; their answer is 32 KiB.
const SUMS_PER_QUESTION: usize = 2048;

/// Buckets listed in one question.
const BUCKETS_PER_QUESTION: usize = 2048;

/// Entries listed in one question; each takes about 28 bytes.
const ITEMS_PER_QUESTION: usize = 1200;

/// Between the two looks of a routine exchange, µs: what is merely under way arrives meanwhile.
const SECOND_LOOK_US: u64 = 1_000_000;

/// One exchange, opened.
#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) id: u64,
    pub(super) moved: Moved,
    purpose: Purpose,
    phase: Phase,
    heard_us: u64,
}

#[derive(Debug)]
enum Phase {
    Begin { sent: bool },
    Tree(Tree),
    Pause { until_us: u64, leaves: Vec<u16> },
    Settle(Settle),
}

/// On the way down.
#[derive(Debug)]
struct Tree {
    level: u8,
    /// Nodes of this level whose sums are to be asked for.
    ask: VecDeque<u16>,
    /// Asked, not yet answered, in order.
    asked: VecDeque<Vec<u16>>,
    /// Nodes of this level that differ and have children.
    differ: Vec<u16>,
    /// Buckets that differ.
    leaves: Vec<u16>,
    second_look: bool,
}

/// Among the buckets that differ.
#[derive(Debug)]
struct Settle {
    leaves: VecDeque<u16>,
    next_batch: u32,
    open: BTreeSet<u32>,
    wanted: VecDeque<Wanted>,
}

/// Entries that the other side asked for.
#[derive(Debug)]
struct Wanted {
    batch: u32,
    buckets: VecDeque<(u16, Vec<u64>)>,
    ready: VecDeque<Box<[u8]>>,
}

/// Where an exchange stands after a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Goes,
    Done,
    Failed(String),
}

impl Joiner {
    pub(super) fn new(id: u64, purpose: Purpose, now_us: u64) -> Self {
        let phase = Phase::Begin { sent: false };
        Self { id, moved: Moved::default(), purpose, phase, heard_us: now_us }
    }

    /// Something came from the other side.
    pub(super) fn heard(&mut self, bytes: u64, records: u64, now_us: u64) {
        self.moved.bytes_in += bytes;
        self.moved.records_in += records;
        self.heard_us = now_us;
    }

    pub(super) fn handle(&mut self, frame: Frame<'_>, location: &Location, now_us: u64) -> Progress {
        match frame {
            Frame::Root { id, root, floor_us } if id == self.id => {
                if root == location.root() {
                    return Progress::Done;
                }
                // A floor that rose here meanwhile alone makes a difference: asked again above it. Floors rise once in 10 s.
                self.phase = match floor_us < location.floor_us() {
                    true => Phase::Begin { sent: false },
                    false => Phase::Tree(Tree::from_top()),
                };
                Progress::Goes
            }
            Frame::Sums { id, sums } if id == self.id => self.handle_sums(&sums, location, now_us),
            Frame::Want { id, batch, buckets } if id == self.id => {
                if let Phase::Settle(settle) = &mut self.phase
                    && settle.open.contains(&batch)
                {
                    self.moved.entries_out += buckets.iter().map(|(_, items)| items.len() as u64).sum::<u64>();
                    settle.wanted.push_back(Wanted { batch, buckets: buckets.into(), ready: VecDeque::new() });
                }
                Progress::Goes
            }
            Frame::Done { id, batch } if id == self.id => {
                let Phase::Settle(settle) = &mut self.phase else { return Progress::Goes };
                settle.open.remove(&batch);
                settle.progress()
            }
            Frame::Refuse { id, why } if id == self.id => Progress::Failed(refusal(why).to_owned()),
            _ => Progress::Goes,
        }
    }

    fn handle_sums(&mut self, sums: &[u128], location: &Location, now_us: u64) -> Progress {
        let Phase::Tree(tree) = &mut self.phase else { return Progress::Goes };
        // What is to be looked at twice would be asked for bucket by bucket.
        let lists_all_of_it = self.purpose != Purpose::Routine;
        if !tree.compare(sums, location, lists_all_of_it) {
            return Progress::Failed("it answered what was not asked".into());
        }
        if !tree.ask.is_empty() || !tree.asked.is_empty() || tree.descend() {
            return Progress::Goes;
        }
        let mut leaves = std::mem::take(&mut tree.leaves);
        leaves.sort_unstable();
        if leaves.is_empty() {
            return Progress::Done;
        }
        if self.purpose == Purpose::Routine && !tree.second_look {
            self.phase = Phase::Pause { until_us: now_us + SECOND_LOOK_US, leaves };
        } else {
            self.moved.buckets = leaves.len() as u64;
            let leaves = leaves.into();
            let (open, wanted) = (BTreeSet::new(), VecDeque::new());
            self.phase = Phase::Settle(Settle { leaves, next_batch: 0, open, wanted });
        }
        Progress::Goes
    }

    pub(super) fn has_due(&self) -> bool {
        match &self.phase {
            Phase::Begin { sent } => !sent,
            Phase::Tree(tree) => !tree.ask.is_empty() && tree.asked.len() < WINDOW,
            Phase::Pause { .. } => false,
            Phase::Settle(settle) => {
                !settle.wanted.is_empty() || (!settle.leaves.is_empty() && settle.open.len() < WINDOW)
            }
        }
    }

    pub(super) fn transmit(&mut self, location: &Location, envelope: Envelope, buf: &mut Vec<u8>) -> Progress {
        let before = buf.len();
        let id = self.id;
        let frame = match &mut self.phase {
            Phase::Begin { sent: true } | Phase::Pause { .. } => return Progress::Goes,
            Phase::Begin { sent } => {
                *sent = true;
                Frame::Begin { id, floor_us: location.floor_us() }
            }
            Phase::Tree(tree) => match tree.question() {
                Some(indexes) => Frame::Ask { id, level: tree.level, indexes },
                None => return Progress::Goes,
            },
            Phase::Settle(settle) => match settle.next(id, location, envelope, buf) {
                Some(frame) => frame,
                None => {
                    self.moved.bytes_out += (buf.len() - before) as u64;
                    return Progress::Goes;
                }
            },
        };
        if let Err(error) = frame.encode(envelope, buf) {
            return Progress::Failed(error.to_string());
        }
        self.moved.bytes_out += (buf.len() - before) as u64;
        Progress::Goes
    }

    pub(super) fn handle_timeout(&mut self, now_us: u64) -> Progress {
        match &mut self.phase {
            Phase::Pause { until_us, leaves } => {
                if now_us >= *until_us {
                    let leaves = std::mem::take(leaves);
                    self.phase = Phase::Tree(Tree::second_look(leaves));
                    self.heard_us = now_us;
                }
                Progress::Goes
            }
            _ if now_us.saturating_sub(self.heard_us) > SILENCE_US => Progress::Failed("it fell silent".into()),
            _ => Progress::Goes,
        }
    }
}

impl Tree {
    fn from_top() -> Self {
        let ask = children(0, 0).into_iter().flatten().map(narrow).collect();
        Self { level: 1, ask, asked: VecDeque::new(), differ: Vec::new(), leaves: Vec::new(), second_look: false }
    }

    fn second_look(leaves: Vec<u16>) -> Self {
        Self { level: LEAF_LEVEL, ask: leaves.into(), second_look: true, ..Self::from_top() }
    }

    fn question(&mut self) -> Option<Vec<u16>> {
        if self.asked.len() >= WINDOW || self.ask.is_empty() {
            return None;
        }
        let count = self.ask.len().min(SUMS_PER_QUESTION);
        let indexes: Vec<u16> = self.ask.drain(..count).collect();
        self.asked.push_back(indexes.clone());
        Some(indexes)
    }

    /// Whether the sums answer the oldest question. Where nothing is here, `lists_all_of_it` saves the way down.
    fn compare(&mut self, theirs: &[u128], location: &Location, lists_all_of_it: bool) -> bool {
        let Some(indexes) = self.asked.pop_front().filter(|indexes| indexes.len() == theirs.len()) else {
            return false;
        };
        let wide: Vec<u32> = indexes.iter().copied().map(u32::from).collect();
        let mine = location.sums(self.level, &wide);
        for ((&index, theirs), mine) in indexes.iter().zip(theirs).zip(mine) {
            if mine == *theirs {
                continue;
            }
            if self.level == LEAF_LEVEL {
                self.leaves.push(index);
            } else if mine == 0 && lists_all_of_it {
                // Every bucket of it is asked for: the lists cost next to nothing.
                self.leaves.extend(leaves(self.level, u32::from(index)).into_iter().flatten().map(narrow));
            } else {
                self.differ.push(index);
            }
        }
        true
    }

    /// To the next level; whether there is anything to ask for.
    fn descend(&mut self) -> bool {
        let level = self.level;
        let below = self.differ.drain(..).flat_map(|index| children(level, u32::from(index)).into_iter().flatten());
        self.ask = below.map(narrow).collect();
        self.level += 1;
        !self.ask.is_empty()
    }
}

impl Settle {
    fn progress(&self) -> Progress {
        if self.leaves.is_empty() && self.open.is_empty() { Progress::Done } else { Progress::Goes }
    }

    /// The next frame: either given back, or (entries) already appended to `buf`.
    fn next(&mut self, id: u64, location: &Location, envelope: Envelope, buf: &mut Vec<u8>) -> Option<Frame<'static>> {
        if let Some(wanted) = self.wanted.front_mut() {
            wanted.read(location);
            let changes = wanted.ready.iter().map(|change| &**change);
            let before = buf.len();
            let fits = fitting(&wanted.ready);
            let last = wanted.buckets.is_empty() && fits == wanted.ready.len();
            encode_entries((id, wanted.batch, last), changes.take(fits), usize::MAX, envelope, buf);
            debug_assert!(buf.len() > before, "a frame was written");
            wanted.ready.drain(..fits);
            if last {
                self.wanted.pop_front();
            }
            return None;
        }
        if self.leaves.is_empty() || self.open.len() >= WINDOW {
            return None;
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        self.open.insert(batch);
        let (spans, have) = self.lists(location);
        Some(Frame::Lists { id, batch, spans, have })
    }

    fn lists(&mut self, location: &Location) -> (Vec<Span>, Vec<Buckets>) {
        let mut spans: Vec<Span> = Vec::new();
        let mut have = Vec::new();
        let mut items_listed = 0;
        for _ in 0..BUCKETS_PER_QUESTION {
            if items_listed >= ITEMS_PER_QUESTION {
                break;
            }
            let Some(bucket) = self.leaves.pop_front() else { break };
            match spans.last_mut() {
                Some(span) if u32::from(span.first) + u32::from(span.more) + 1 == u32::from(bucket) => span.more += 1,
                _ => spans.push(Span { first: bucket, more: 0 }),
            }
            let items = location.list(u32::from(bucket));
            if !items.is_empty() {
                items_listed += items.len();
                have.push(Buckets { bucket, items });
            }
        }
        (spans, have)
    }
}

impl Wanted {
    /// Reads entries from the table until a frame is full or all are read.
    fn read(&mut self, location: &Location) {
        let mut bytes: usize = self.ready.iter().map(|change| change.len()).sum();
        while bytes < ENTRIES_BYTES {
            let Some((bucket, items)) = self.buckets.pop_front() else { return };
            let changes = encoded(location, bucket, &items);
            bytes += changes.iter().map(|change| change.len()).sum::<usize>();
            self.ready.extend(changes);
        }
    }
}

/// How many of these fit in one frame; one at least, if there are any.
fn fitting(ready: &VecDeque<Box<[u8]>>) -> usize {
    let mut bytes = 0;
    let fits = ready.iter().take_while(|change| {
        bytes += change.len();
        bytes <= ENTRIES_BYTES
    });
    fits.count().max(usize::from(!ready.is_empty()))
}

/// Indexes of the tree fit in 16 bits: its widest level has 65 536 nodes.
fn narrow(index: u32) -> u16 {
    debug_assert!(index <= u32::from(u16::MAX), "inside the tree");
    index as u16
}
