//! Damaged messages: whatever comes, the node answers in whole messages or is silent, and does not fall.

use aorta::sip::transport::Transport;
use aorta::sip::uas::Answer;
use proptest::prelude::*;

use crate::node::{Node, invite, options, register, request};

const ALICE: &str = "sip:alice@example.com";

fn sound() -> Vec<String> {
    let contact =
        "Contact: \"A \\\" B\" <sip:a%20b@192.0.2.1:5060;x=y?h=v>;q=0.5;+sip.instance=\"<urn:uuid:1>\";reg-id=1\r\n";
    let path = "Path: <sip:e1;lr>,\r\n <sip:e2;lr>\r\nSupported: path\r\nRequire: path\r\nExpires: 600\r\n";
    vec![
        register("alice", "reg", 2, &format!("{contact}{path}")),
        register("alice", "reg", 3, "Contact: *\r\nExpires: 0\r\n"),
        register("alice", "reg", 4, ""),
        invite("sips:alice@example.com;user=phone", ""),
        invite("tel:+1-201-555;phone-context=x", ""),
        options("sip:192.0.2.1", "Require: x\r\n"),
        request("CANCEL", ALICE, ALICE, "call", 1, ""),
    ]
}

#[derive(Debug, Clone)]
enum Damage {
    Put(prop::sample::Index, u8),
    Drop(prop::sample::Index, usize),
    Twice(prop::sample::Index, usize),
    Cut(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let telling = prop::sample::select(b"\r\n\0 \t:;,<>\"\\@%*?=&/[]+-.0199zZ\xff\xc3".to_vec());
    let byte = prop_oneof![3 => telling, 1 => any::<u8>()];
    prop_oneof![
        6 => (any::<prop::sample::Index>(), byte).prop_map(|(at, byte)| Damage::Put(at, byte)),
        2 => (any::<prop::sample::Index>(), 1..40usize).prop_map(|(at, bytes)| Damage::Drop(at, bytes)),
        2 => (any::<prop::sample::Index>(), 1..40usize).prop_map(|(at, bytes)| Damage::Twice(at, bytes)),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
    ]
}

fn apply(message: &mut Vec<u8>, damage: &Damage) {
    if message.is_empty() {
        return;
    }
    match damage {
        Damage::Put(at, byte) => {
            let at = at.index(message.len());
            message[at] = *byte;
        }
        Damage::Drop(at, bytes) => {
            let at = at.index(message.len());
            message.drain(at..(at + bytes).min(message.len()));
        }
        Damage::Twice(at, bytes) => {
            let at = at.index(message.len());
            let part = message[at..(at + bytes).min(message.len())].to_vec();
            message.splice(at..at, part);
        }
        Damage::Cut(at) => message.truncate(at.index(message.len())),
    }
}

/// A response is a status line, header lines and an empty line, and nothing that was received makes a line of its own.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.strip_suffix(b"\r\n\r\n") else { return false };
    let whole_line = |line: &[u8]| !line.is_empty() && !line.contains(&b'\r');
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.next().is_some_and(|start| start.starts_with(b"SIP/2.0 ") && start.len() > 12)
        && lines.all(|line| whole_line(line) && line.contains(&b':'))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_messages_are_answered_whole_or_not_at_all(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..6),
        tcp in any::<bool>(),
    ) {
        let mut node = Node::new(|_| {});
        node.register(1, "<sip:a@b>");
        if tcp {
            node.flow.transport = Transport::Tcp;
        }
        let mut message = which.get(&sound()).clone().into_bytes();
        damages.iter().for_each(|damage| apply(&mut message, damage));
        let (answer, repeated) = (node.answer(&message), node.answer(&message));
        match &answer {
            Answer::Silent => {}
            Answer::Reply { bytes, .. } | Answer::AfterAcks { reply: bytes, .. } => {
                prop_assert!(is_whole(bytes), "{}", bytes.escape_ascii());
            }
        }
        // Sent again it gets the same answer, down to the tag; a 200 was written once.
        let bytes = |answer: &Answer<()>| match answer {
            Answer::Silent => Vec::new(),
            Answer::Reply { bytes, .. } | Answer::AfterAcks { reply: bytes, .. } => bytes.clone(),
        };
        prop_assert_eq!(bytes(&answer), bytes(&repeated));
    }
}
