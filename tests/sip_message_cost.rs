//! What reading a REGISTER costs: allocations are counted and bounded, nanoseconds are printed.

#![allow(unsafe_code, reason = "a global allocator that counts; it only forwards to the system's")]

mod counting_allocator;

use std::hint::black_box;
use std::time::Instant;

use aorta::sip::message::{Contacts, Framing, Message, Reply, Unfolded};
use counting_allocator::allocations;

/// As a desk phone behind an edge proxy sends it.
const REGISTER: &[u8] = b"REGISTER sip:example.com SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK-524287-1---8e6a0f4d2c1b;rport\r\n\
    Via: SIP/2.0/UDP 198.51.100.23:49152;branch=z9hG4bKnashds7;received=203.0.113.7;rport=49152\r\n\
    Path: <sip:edge1.example.com;lr;ob>\r\nMax-Forwards: 69\r\n\
    From: \"Alice Example\" <sip:alice@example.com>;tag=a73kszlfl\r\nTo: \"Alice Example\" <sip:alice@example.com>\r\n\
    Call-ID: 1j9FpLxk3uxtm8tn@198.51.100.23\r\nCSeq: 1826 REGISTER\r\n\
    Contact: <sip:alice@198.51.100.23:49152;transport=udp;line=8f3a>;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"\
    ;reg-id=1;expires=600\r\nExpires: 600\r\nSupported: path, outbound, gruu\r\n\
    Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO\r\nUser-Agent: Example Phone/4.2.1\r\n\
    Content-Length: 0\r\n\r\n";

fn read(message: &[u8]) -> usize {
    let text = Unfolded::new(message);
    let Ok(Message::Request(request)) = Message::parse(&text, Framing::Datagram) else { panic!("a good REGISTER") };
    let Ok(Contacts::List(list)) = request.contacts() else { panic!("good Contacts") };
    list.len() + request.call_id.len() + request.via.branch.len()
}

fn best_ns(work: impl Fn()) -> u128 {
    let round = || {
        let began = Instant::now();
        (0..20_000).for_each(|_| work());
        began.elapsed().as_nanos() / 20_000
    };
    (0..10).map(|_| round()).min().unwrap_or_default()
}

#[test]
fn a_register_is_read_without_an_allocation() {
    let folded = String::from_utf8_lossy(REGISTER).replace(";reg-id", "\r\n ;reg-id").into_bytes();
    assert_eq!(allocations(|| assert!(black_box(read(black_box(REGISTER))) > 0)), 0);
    assert_eq!(allocations(|| assert!(black_box(read(black_box(&folded))) > 0)), 1);
    let ns = best_ns(|| assert!(black_box(read(black_box(REGISTER))) > 0));
    let folded_ns = best_ns(|| assert!(black_box(read(black_box(&folded))) > 0));
    let unfold = best_ns(|| assert!(!black_box(Unfolded::new(black_box(REGISTER))).as_bytes().is_empty()));
    let text = Unfolded::new(REGISTER);
    let parse = best_ns(|| assert!(black_box(Message::parse(black_box(&text), Framing::Datagram)).is_ok()));
    println!(
        "{} bytes: unfolded in {unfold} ns, parsed in {parse} ns; with its Contacts {ns} ns, with a fold {folded_ns} ns",
        REGISTER.len()
    );
}

#[test]
fn a_reply_is_written_in_one_buffer() {
    let text = Unfolded::new(REGISTER);
    let Ok(Message::Request(request)) = Message::parse(&text, Framing::Datagram) else { panic!("a good REGISTER") };
    let peer = "192.0.2.10:5060".parse().expect("an address");
    let reply = || {
        let reply =
            Reply::to(&request, peer, 200, "OK", "8e6a0f4d").header("Contact", "<sip:a@b>;expires=600").finish();
        assert!(black_box(reply).len() > 300);
    };
    println!("{} allocations, {} ns", allocations(reply), best_ns(reply));
    assert_eq!(allocations(reply), 1);
}
