//! A refresh of a contact that is known, where the record lies: when it was written is written anew, and what it says is taken
//! over as it is. A record is read, merged and packed for everything else; that gives the same (`tests`).

use aorta_proto::view::lapses_us;
use aorta_proto::{ContactKey, Refresh, Stamp};

use super::reader::{Bound, Head, Key, Reader};
use super::words::{Kind, Words};
use super::writer::Writer;
use super::{Packed, Previous, Scratch};

/// What is known of a contact, where nothing else is known of its AoR but the trail at its own URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// [`aorta_proto::Entry::stamp`]
    pub stamp: Stamp,
    /// [`Record::latest`](aorta_proto::Record::latest)
    pub latest: Stamp,
    /// [`aorta_proto::Entry::call_id_hash`]
    pub call_id_hash: u64,
    /// [`aorta_proto::Entry::cseq`]
    pub cseq: u32,
    /// [`aorta_proto::Binding::first`]
    pub first: Stamp,
    /// [`aorta_proto::Entry::lapses_us`]
    pub lapses_us: u64,
    /// Whether that trail is known.
    pub has_trail: bool,
}

/// A contact where it lies: the last entry of its record.
struct Lying<'a> {
    /// The record up to it, and from its key on.
    before: &'a [u8],
    after: &'a [u8],
    /// The entry before it.
    previous: Previous,
    head: Head,
    /// Since when it is registered, and the seconds that were granted.
    granted: (Stamp, u32),
    bound: Bound<'a>,
    cleared: Option<Stamp>,
    /// The greatest stamp of anything else in the record.
    latest_other: Stamp,
    /// What else there is.
    others: Others,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    None,
    /// The trail at its own URI.
    Trail,
    Some,
}

impl<'a> Lying<'a> {
    /// The contact of a refresh where it lies, if it is the last of the record and says the same but for the lifetime granted,
    /// `q`, the node and the source, and nothing in the record is at or below the floor.
    fn find(words: &'a Words, packed: &'a Packed, refresh: &Refresh<'_>, floor_us: u64) -> Option<Self> {
        let mut reader = Reader::new(packed, words);
        _ = reader.aor();
        let (cleared, count) = reader.cleared();
        let old = |stamp: Stamp| stamp.time_us <= floor_us;
        if count == 0 || cleared.is_some_and(|cleared| old(cleared.stamp)) {
            return None;
        }
        let cleared = cleared.map(|cleared| cleared.stamp);
        let mut latest_other = cleared.unwrap_or(Stamp::ZERO);
        let mut others = if cleared.is_none() { Others::None } else { Others::Some };
        let mut previous = Previous::NONE;
        for _ in 1..count {
            let head = reader.head(&previous);
            if old(head.told.stamp) {
                return None;
            }
            if head.granted.is_some() {
                reader.pass_bound();
            }
            let key = reader.key(&head);
            let own_trail = matches!(key, Key::Trail) && head.told.uri_hash == refresh.uri_hash;
            others = if own_trail && others == Others::None { Others::Trail } else { Others::Some };
            latest_other = latest_other.max(head.told.stamp);
            previous = head.told;
        }
        let head_at = packed.told.len() - reader.left();
        let head = reader.head(&previous);
        let granted = head.granted?;
        let bound = reader.bound();
        let key_at = packed.told.len() - reader.left();
        let key = reader.key(&head);
        if old(head.told.stamp)
            || head.told.uri_hash != refresh.uri_hash
            || !says_the_same(&bound, refresh, words)
            || !is_key(&key, refresh, words)
        {
            return None;
        }
        let (before, after) = (packed.told.get(..head_at)?, packed.told.get(key_at..)?);
        Some(Self { before, after, previous, head, granted, bound, cleared, latest_other, others })
    }

    /// What is known, if nothing else is that a judgement would have to look at.
    fn known(&self) -> Option<Known> {
        let Previous { stamp, call_id_hash, cseq, .. } = self.head.told;
        let (first, granted_s) = self.granted;
        (self.others != Others::Some).then(|| Known {
            stamp,
            latest: stamp.max(self.latest_other),
            call_id_hash,
            cseq,
            first,
            lapses_us: lapses_us(stamp, first, granted_s),
            has_trail: self.others == Others::Trail,
        })
    }
}

impl Scratch {
    /// Refreshes a record in its place, if that is all that the delta does: its entry is later than the one that is
    /// [found](Lying::find) and than what was cleared. Returns the stamp that the entry had.
    pub(in crate::location) fn refresh(
        &mut self,
        words: &Words,
        packed: &mut Packed,
        refresh: &Refresh<'_>,
        floor_us: u64,
    ) -> Option<Stamp> {
        let lying = Lying::find(words, packed, refresh, floor_us)?;
        let before = lying.head.told.stamp;
        if before >= refresh.stamp || lying.cleared.is_some_and(|cleared| refresh.stamp < cleared) {
            return None;
        }
        self.tell(words, &lying, refresh);
        self.put(packed);
        Some(before)
    }

    /// Refreshes a contact that somebody names who does not know when it was written: `judge` completes the refresh with what is
    /// known, and says what came of that; `None` when it cannot judge by so little. Nothing is written when what came of it
    /// `writes` nothing. Returns what came of it, and the stamp that the entry had if it was written.
    pub(in crate::location) fn renew<T>(
        &mut self,
        (words, packed): (&Words, &mut Packed),
        (refresh, floor_us): (&mut Refresh<'_>, u64),
        judge: impl FnOnce(&Known, &mut Refresh<'_>) -> Option<T>,
        writes: impl FnOnce(&T) -> bool,
    ) -> Option<(T, Option<Stamp>)> {
        let lying = Lying::find(words, packed, refresh, floor_us)?;
        let judged = judge(&lying.known()?, refresh)?;
        if !writes(&judged) {
            return Some((judged, None));
        }
        let before = lying.head.told.stamp;
        self.tell(words, &lying, refresh);
        self.put(packed);
        Some((judged, Some(before)))
    }

    /// Tells a record with one contact refreshed, for [`Scratch::put`].
    fn tell(&mut self, words: &Words, lying: &Lying<'_>, refresh: &Refresh<'_>) {
        let Refresh { stamp, call_id_hash, cseq, uri_hash, ref binding, .. } = *refresh;
        let Lying { before, after, ref previous, ref head, ref bound, .. } = *lying;
        self.bytes.clear();
        let mut writer = Writer::new(&mut self.bytes, words, &mut self.text);
        writer.told(before);
        let told = Previous { stamp, call_id_hash, cseq, uri_hash };
        writer.head(previous, &told, Some(binding.first), head.key);
        writer.grant(binding.granted_s, binding.q, &binding.accepted_by);
        writer.told(bound.texts);
        writer.text(Kind::Source, binding.source);
        writer.told(after);
    }
}

/// Whether the texts are those of the refresh, but for the source.
fn says_the_same(bound: &Bound<'_>, refresh: &Refresh<'_>, words: &Words) -> bool {
    let told = &refresh.binding;
    bound.uri == told.uri
        && bound.call_id == told.call_id
        && bound.user_agent.of(Kind::UserAgent, words) == told.user_agent
        && bound.params.is(Kind::Params, words, told.params)
        && Reader::at(bound.path, words).path().eq(told.path.iter().copied())
}

/// Whether it is the key of the refresh, where texts and URI are the same.
fn is_key(key: &Key<'_>, refresh: &Refresh<'_>, words: &Words) -> bool {
    match key {
        Key::Uri => refresh.is_of_uri(refresh.binding.uri),
        Key::Instance { reg_id, start, length } => {
            let place = *start..start.saturating_add(*length);
            let instance = refresh.binding.params.get(place);
            instance.is_some_and(|instance| refresh.instance_and_reg_id() == Some((instance, *reg_id)))
        }
        Key::Trail => refresh.key == ContactKey::trail(refresh.uri_hash).as_bytes(),
        Key::Here(phrase) => phrase.is(Kind::Key, words, refresh.key),
    }
}
