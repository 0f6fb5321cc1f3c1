//! Is what a node said about a phone what that phone sent? Every Contact, q, parameter and Path, nothing else.

use crate::message::{Malformed, Message, NameAddr, malformed, read_q, unescape};
use crate::phone::{Contact, Phone};
use crate::stats::Counted;
use crate::value::split_list;
use std::fmt;
use std::net::SocketAddr;

/// A node said something else than it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Who said it.
    pub node: SocketAddr,
    /// About which AoR (key form).
    pub aor: String,
    /// What should have been said.
    pub expected: String,
    /// What was said.
    pub got: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} about {}: expected {}, got {}", self.node, self.aor, self.expected, self.got)
    }
}

/// All mismatches of a run, with the first few.
pub type Mismatches = Counted<Mismatch>;

impl fmt::Display for Mismatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mismatches", self.count)?;
        self.examples.iter().try_for_each(|m| write!(f, "\n  {m}"))
    }
}

/// A judgement: `Err((expected, got))`.
pub type Judged = Result<(), (String, String)>;

/// What a 200 to a REGISTER should list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// No contact.
    None,
    /// All contacts of the phone, each with remaining seconds in this range.
    All {
        /// Fewest remaining seconds.
        least: u32,
        /// Most remaining seconds.
        most: u32,
    },
}

fn unreadable(message: &Message<'_>, why: &Malformed) -> (String, String) {
    ("a readable reply".to_owned(), format!("{why} in {message:?}"))
}

/// Judges the reply to a REGISTER. `bound` says whether the request added contacts (then the Path is judged too).
///
/// # Errors
/// The first thing that is not as it should be.
pub fn judge_register(phone: &Phone, reply: &Message<'_>, listed: Listed, bound: bool) -> Judged {
    expect_status(reply, 200)?;
    if !reply.one("Date").is_ok_and(|d| d.is_some_and(|d| d.ends_with(" GMT"))) {
        return Err(("one Date in GMT".to_owned(), format!("{:?}", reply.raw("Date").collect::<Vec<_>>())));
    }
    let contacts = reply.contacts().map_err(|why| unreadable(reply, &why))?;
    let (least, most) = match listed {
        Listed::None if contacts.is_empty() => return Ok(()),
        Listed::None => return Err(("no contact".to_owned(), format!("{:?}", uris(&contacts)))),
        Listed::All { least, most } => (least, most),
    };
    same_set(phone, &contacts, |sent, got| {
        if !got.bracketed {
            return Err(("a URI in < >".to_owned(), got.uri.to_owned()));
        }
        if sent.uri != got.uri {
            return Err((sent.uri.clone(), got.uri.to_owned()));
        }
        match got.expires() {
            Ok(Some(left)) if (least..=most).contains(&left) => {}
            other => return Err((format!("expires {least} to {most}"), format!("{other:?} at {}", got.uri))),
        }
        same_params(sent, got, &[])
    })?;
    if !bound {
        return Ok(());
    }
    let expected: &[String] = if phone.supports_path { &phone.paths } else { &[] };
    let paths = reply.list("Path").map_err(|why| unreadable(reply, &why))?;
    if paths != expected {
        return Err((format!("Path {expected:?}"), format!("Path {paths:?}")));
    }
    Ok(())
}

/// Judges the 302 (or `status`) to an INVITE for a registered phone.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn judge_redirect(phone: &Phone, reply: &Message<'_>) -> Judged {
    expect_status(reply, 302)?;
    let contacts = reply.contacts().map_err(|why| unreadable(reply, &why))?;
    let qs: Vec<u16> =
        contacts.iter().map(NameAddr::q).collect::<Result<_, _>>().map_err(|why| unreadable(reply, &why))?;
    if !qs.is_sorted_by(|a, b| a >= b) {
        return Err(("contacts by falling q".to_owned(), format!("{qs:?}")));
    }
    same_set(phone, &contacts, |sent, got| judge_contact(phone, sent, got))
}

/// Judges one contact of a 302.
pub(crate) fn judge_contact(phone: &Phone, sent: &Contact, got: &NameAddr<'_>) -> Judged {
    let (uri, route) = target(got).map_err(|why| ("a Route header".to_owned(), format!("{why} in {}", got.uri)))?;
    if uri != sent.uri {
        return Err((sent.uri.clone(), got.uri.to_owned()));
    }
    if route != phone.paths {
        return Err((format!("Route {:?}", phone.paths), format!("Route {route:?} at {}", got.uri)));
    }
    if got.param("expires").is_some() || got.param("reg-id").is_some() {
        return Err(("neither expires nor reg-id".to_owned(), format!("{:?}", got.params)));
    }
    same_params(sent, got, &["reg-id"])
}

/// Judges that nobody is at home: `status` (404 or 480) and no Contact.
///
/// # Errors
/// What was said instead.
pub fn judge_absent(reply: &Message<'_>, status: u16) -> Judged {
    expect_status(reply, status)
}

/// Where a contact of a redirect leads: the URI without its Route header (other headers stay), and the route vector.
///
/// # Errors
/// More than one Route header, or one that cannot be read.
pub fn target(contact: &NameAddr<'_>) -> Result<(String, Vec<String>), Malformed> {
    let (uri, headers) = contact.uri_and_headers();
    let is_route = |name: &str| name.eq_ignore_ascii_case("Route");
    let rest: Vec<String> = headers.iter().filter(|(n, _)| !is_route(n)).map(|(n, v)| format!("{n}={v}")).collect();
    let uri = if rest.is_empty() { uri.to_owned() } else { format!("{uri}?{}", rest.join("&")) };
    let mut routes = headers.iter().filter(|(n, _)| is_route(n));
    let Some((_, escaped)) = routes.next() else { return Ok((uri, Vec::new())) };
    if routes.next().is_some() {
        return malformed("more than one Route header");
    }
    // RFC 3261 §25.1: an hvalue holds none of these unescaped.
    if escaped.contains([';', ',', '<', '>', '"', '=', '@', '&']) {
        return malformed(format!("unescaped bytes in hvalue {escaped:?}"));
    }
    let plain = unescape(escaped)?;
    let mut route = Vec::new();
    split_list(&plain, &mut route)?;
    Ok((uri, route.into_iter().map(str::to_owned).collect()))
}

fn expect_status(reply: &Message<'_>, status: u16) -> Judged {
    match reply.status() {
        Some(got) if got == status => Ok(()),
        _ => Err((status.to_string(), format!("{:?}", reply.start))),
    }
}

fn uris<'a>(contacts: &[NameAddr<'a>]) -> Vec<&'a str> {
    contacts.iter().map(|c| c.uri).collect()
}

/// The phone's contacts and the reply's are one to one under `same`; the complaint is about the first left over.
fn same_set(phone: &Phone, got: &[NameAddr<'_>], same: impl Fn(&Contact, &NameAddr<'_>) -> Judged) -> Judged {
    if got.len() != phone.contacts.len() {
        let expected: Vec<&str> = phone.contacts.iter().map(|c| c.uri.as_str()).collect();
        return Err((format!("{expected:?}"), format!("{:?}", uris(got))));
    }
    let mut left: Vec<&NameAddr<'_>> = got.iter().collect();
    for sent in &phone.contacts {
        match left.iter().position(|g| same(sent, g).is_ok()) {
            Some(at) => _ = left.swap_remove(at),
            None => {
                // The complaint that says most is the one about the contact that begins with the same URI.
                let near = left.iter().find(|g| g.uri.starts_with(&sent.uri)).or(left.first());
                return near.map_or(Ok(()), |g| same(sent, g));
            }
        }
    }
    Ok(())
}

/// q by value; all other parameters by name and raw value, in any order; `except` are not expected back.
pub(crate) fn same_params(sent: &Contact, got: &NameAddr<'_>, except: &[&str]) -> Judged {
    let q = sent.q.map_or(Ok(1000), read_q);
    if got.q() != q {
        return Err((format!("q {:?}", sent.q), format!("{:?} at {}", got.param("q"), got.uri)));
    }
    let mut expected: Vec<(&str, Option<&str>)> =
        sent.params.iter().map(|(n, v)| (*n, v.as_deref())).filter(|(n, _)| !except.contains(n)).collect();
    let mut others: Vec<(&str, Option<&str>)> = got.params.clone();
    others.retain(|(n, _)| !n.eq_ignore_ascii_case("q") && !n.eq_ignore_ascii_case("expires"));
    expected.sort_unstable();
    others.sort_unstable();
    if expected == others { Ok(()) } else { Err((format!("{expected:?}"), format!("{others:?} at {}", got.uri))) }
}

#[cfg(test)]
mod tests {
    use super::{Listed, judge_redirect, judge_register};
    use crate::message::Message;
    use crate::phone::{Ask, Household, Phone};

    /// A phone with two contacts of different q, one with an instance, and a Path with an escape in it.
    fn phone() -> Phone {
        let household = Household::new(1);
        let fits = |p: &Phone| {
            let q = |n: usize| p.contacts[n].q.map_or(1000, |q| super::read_q(q).expect("a q"));
            p.contacts.len() == 2
                && q(0) > q(1)
                && p.contacts.iter().all(|c| c.params.len() == 1 && c.params[0].0 == "+sip.instance")
                && p.contacts.iter().all(|c| !c.uri.contains('?'))
                && p.paths.len() == 1
                && p.supports_path
        };
        (0..200_000).map(|i| Phone::new(&household, i)).find(fits).expect("one of many")
    }

    fn escaped(text: &str) -> String {
        text.bytes().fold(String::new(), |all, b| match b {
            b if b.is_ascii_alphanumeric() => all + &char::from(b).to_string(),
            b => all + &format!("%{b:02x}"),
        })
    }

    fn params(phone: &Phone, nth: usize) -> String {
        let contact = &phone.contacts[nth];
        let q = contact.q.map(|q| format!(";q={q}")).unwrap_or_default();
        format!("{q};+sip.instance={}", contact.params[0].1.as_deref().expect("an instance"))
    }

    fn redirect(phone: &Phone) -> String {
        let contact =
            |n: usize| format!("<{}?Route={}>{}", phone.contacts[n].uri, escaped(&phone.paths[0]), params(phone, n));
        format!("SIP/2.0 302 Moved\r\nContact: {}\r\nContact: {}\r\n\r\n", contact(0), contact(1))
    }

    fn listing(phone: &Phone) -> String {
        let contact = |n: usize| format!("<{}>{};expires=60", phone.contacts[n].uri, params(phone, n));
        format!(
            "SIP/2.0 200 OK\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\nContact: {},\r\n {}\r\nPath: {}\r\n\r\n",
            contact(0),
            contact(1),
            phone.paths[0]
        )
    }

    #[test]
    fn a_redirect_must_say_what_was_sent() {
        let phone = phone();
        let right = redirect(&phone);
        let judged = |text: &str| judge_redirect(&phone, &Message::read(text.as_bytes()).expect("well formed"));
        assert_eq!(judged(&right), Ok(()));
        let uri = &phone.contacts[1].uri;
        let instance = phone.contacts[1].params[0].1.clone().expect("an instance");
        let lines: Vec<&str> = right.split("\r\n").collect();
        let swapped = [lines[0], lines[2], lines[1], "", ""].join("\r\n");
        let wrong = [
            ("another status", right.replace("302", "300")),
            ("falling q reversed", swapped),
            ("a contact less", [lines[0], lines[1], "", ""].join("\r\n")),
            ("a contact twice", [lines[0], lines[1], lines[1], "", ""].join("\r\n")),
            ("another port", right.replace(uri.as_str(), &uri.replacen("506", "507", 1))),
            ("another case", right.replace(uri.as_str(), &uri.to_ascii_uppercase())),
            ("another instance", right.replace(&instance, "\"<urn:uuid:0>\"")),
            ("no instance", right.replace(&format!(";+sip.instance={instance}"), "")),
            ("an instance unquoted", right.replace(&instance, "x")),
            ("expires", right.replace(&instance, &format!("{instance};expires=5"))),
            ("no route", right.replace("?Route=", "?X=")),
            ("two routes", right.replace("?Route=", "?Route=%3csip:a%3e&Route=")),
            ("a route unescaped", right.replace(&escaped(&phone.paths[0]), &phone.paths[0].replace(['<', '>'], ""))),
            ("another route", right.replace("%3blr", "%3blx")),
            ("an escape undone too often", right.replace("%40", "%2540")),
        ];
        for (what, text) in wrong {
            assert_ne!(text, right, "{what}");
            assert!(judged(&text).is_err(), "{what}: {text}");
        }
    }

    #[test]
    fn a_listing_must_say_what_was_sent() {
        let phone = phone();
        let right = listing(&phone);
        let all = Listed::All { least: 59, most: 60 };
        let judged = |text: &str, listed, bound| {
            judge_register(&phone, &Message::read(text.as_bytes()).expect("well formed"), listed, bound)
        };
        assert_eq!(judged(&right, all, true), Ok(()));
        assert!(judged(&right, Listed::None, false).is_err(), "nothing was to be left");
        let wrong = [
            ("no Date", right.replace("Date", "X")),
            ("a Date of another zone", right.replace("GMT", "CET")),
            ("another lifetime", right.replace("expires=60", "expires=61")),
            ("no lifetime", right.replacen(";expires=60", "", 1)),
            ("a URI without brackets", right.replacen('<', "", 1).replacen('>', "", 1)),
            ("another Path", right.replace(&phone.paths[0], "<sip:x;lr>")),
            ("no Path", right.replace("Path", "X")),
        ];
        for (what, text) in wrong {
            assert_ne!(text, right, "{what}");
            assert!(judged(&text, all, true).is_err(), "{what}: {text}");
        }
        assert!(judged(&right.replace("Path", "X"), all, false).is_ok(), "a query's 200 has no Path to copy");
    }

    #[test]
    fn what_the_phone_sends_lists_itself() {
        let phone = phone();
        let sent = phone.register(Ask::Bind(60), 1).datagram("127.0.0.1:1", "z9hG4bK1");
        let sent = Message::read(&sent).expect("well formed");
        let uris: Vec<&str> = sent.contacts().expect("contacts").iter().map(|c| c.uri).collect();
        assert_eq!(uris, phone.contacts.iter().map(|c| c.uri.as_str()).collect::<Vec<_>>());
    }
}
