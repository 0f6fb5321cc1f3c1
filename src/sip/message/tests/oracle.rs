//! rsip as a second opinion, on messages of the kind that it reads rightly: without dots in users, lists, folds, IPv6,
//! quoted parameters or spaces around separators.

use proptest::prelude::*;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};

use super::{Contacts, Lifetime, glance, show, with};

#[derive(Debug, Clone)]
struct Plain {
    user: String,
    host: String,
    port: Option<u16>,
    tag: String,
    branch: String,
    call_id: String,
    cseq: u32,
    expires: u32,
}

impl Plain {
    fn host_port(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    fn message(&self) -> String {
        let Self { user, host, tag, branch, call_id, cseq, expires, .. } = self;
        let host_port = self.host_port();
        format!(
            "REGISTER sip:{host} SIP/2.0\r\nVia: SIP/2.0/UDP {host_port};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
             From: \"A B\" <sip:{user}@{host}>;tag={tag}\r\nTo: <sip:{user}@{host}>\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} REGISTER\r\nContact: <sip:{user}@{host_port};transport=udp>;expires={expires}\r\n\
             Expires: {expires}\r\nUser-Agent: {tag}/1\r\nContent-Length: 0\r\n\r\n"
        )
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let host = prop_oneof!["[a-z]{1,8}\\.example\\.com", "192\\.0\\.2\\.[1-9]"];
    let port = proptest::option::of(1024u16..);
    let ids = ("[a-z0-9]{1,12}", "[a-zA-Z0-9]{1,12}", "[a-zA-Z0-9@]{1,20}");
    ("[a-z0-9]{1,12}", host, port, ids, 1u32..0x7fff_ffff, 0u32..).prop_map(|(user, host, port, ids, cseq, expires)| {
        let (tag, branch, call_id) = ids;
        Plain { user, host, port, tag, branch, call_id, cseq, expires }
    })
}

proptest! {
    #[test]
    fn both_read_the_same(plain in plain()) {
        let message = plain.message();
        let theirs = rsip::Request::try_from(message.as_bytes()).expect("rsip reads it");
        let via = theirs.via_header().expect("a Via").typed().expect("rsip reads it");
        let from = theirs.from_header().expect("a From").typed().expect("rsip reads it");
        let to = theirs.to_header().expect("a To").typed().expect("rsip reads it");
        let cseq = theirs.cseq_header().expect("a CSeq").typed().expect("rsip reads it");
        let contact = theirs.contact_header().expect("a Contact").typed().expect("rsip reads it");
        with(&message, |ours| {
            assert_eq!(glance(message.as_bytes()), Some(ours.to.uri));
            assert_eq!(show(ours.method), theirs.method.to_string());
            assert_eq!(show(ours.uri_raw), theirs.uri.to_string());
            assert_eq!(show(ours.via.branch), via.branch().expect("a branch").value());
            assert_eq!(ours.via.host.to_string(), via.uri.host().to_string());
            assert_eq!(ours.via.port, via.uri.port().map(|port| *port.value()));
            assert_eq!(show(ours.from.uri.raw), from.uri.to_string());
            assert_eq!(ours.from.tag.map(show), from.tag().map(|tag| tag.to_string()));
            assert_eq!(show(ours.to.uri.raw), to.uri.to_string());
            assert_eq!((ours.cseq.number, show(ours.cseq.method)), (cseq.seq, cseq.method.to_string()));
            assert_eq!(show(ours.call_id), theirs.call_id_header().expect("a Call-ID").value());
            assert_eq!(show(ours.user_agent()), theirs.user_agent_header().expect("a User-Agent").value());
            let Ok(Contacts::List(list)) = ours.contacts() else { panic!("one Contact") };
            // It prints a transport in upper case whatever came.
            assert_eq!(show(list[0].uri.raw), contact.uri.to_string().replace("=UDP", "=udp"));
            assert_eq!(list[0].uri.user.map(show), contact.uri.user().map(str::to_owned));
            assert_eq!(list[0].expires, Lifetime::Seconds(plain.expires));
            assert_eq!(ours.expires(), Lifetime::Seconds(plain.expires));
        });
    }

    /// What is written is read by rsip as it was meant.
    #[test]
    fn rsip_reads_our_replies(plain in plain()) {
        let reply = with(plain.message(), |request| {
            let peer = "192.0.2.200:5060".parse().expect("an address");
            let reply = super::Reply::to(request, peer, 200, "OK", "t1").header("Contact", "<sip:a@b>;expires=60");
            reply.finish()
        });
        let theirs = rsip::Response::try_from(reply.as_slice()).expect("rsip reads it");
        assert_eq!(theirs.status_code, rsip::StatusCode::OK);
        let to = theirs.to_header().expect("a To").typed().expect("rsip reads it");
        assert_eq!(to.tag().map(|tag| tag.to_string()).as_deref(), Some("t1"));
        let via = theirs.via_header().expect("a Via").typed().expect("rsip reads it");
        assert_eq!(via.received().ok().flatten(), "192.0.2.200".parse().ok());
        assert_eq!(theirs.cseq_header().expect("a CSeq").seq().ok(), Some(plain.cseq));
    }
}
