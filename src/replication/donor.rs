//! The answering side of an exchange. Keeps questions, not answers: entries are read from the table when the connection
//! can take them, so a slow reader costs this node nothing.

use std::collections::{BTreeSet, VecDeque};

use aorta_proto::Listed;
use aorta_proto::digest::ItemHash;
use aorta_proto::frame::{Buckets, Envelope, Frame, RECORDS_SINCE, Span, encode_changes, encode_entries};
use aorta_proto::mutant::{Mutant, is, is_any};

use crate::location::{Location, Parcel};

/// Questions that an opener may have under way at a time; a correct one has fewer.
const QUESTIONS_MAX: usize = 16;

/// Entries put into one frame, bytes: so few that who merges them lets phones go first every tenth of a millisecond or so, so
/// many that a table of a million contacts is no more than some ten thousand frames.
pub(super) const ENTRIES_BYTES: usize = 16 * 1024;

/// One exchange, answered.
#[derive(Debug)]
pub(super) struct Donor {
    pub(super) id: u64,
    questions: VecDeque<Question>,
    /// Batches for which the opener owes entries.
    owed: BTreeSet<u32>,
}

#[derive(Debug)]
enum Question {
    Root,
    Sums { level: u8, indexes: Vec<u16> },
    Lists(Box<Lists>),
    Done { batch: u32 },
}

/// A batch of lists, worked through bucket by bucket.
#[derive(Debug)]
struct Lists {
    batch: u32,
    spans: VecDeque<Span>,
    have: VecDeque<Buckets>,
    /// Whole buckets, not yet sent.
    parcel: Parcel,
    /// Encoded, not yet sent.
    ready: VecDeque<Box<[u8]>>,
    want: Vec<(u16, Vec<u64>)>,
}

impl Donor {
    pub(super) fn new(id: u64) -> Self {
        Self { id, questions: VecDeque::from([Question::Root]), owed: BTreeSet::new() }
    }

    pub(super) fn handle(&mut self, frame: Frame<'_>) -> Result<(), String> {
        if self.questions.len() + self.owed.len() >= QUESTIONS_MAX {
            return Err("asks more than it may at a time".into());
        }
        self.questions.push_back(match frame {
            Frame::Ask { level, indexes, .. } => Question::Sums { level, indexes },
            Frame::Lists { batch, spans, have, .. } => Question::Lists(Box::new(Lists {
                batch,
                spans: spans.into(),
                have: have.into(),
                parcel: Parcel::default(),
                ready: VecDeque::new(),
                want: Vec::new(),
            })),
            _ => return Err("no question".into()),
        });
        Ok(())
    }

    /// Whether entries of this batch were asked for.
    pub(super) fn takes(&self, id: u64, batch: u32) -> bool {
        self.id == id && self.owed.contains(&batch)
    }

    /// Entries that were asked for are in the table.
    pub(super) fn entries(&mut self, batch: u32, last: bool) {
        if last && self.owed.remove(&batch) {
            self.questions.push_back(Question::Done { batch });
        }
    }

    pub(super) fn has_due(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Appends the next frame of an answer, if one is due.
    pub(super) fn transmit(&mut self, location: &Location, envelope: Envelope, buf: &mut Vec<u8>) {
        let id = self.id;
        let Some(question) = self.questions.front_mut() else { return };
        let answer = match question {
            Question::Root => Frame::Root { id, floor_us: location.floor_us(), root: location.root() },
            Question::Sums { level, indexes } => {
                let indexes: Vec<u32> = indexes.iter().copied().map(u32::from).collect();
                Frame::Sums { id, sums: location.sums(*level, &indexes) }
            }
            Question::Done { batch } => Frame::Done { id, batch: *batch },
            Question::Lists(lists) => {
                if lists.transmit(id, location, envelope, buf) {
                    return;
                }
                let batch = lists.batch;
                let buckets = std::mem::take(&mut lists.want);
                if buckets.is_empty() {
                    Frame::Done { id, batch }
                } else {
                    self.owed.insert(batch);
                    Frame::Want { id, batch, buckets }
                }
            }
        };
        self.questions.pop_front();
        // Each is bounded by its question, which came in a frame.
        drop(answer.encode(envelope, buf));
    }
}

impl Lists {
    /// Appends the next frame with what the opener lacks, if there is any left.
    fn transmit(&mut self, id: u64, location: &Location, envelope: Envelope, buf: &mut Vec<u8>) -> bool {
        self.read(location);
        if !self.parcel.is_empty() {
            // An older version has no words for it, also when it was filled in a later one: then all of it is entries.
            let bytes_max = if envelope.version < RECORDS_SINCE { 0 } else { ENTRIES_BYTES };
            let mut records = Vec::with_capacity(bytes_max);
            location.take_parcel(&mut self.parcel, bytes_max, &mut records, |aor, record| {
                self.ready.extend(encode_changes(aor, record).unwrap_or_default());
            });
            if !records.is_empty() {
                // Far from the limit of a frame.
                drop(Frame::Records { id, batch: self.batch, records: &records }.encode(envelope, buf));
                return true;
            }
        }
        if self.ready.is_empty() {
            return false;
        }
        let changes = self.ready.iter().map(|change| &**change);
        let sent = encode_entries((id, self.batch, false), changes, ENTRIES_BYTES, envelope, buf);
        self.ready.drain(..sent);
        true
    }

    /// Goes on until a frame is full or all buckets are done.
    fn read(&mut self, location: &Location) {
        let mut bytes: usize = self.ready.iter().map(|change| change.len()).sum();
        while bytes + self.parcel.len() < ENTRIES_BYTES {
            let Some(bucket) = self.next_bucket() else { return };
            let theirs = match self.have.front() {
                Some(listed) if listed.bucket == bucket => self.have.pop_front().map(|listed| listed.items),
                _ => None,
            };
            let theirs = theirs.unwrap_or_default();
            if theirs.is_empty() && !is_any() {
                // All of it, as whoever joins with an empty table wants it: nothing to compare.
                location.pack_bucket(u32::from(bucket), &mut self.parcel);
                continue;
            }
            let changes = self.difference(location, bucket, &theirs);
            bytes += changes.iter().map(|change| change.len()).sum::<usize>();
            self.ready.extend(changes);
        }
    }

    /// What the opener lacks of a bucket; what this side lacks is wanted.
    fn difference(&mut self, location: &Location, bucket: u16, theirs: &[Listed]) -> Vec<Box<[u8]>> {
        let (give, want) = compare(&location.list(u32::from(bucket)), theirs);
        if !want.is_empty() && !is(Mutant::RepairOneWay) {
            self.want.push((bucket, want));
        }
        if give.is_empty() || is(Mutant::DonorGivesNothing) { Vec::new() } else { encoded(location, bucket, &give) }
    }

    fn next_bucket(&mut self) -> Option<u16> {
        let last = self.spans.len() == 1 && is(Mutant::DonorStopsEarly);
        let span = self.spans.front_mut().filter(|span| !last || span.more > 0)?;
        let bucket = span.first;
        if span.more == 0 {
            self.spans.pop_front();
        } else {
            span.first += 1;
            span.more -= 1;
        }
        Some(bucket)
    }
}

/// Items of a bucket, encoded. One that is larger than a frame cannot exist where limits were checked at start.
pub(super) fn encoded(location: &Location, bucket: u16, items: &[ItemHash]) -> Vec<Box<[u8]>> {
    let records = location.fetch(u32::from(bucket), items);
    records.iter().flat_map(|(aor, record)| encode_changes(aor.as_str(), record).unwrap_or_default()).collect()
}

/// What this side has and the other lacks or has older, and the reverse.
fn compare(mine: &[Listed], theirs: &[Listed]) -> (Vec<ItemHash>, Vec<ItemHash>) {
    let index = |list: &[Listed]| list.iter().map(|item| (item.hash, item.stamp)).collect();
    let (mine_by, theirs_by): (std::collections::BTreeMap<_, _>, std::collections::BTreeMap<_, _>) =
        (index(mine), index(theirs));
    let newer = |list: &[Listed], other: &std::collections::BTreeMap<ItemHash, aorta_proto::Stamp>| {
        let lacks = |item: &&Listed| other.get(&item.hash).is_none_or(|stamp| *stamp < item.stamp);
        list.iter().filter(lacks).map(|item| item.hash).collect()
    };
    (newer(mine, &theirs_by), newer(theirs, &mine_by))
}

#[cfg(test)]
mod tests {
    use aorta_proto::frame::{HEADER_BYTES, decode_change};
    use aorta_proto::{Aor, BootId, ContactKey, Entry, Record, Stamp, Value};

    use super::*;

    const AORS: usize = 3000;

    fn filled() -> Location {
        let location = Location::new([7; 16], false);
        for name in 0..AORS {
            let entry = Entry {
                key: ContactKey::uri(format!("sip:{name}@192.0.2.1").as_bytes()),
                stamp: Stamp { time_us: 1 + name as u64, counter: 0, boot: BootId(1) },
                call_id_hash: 1,
                cseq: 1,
                uri_hash: name as u64,
                value: Value::Gone,
            };
            location.apply(&Aor::from_canonical(&format!("user{name}@example.com")), Record::from(entry));
        }
        location
    }

    /// Puts a frame into a table; whether it was the last of the batch.
    fn merge(frame: &Frame<'_>, into: &Location) -> bool {
        match frame {
            Frame::Records { records, .. } => assert_eq!(into.apply_parcel(records, |_| true), Some(0)),
            Frame::Entries { changes, .. } => changes.iter().for_each(|change| {
                let (aor, record) = decode_change(change).expect("a change");
                into.apply(&Aor::from_canonical(aor), record);
            }),
            other => return matches!(other, Frame::Done { .. }),
        }
        false
    }

    #[test]
    fn a_version_that_falls_in_the_midst_of_a_batch_loses_nothing_of_it() {
        let (location, joiner) = (filled(), Location::new([7; 16], false));
        let mut donor = Donor::new(1);
        donor.questions.clear();
        let spans = vec![Span { first: 0, more: u16::MAX }];
        donor.handle(Frame::Lists { id: 1, batch: 0, spans, have: Vec::new() }).expect("a question");
        let mut kinds = Vec::new();
        for version in [RECORDS_SINCE].into_iter().chain(std::iter::repeat(RECORDS_SINCE - 1)) {
            let mut bytes = Vec::new();
            donor.transmit(&location, Envelope { version, sent_us: 0 }, &mut bytes);
            assert!(bytes.len() > HEADER_BYTES, "something is due until it is done");
            let (header, frame) = Frame::decode(&bytes, version).expect("a frame of the version");
            kinds.push(header.kind);
            if merge(&frame, &joiner) {
                break;
            }
        }
        kinds.dedup();
        assert_eq!(kinds, [41, 37, 39], "Records, then Entries, then Done");
        assert_eq!(joiner.root(), location.root());
    }
}
