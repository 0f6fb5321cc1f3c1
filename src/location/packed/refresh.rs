//! A refresh of a contact that is known, where the record lies: when it was written is written anew, and what it says is taken
//! over as it is. A record is read, merged and packed for everything else; that gives the same (`tests`).

use aorta_proto::{ContactKey, Refresh, Stamp};

use super::reader::{Bound, Head, Key, Reader};
use super::words::{Kind, Words};
use super::writer::Writer;
use super::{Packed, Previous, Scratch};

impl Scratch {
    /// Refreshes a record in its place, if that is all that the delta does: its entry is later than the last one here, of the same
    /// contact, which says the same but for the lifetime granted, `q`, the node and the source, and nothing in the record is at
    /// or below the floor. Returns the stamp that the entry had.
    pub(in crate::location) fn refresh(
        &mut self,
        words: &Words,
        packed: &mut Packed,
        refresh: &Refresh<'_>,
        floor_us: u64,
    ) -> Option<Stamp> {
        let Refresh { stamp, call_id_hash, cseq, uri_hash, ref binding, .. } = *refresh;
        let mut reader = Reader::new(packed, words);
        _ = reader.aor();
        let (cleared, count) = reader.cleared();
        let old = |stamp: Stamp| stamp.time_us <= floor_us;
        if count == 0 || cleared.is_some_and(|cleared| old(cleared.stamp) || stamp < cleared.stamp) {
            return None;
        }
        let mut previous = Previous::NONE;
        for _ in 1..count {
            let head = reader.head(&previous);
            if old(head.told.stamp) {
                return None;
            }
            if head.granted.is_some() {
                reader.pass_bound();
            }
            reader.key(&head);
            previous = head.told;
        }
        let head_at = packed.told.len() - reader.left();
        let head = reader.head(&previous);
        head.granted?;
        let bound = reader.bound();
        let key_at = packed.told.len() - reader.left();
        let key = reader.key(&head);
        let before = head.told.stamp;
        let goes_on = before < stamp && !old(before) && head.told.uri_hash == uri_hash;
        if !goes_on || !says_the_same(&bound, refresh, words) || !is_key(&key, refresh, words) {
            return None;
        }
        self.bytes.clear();
        let mut writer = Writer::new(&mut self.bytes, words, &mut self.text);
        writer.told(packed.told.get(..head_at)?);
        let told = Previous { stamp, call_id_hash, cseq, uri_hash };
        let Head { key, .. } = head;
        writer.head(&previous, &told, Some(binding.first), key);
        writer.grant(binding.granted_s, binding.q, &binding.accepted_by);
        writer.told(bound.texts);
        writer.text(Kind::Source, binding.source);
        writer.told(packed.told.get(key_at..)?);
        self.put(packed);
        Some(before)
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
