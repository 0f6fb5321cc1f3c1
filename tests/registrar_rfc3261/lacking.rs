//! What a 200 shows of the contacts that it is about, every node shows that acknowledged it, whatever else that node lacks:
//! changes of other nodes may still be on their way to it.

use aorta::registrar::{Expires, Judged};
use aorta_proto::{ContactKey, Entry, Record, Stamp};
use proptest::prelude::*;

use crate::desk::{Desk, Register, register, star};

const PHONES: usize = 3;
const PORTS: u16 = 3;

/// What one phone asks for.
#[derive(Debug, Clone)]
enum Step {
    /// To ring at a port, as a flow (RFC 5626) or by its URI.
    Ring { phone: usize, port: u16, flow: bool },
    /// No longer to ring there.
    Silence { phone: usize, port: u16, flow: bool },
    /// That nobody rings.
    Clear { phone: usize },
    /// The last thing again.
    Again,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let contact = (0..PHONES, 0..PORTS, any::<bool>());
    let step = prop_oneof![
        6 => contact.clone().prop_map(|(phone, port, flow)| Step::Ring { phone, port, flow }),
        2 => contact.prop_map(|(phone, port, flow)| Step::Silence { phone, port, flow }),
        2 => (0..PHONES).prop_map(|phone| Step::Clear { phone }),
        1 => Just(Step::Again),
    ];
    // With each, which of the changes before it some other node has.
    prop::collection::vec((step, any::<u64>()), 1..24)
}

/// A request with its own texts.
#[derive(Debug, Clone)]
struct Sent {
    call_id: String,
    cseq: u32,
    contact: Option<String>,
}

impl Sent {
    fn of(step: &Step, cseq: u32, last: Option<&Self>) -> Option<Self> {
        let (phone, contact) = match step {
            Step::Ring { phone, port, flow } => (phone, Some(contact(*phone, *port, *flow, 300))),
            Step::Silence { phone, port, flow } => (phone, Some(contact(*phone, *port, *flow, 0))),
            Step::Clear { phone } => (phone, None),
            Step::Again => return last.cloned(),
        };
        Some(Self { call_id: format!("phone{phone}"), cseq, contact })
    }

    fn register(&self) -> Register<'_> {
        match &self.contact {
            Some(contact) => {
                Register { expires: Expires::Seconds(60), ..register(&self.call_id, self.cseq, &[contact]) }
            }
            None => star(&self.call_id, self.cseq),
        }
    }
}

fn contact(phone: usize, port: u16, flow: bool, expires_s: u32) -> String {
    let instance = if flow { format!(";+sip.instance=\"<urn:x:{phone}>\";reg-id=1") } else { String::new() };
    format!("<sip:p{phone}@192.0.2.{phone}:{}>;expires={expires_s}{instance}", 5060 + port)
}

/// Where contacts with an instance are and were, and what was said last of them there.
fn places(records: [&Record; 2], delta: &Record) -> Vec<(u64, Stamp)> {
    let keys = delta.entries.iter().map(|entry| &entry.key).filter(|key| key.is_instance());
    let entries = keys.flat_map(|key| records.map(|record| record.entry(key)));
    entries.flatten().map(|entry| (entry.uri_hash, entry.stamp)).collect()
}

/// What rings there by its URI alone, though it is earlier.
fn ring_by_uri(record: &Record, desk: &Desk, places: &[(u64, Stamp)]) -> Vec<ContactKey> {
    let is_earlier = |entry: &Entry| places.iter().any(|(uri, stamp)| entry.uri_hash == *uri && entry.stamp < *stamp);
    let shown = record.shown(desk.now_us, desk.limits.max_contacts_per_aor).into_iter();
    shown.filter(|entry| !entry.key.is_instance() && is_earlier(entry)).map(|entry| entry.key.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn who_holds_the_change_shows_what_the_answer_says(steps in steps(), contacts_max in 1usize..6) {
        let mut desk = Desk::default();
        desk.limits.max_contacts_per_aor = contacts_max;
        let mut earlier: Vec<Record> = Vec::new();
        let mut last: Option<Sent> = None;
        for (index, (step, has)) in steps.iter().enumerate() {
            desk.pass(1);
            let Some(sent) = Sent::of(step, index as u32 + 1, last.as_ref()) else { continue };
            let before = desk.record.clone();
            let Judged::Accepted { write, .. } = desk.judge(&sent.register()) else { continue };
            let Some(delta) = write.published() else { continue };
            let mut peer = Record::default();
            for change in earlier.iter().enumerate().filter(|(place, _)| has >> place & 1 == 1).map(|(_, change)| change) {
                peer.merge(change);
            }
            peer.merge(&delta);
            for key in delta.entries.iter().map(|entry| &entry.key) {
                let shown = |record: &Record| {
                    let shown = record.shown(desk.now_us, contacts_max).into_iter().find(|entry| entry.key == *key);
                    shown.cloned()
                };
                prop_assert_eq!(shown(&peer), shown(&desk.record), "{:?} after {:?}", key, sent);
            }
            let places = places([&before, &desk.record], &delta);
            prop_assert_eq!(ring_by_uri(&peer, &desk, &places), Vec::new(), "after {:?}", sent);
            earlier.push(delta);
            last = Some(sent);
        }
    }
}
