//! What holds in every history of phones that register at any node and messages that come again and late, where each
//! write is known everywhere before its 200, as `ack = "all"` has it.

use aorta::registrar::{Expires, Judged, Listed, Write};
use proptest::prelude::*;

use crate::desk::{Desk, Register, register, uris};

const NODES: usize = 3;
const PHONES: usize = 4;

/// What one phone does next; each phone has its own Call-ID and its own contacts.
#[derive(Debug, Clone)]
enum Step {
    /// A new request of a phone at a node.
    Send { phone: usize, node: usize, what: What },
    /// Any request sent before, at any node.
    Late { pick: prop::sample::Index, node: usize },
    /// Time passes everywhere.
    Pass(u64),
}

#[derive(Debug, Clone, Copy)]
enum What {
    Add,
    AddBoth,
    Move,
    Remove,
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let what = prop_oneof![
        3 => Just(What::Add), 2 => Just(What::AddBoth), 2 => Just(What::Move), 2 => Just(What::Remove), 1 => Just(What::Clear)
    ];
    // The last `*` alone is remembered, so only one phone sends them.
    let by =
        |(phone, node, what)| Step::Send { phone: if matches!(what, What::Clear) { 0 } else { phone }, node, what };
    let step = prop_oneof![
        5 => (0..PHONES, 0..NODES, what).prop_map(by),
        3 => (any::<prop::sample::Index>(), 0..NODES).prop_map(|(pick, node)| Step::Late { pick, node }),
        1 => (1..200u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

/// A request with its own texts.
#[derive(Debug, Clone)]
struct Sent {
    call_id: String,
    cseq: u32,
    contacts: Vec<String>,
    expires: Expires,
}

impl Sent {
    fn register(&self) -> Register<'_> {
        let contacts: Vec<&str> = self.contacts.iter().map(String::as_str).collect();
        Register { expires: self.expires, ..register(&self.call_id, self.cseq, &contacts) }
    }
}

fn compose(phone: usize, cseq: u32, what: What) -> Sent {
    let plain = format!("<sip:p{phone}@192.0.2.{phone}>");
    let second = format!("<sip:p{phone}@192.0.2.1{phone}>;q=0.5");
    let flow = |port: u32| format!("<sip:p{phone}@192.0.2.{phone}:{port}>;+sip.instance=\"<urn:x:{phone}>\";reg-id=1");
    // Odd phones have an instance, even ones do not.
    let (contacts, expires) = match what {
        What::Add if phone % 2 == 1 => (vec![flow(5060)], Expires::Seconds(300)),
        What::Add => (vec![plain], Expires::Seconds(300)),
        What::AddBoth => (vec![plain, second], Expires::Seconds(100)),
        What::Move => (vec![flow(6000 + cseq)], Expires::Seconds(300)),
        What::Remove => (vec![format!("{second};expires=0"), plain], Expires::Seconds(0)),
        What::Clear => (vec!["*".to_owned()], Expires::Seconds(0)),
    };
    Sent { call_id: format!("phone{phone}"), cseq, contacts, expires }
}

/// What must hold of any answer, and of the record after it.
fn check(desk: &mut Desk, sent: &Sent) -> Result<Option<Vec<Listed>>, TestCaseError> {
    let before = desk.record.clone();
    let judged = desk.judge(&sent.register());
    let Judged::Accepted { write, bindings } = judged else {
        prop_assert_eq!(&desk.record, &before, "a refusal writes nothing");
        return Ok(None);
    };
    match &write {
        Write::New(delta) => {
            let mut merged = before.clone();
            merged.merge(delta);
            prop_assert_eq!(&desk.record, &merged);
        }
        Write::Again(part) => {
            prop_assert_eq!(&desk.record, &before);
            let mut merged = before.clone();
            prop_assert!(!merged.merge(part).changed, "a retransmission publishes only what is stored");
        }
        Write::Nothing => prop_assert_eq!(&desk.record, &before),
    }
    let listed = uris(&bindings);
    for contact in sent.contacts.iter().filter(|contact| *contact != "*") {
        let uri = contact.split(['<', '>']).nth(1).expect("brackets").to_owned();
        let removed = contact.ends_with(";expires=0") || sent.expires == Expires::Seconds(0);
        prop_assert_eq!(listed.contains(&uri), !removed, "{} in {:?}", uri, listed);
    }
    prop_assert!(
        sent.expires != Expires::Seconds(0)
            || sent.contacts != ["*"]
            || listed.is_empty()
            || matches!(write, Write::Again(_))
    );
    Ok(Some(bindings.into_vec()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_true_and_late_ones_change_nothing(steps in steps()) {
        let mut desks: Vec<Desk> = (0..NODES).map(|node| Desk::new(node as u64 + 1)).collect();
        desks.iter_mut().for_each(|desk| desk.limits.max_contacts_per_aor = 100);
        let mut sent: Vec<Sent> = Vec::new();
        let mut cseqs = [0u32; PHONES];
        for (index, step) in steps.into_iter().enumerate() {
            // Cluster time: every node's clock has reached what it heard.
            desks.iter_mut().for_each(|desk| desk.now_us += 1000 * (index as u64 + 1));
            match step {
                Step::Send { phone, node, what } => {
                    cseqs[phone] += 1;
                    let request = compose(phone, cseqs[phone], what);
                    let first = check(&mut desks[node], &request)?;
                    prop_assert!(first.is_some(), "{request:?}");
                    let again = check(&mut desks[node], &request)?;
                    prop_assert_eq!(first, again, "the same request, the same answer");
                    sent.push(request);
                }
                Step::Late { pick, node } if !sent.is_empty() => {
                    let ringing = desks[node].uris();
                    let request = pick.get(&sent);
                    check(&mut desks[node], request)?;
                    prop_assert_eq!(&desks[node].uris(), &ringing, "{:?}", request);
                }
                Step::Late { .. } => {}
                Step::Pass(seconds) => desks.iter_mut().for_each(|desk| desk.pass(seconds)),
            }
            let records: Vec<_> = desks.iter().map(|desk| desk.record.clone()).collect();
            for desk in &mut desks {
                records.iter().for_each(|record| {
                    desk.record.merge(record);
                });
            }
        }
    }
}
