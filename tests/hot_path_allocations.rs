//! What one message costs in allocations, in the steady state, where buffers are reused: a look-up and a refresh none, a new
//! REGISTER so many. To be lowered: a change that raises one says here why.

#![allow(unsafe_code, reason = "a global allocator that counts; it only forwards to the system's")]

mod counting_allocator;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use aorta::clock::Clock;
use aorta::location::Location;
use aorta::sip::message::reuse;
use aorta::sip::transport::{Flow, Transport};
use aorta::sip::uas::{Answer, Moment, Serving, Uas, UasSettings};
use aorta_proto::frame::{append_changes, decode_change, decode_refresh};
use aorta_proto::{Aor, BootId, NodeId, Record};
use counting_allocator::allocations;

/// Of so many times that something is done the one that allocates least counts: buffers are made once, and tables grow now and
/// then.
const ROUNDS: u32 = 20;

struct Node {
    uas: Uas,
    clock: Arc<Clock>,
    location: Arc<Location>,
}

impl Node {
    fn new(boot: u64) -> Self {
        let clock = Arc::new(Clock::manual(Arc::new(AtomicU64::new(1_000_000)), BootId(boot)));
        clock.adopt(1_700_000_000_000_000);
        let location = Arc::new(Location::new([7; 16], true));
        let settings = UasSettings::of(NodeId::new("node1").expect("a node id"));
        let uas = Uas::new(settings, Arc::clone(&location), Arc::clone(&clock));
        Self { uas, clock, location }
    }

    fn answer(&self, message: &str) -> Answer<()> {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let (peer, local) = (address("192.0.2.10:5060"), address("198.51.100.1:5060"));
        let flow = Flow { transport: Transport::Udp, peer, local, received_age_us: 10 };
        let moment = Moment { now: self.clock.now(), wall_us: 1_700_000_000_000_000, serving: Serving::READY };
        self.uas.answer(message.as_bytes(), &flow, moment, || Some(()))
    }

    /// What a REGISTER changes. Its reply is taken back, as when it has been sent.
    fn change(&self, message: &str) -> (Aor, Record) {
        let Answer::AfterAcks { aor, delta, reply, .. } = self.answer(message) else { panic!("no change: {message}") };
        reuse(reply);
        (aor, delta)
    }
}

/// As a desk phone behind an edge proxy sends it.
fn register(phone: u32, cseq: u32) -> String {
    format!(
        "REGISTER sip:example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-{phone}-{cseq};rport\r\n\
        Path: <sip:edge1.example.com;lr;ob>\r\nMax-Forwards: 69\r\n\
        From: \"Alice Example\" <sip:user{phone}@example.com>;tag=a73kszlfl\r\n\
        To: \"Alice Example\" <sip:user{phone}@example.com>\r\n\
        Call-ID: 1j9FpLxk3uxtm8tn{phone}@198.51.100.23\r\nCSeq: {cseq} REGISTER\r\n\
        Contact: <sip:user{phone}@198.51.100.23:49152;transport=udp>\
        ;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-{phone:012}>\";reg-id=1\r\n\
        Expires: 600\r\nSupported: path, outbound, gruu\r\n\
        Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO\r\n\
        User-Agent: Example Phone/4.2.1\r\nContent-Length: 0\r\n\r\n"
    )
}

fn invite(phone: u32, turn: u32) -> String {
    format!(
        "INVITE sip:user{phone}@example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-i{turn};rport\r\nMax-Forwards: 69\r\n\
        From: <sip:bob@example.com>;tag=b{turn}\r\nTo: <sip:user{phone}@example.com>\r\n\
        Call-ID: call{turn}@192.0.2.10\r\nCSeq: 1 INVITE\r\nContact: <sip:bob@192.0.2.10>\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn a_look_up_allocates_nothing() {
    let node = Node::new(1);
    drop(node.change(&register(1, 1)));
    let invites: Vec<String> = (0..ROUNDS).map(|turn| invite(1, turn)).collect();
    let look_up = |invite: &String| match node.answer(invite) {
        Answer::Reply { bytes, .. } => {
            assert!(bytes.starts_with(b"SIP/2.0 302 "));
            reuse(bytes);
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(invites.iter().map(|invite| allocations(|| look_up(invite))).min(), Some(0));
}

#[test]
fn to_look_ahead_allocates_nothing_and_finds_whom_a_message_is_for() {
    let node = Node::new(1);
    drop(node.change(&register(1, 1)));
    let (register, invite) = (register(1, 2), invite(1, 3));
    let sought = node.location.seek("user1@example.com").hash();
    assert_eq!(node.uas.foreseen(register.as_bytes()), Some(sought));
    assert_eq!(node.uas.foreseen(invite.as_bytes()), Some(sought));
    let together = [register.as_bytes(), invite.as_bytes()];
    assert_eq!((0..ROUNDS).map(|_| allocations(|| node.uas.foresee(&together))).min(), Some(0));
}

#[test]
fn a_register_allocates_no_more_than_is_said_here() {
    let (node, peer) = (Node::new(1), Node::new(2));
    let (mut bytes, mut rows) = (Vec::new(), Vec::new());
    for (what, new) in [("refresh", false), ("new", true)] {
        let phone = |turn: u32| if new { 100 + turn } else { 1 };
        let requests: Vec<String> = (0..ROUNDS).map(|turn| register(phone(turn), 10 + turn)).collect();
        let mut least = [usize::MAX; 3];
        for request in &requests {
            let mut change = None;
            let judged = allocations(|| change = Some(node.change(request)));
            let (aor, delta) = change.expect("a change");
            let published = allocations(|| drop(append_changes(&aor, &delta, &mut bytes).expect("fits")));
            drop((aor, delta));
            let merged = allocations(|| {
                if !decode_refresh(&bytes)
                    .is_some_and(|(aor, refresh)| peer.location.refresh(&peer.location.seek(aor), &refresh))
                {
                    let (aor, record) = decode_change(&bytes).expect("as it was encoded");
                    assert!(peer.location.apply_sought(&peer.location.seek(aor), record).changed);
                }
            });
            bytes.clear();
            least = std::array::from_fn(|nth| least[nth].min([judged, published, merged][nth]));
        }
        rows.push((what, least));
    }
    // The table keeps a new one: the record, which is one piece of memory, and a place for it in its bucket.
    assert_eq!(rows, [("refresh", [0, 0, 0]), ("new", [2, 0, 2])], "to judge, to publish, to merge");
}
