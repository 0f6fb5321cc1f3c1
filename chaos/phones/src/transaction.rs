//! What ties a reply to its request, and an ACK to both (RFC 3261 §8.2.6, §17.1.1.3; RFC 3581). Pure.

use crate::message::{Malformed, Message, NameAddr, Start, malformed};

/// Errors of a datagram, not of the socket.
pub(crate) fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::WouldBlock | ErrorKind::Interrupted)
        // ENOBUFS: the loopback queue is full.
        || error.raw_os_error() == Some(105)
}

/// The ACK to a final reply other than 2xx, made of the INVITE that was sent (RFC 3261 §17.1.1.3).
pub(crate) fn ack_of(invite: &[u8], reply: &Message<'_>) -> Option<Vec<u8>> {
    let sent = Message::read(invite).ok()?;
    let Start::Request { uri, .. } = sent.start else { return None };
    let mut text = format!("ACK {uri} SIP/2.0\r\nVia: {}\r\nMax-Forwards: 70\r\n", sent.raw("Via").next()?);
    for name in ["From", "Call-ID"] {
        text.push_str(&format!("{name}: {}\r\n", sent.raw(name).next()?));
    }
    let number = sent.raw("CSeq").next()?.split(' ').next()?;
    text.push_str(&format!("To: {}\r\nCSeq: {number} ACK\r\nContent-Length: 0\r\n\r\n", reply.raw("To").next()?));
    Some(text.into_bytes())
}

/// The ACK to a 2xx goes end to end in a transaction of its own (RFC 3261 §13.2.2.4): along the Record-Route of the reply
/// to its Contact (§12.1.2), or, where nobody recorded a route, the way that the INVITE took.
pub(crate) fn ack_of_2xx(invite: &[u8], reply: &Message<'_>) -> Option<Vec<u8>> {
    let sent = Message::read(invite).ok()?;
    let Start::Request { uri, .. } = sent.start else { return None };
    let mut recorded = reply.list("Record-Route").ok()?;
    recorded.reverse();
    let contacts = reply.contacts().ok()?;
    let (target, routes) = match contacts.first() {
        Some(contact) if !recorded.is_empty() => (contact.uri, recorded),
        _ => (uri, sent.list("Route").ok()?),
    };
    let via = sent.list("Via").ok()?;
    let sent_by = via.first()?.split(';').next()?;
    let branch = fastrand::u64(..);
    let mut text =
        format!("ACK {target} SIP/2.0\r\nVia: {sent_by};branch=z9hG4bK{branch:016x}\r\nMax-Forwards: 70\r\n");
    routes.iter().for_each(|route| text.push_str(&format!("Route: {route}\r\n")));
    for name in ["From", "Call-ID"] {
        text.push_str(&format!("{name}: {}\r\n", sent.raw(name).next()?));
    }
    let number = sent.raw("CSeq").next()?.split(' ').next()?;
    text.push_str(&format!("To: {}\r\nCSeq: {number} ACK\r\nContent-Length: 0\r\n\r\n", reply.raw("To").next()?));
    Some(text.into_bytes())
}

/// Is `reply` a correct answer to the request `sent`, whatever it says (RFC 3261 §8.2.6)?
pub(crate) fn answers(reply: &Message<'_>, sent: &[u8]) -> Result<(), Malformed> {
    let sent = Message::read(sent)?;
    let (ours, theirs) = (sent.list("Via")?, reply.list("Via")?);
    if ours.len() != theirs.len() || ours[1..] != theirs[1..] {
        return malformed(format!("Vias {theirs:?} for {ours:?}"));
    }
    same_top_via(ours[0], theirs[0])?;
    for name in ["From", "Call-ID", "CSeq"] {
        let (ours, theirs) = (sent.exactly_one(name)?, reply.exactly_one(name)?);
        if !same_words(ours, theirs) {
            return malformed(format!("{name} {theirs:?} for {ours:?}"));
        }
    }
    let (ours, theirs) = (sent.exactly_one("To")?, reply.exactly_one("To")?);
    let tag = NameAddr::read(theirs)?.param("tag");
    let untagged = theirs.rsplit_once(";tag=").map_or(theirs, |(before, _)| before);
    if !same_words(ours, untagged) || (reply.status() != Some(100) && tag.is_none_or(str::is_empty)) {
        return malformed(format!("To {theirs:?} for {ours:?}"));
    }
    Ok(())
}

/// Equal but for the amount of white space: a fold and any run of it mean one space (RFC 3261 §7.3.1). No phone of ours
/// sends such a run inside quotes, where it would count.
fn same_words(ours: &str, theirs: &str) -> bool {
    ours.split_ascii_whitespace().eq(theirs.split_ascii_whitespace())
}

/// The top Via comes back as sent, with `received` and the value of `rport` filled in (RFC 3581 §4).
fn same_top_via(ours: &str, theirs: &str) -> Result<(), Malformed> {
    let mut left = theirs.split(';');
    for part in ours.split(';') {
        let other = left.next().unwrap_or_default();
        let filled = part == "rport" && other.strip_prefix("rport=").is_some_and(|p| p.parse::<u16>().is_ok());
        if other != part && !filled {
            return malformed(format!("top Via {theirs:?} for {ours:?}"));
        }
    }
    match left.find(|p| !p.starts_with("received=")) {
        Some(more) => malformed(format!("{more:?} in top Via {theirs:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{ack_of, ack_of_2xx, answers};
    use crate::message::{Message, Start};

    const SENT: &str = "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:1;branch=z9hG4bK1;rport\r\nVia: SIP/2.0/UDP c;x=1\r\n\
        From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\nContent-Length: 0\r\n\r\n";
    const REPLY: &str = "SIP/2.0 404 Not Found\r\nVia: SIP/2.0/UDP 127.0.0.1:1;branch=z9hG4bK1;rport=1;received=127.0.0.1\r\n\
        Via: SIP/2.0/UDP c;x=1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=9\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\nContent-Length: 0\r\n\r\n";

    fn judged(reply: &str) -> bool {
        answers(&Message::read(reply.as_bytes()).expect("well formed"), SENT.as_bytes()).is_ok()
    }

    #[test]
    fn only_a_true_answer_is_one() {
        assert!(judged(REPLY));
        for (old, new) in [
            (";tag=9", ""),
            ("x=1", "x=2"),
            ("Via: SIP/2.0/UDP c;x=1\r\n", ""),
            ("rport=1", "rport"),
            ("branch=z9hG4bK1;rport=1", "rport=1;branch=z9hG4bK1"),
            ("CSeq: 7", "CSeq: 8"),
            ("Call-ID: c", "Call-ID: d"),
            ("tag=1", "tag=2"),
            ("sip:b@h", "sip:x@h"),
        ] {
            let changed = REPLY.replacen(old, new, 1);
            assert_ne!(changed, REPLY);
            // An unfilled rport is allowed: RFC 3581 §4 makes it a MUST only for servers that implement it.
            assert_eq!(judged(&changed), new == "rport", "{old} -> {new}");
        }
    }

    #[test]
    fn the_ack_takes_the_to_of_the_reply_and_the_via_of_the_invite() {
        let reply = Message::read(REPLY.as_bytes()).expect("well formed");
        let ack = ack_of(SENT.as_bytes(), &reply).expect("an ACK");
        let ack = Message::read(&ack).expect("well formed");
        assert_eq!(ack.exactly_one("To"), Ok("<sip:b@h>;tag=9"));
        assert_eq!(ack.list("Via"), Ok(vec!["SIP/2.0/UDP 127.0.0.1:1;branch=z9hG4bK1;rport"]));
        assert_eq!(ack.exactly_one("CSeq"), Ok("7 ACK"));
    }

    #[test]
    fn the_ack_of_a_2xx_follows_the_recorded_route_or_the_way_of_the_invite() {
        let sent = SENT.replacen("From:", "Route: <sip:e;lr>\r\nFrom:", 1);
        let plain = REPLY.replacen("404 Not Found", "200 OK", 1);
        let recorded =
            plain.replacen("From:", "Record-Route: <sip:p2;lr>, <sip:p1;lr>\r\nContact: <sip:c@d>\r\nFrom:", 1);
        for (reply, uri, routes) in
            [(plain, "sip:b@h", vec!["<sip:e;lr>"]), (recorded, "sip:c@d", vec!["<sip:p1;lr>", "<sip:p2;lr>"])]
        {
            let reply = Message::read(reply.as_bytes()).expect("well formed");
            let ack = ack_of_2xx(sent.as_bytes(), &reply).expect("an ACK");
            let ack = Message::read(&ack).expect("well formed");
            assert_eq!(ack.start, Start::Request { method: "ACK", uri });
            assert_eq!(ack.list("Route"), Ok(routes));
            assert_eq!(ack.exactly_one("To"), Ok("<sip:b@h>;tag=9"));
            let via = ack.exactly_one("Via").expect("a Via");
            assert!(via.starts_with("SIP/2.0/UDP 127.0.0.1:1;branch=z9hG4bK") && !via.contains("z9hG4bK1;"), "{via}");
        }
    }
}
