//! One phone: who it is and every request it sends, all of it a function of (seed, index).
//!
//! The mix is what reaches a registrar through an SBC in the field: some phones with two contacts, IPv6, escaped users,
//! quoted instances, folded lines, several Paths. A phone keeps no state and opens no socket: [`crate::Fleet`] does.

use crate::request::Text;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// What all phones of a fleet have in common.
#[derive(Debug, Clone)]
pub struct Household {
    /// Decides everything about every phone.
    pub seed: u64,
    /// Domain of all AoRs, in lower case.
    pub domain: String,
    /// The access edge that every Path leads to first; without one some phones have no Path and the others an
    /// unreachable one.
    pub edge: Option<SocketAddr>,
}

impl Household {
    /// Phones of `phones.test`, without an edge.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Household { seed, domain: "phones.test".to_owned(), edge: None }
    }
}

/// One Contact as this phone sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The URI, byte for byte.
    pub uri: String,
    /// `q` as written.
    pub q: Option<&'static str>,
    /// All other parameters but `expires`, raw.
    pub params: Vec<(&'static str, Option<String>)>,
    /// Written inside `< >`? If not, the URI has neither parameters nor headers.
    bracketed: bool,
}

impl Contact {
    /// The same at another URI.
    pub(crate) fn moved_to(&self, uri: String) -> Contact {
        Contact { uri, ..self.clone() }
    }
}

/// How this phone writes its messages.
#[derive(Debug, Clone, Copy)]
struct Style {
    folded: bool,
    compact: bool,
    /// Several contacts in one field (else one field each).
    one_field: bool,
    /// Where the seconds stand: 0 = parameter, 1 = Expires, 2 = both (the header says something else, the parameter
    /// wins), 3 = parameter on the first contact, header for the rest.
    expires: u8,
}

/// One phone. Equal (household, index) give an equal phone.
#[derive(Debug, Clone)]
pub struct Phone {
    /// Its number in the fleet.
    pub index: usize,
    /// The key that a location service gives it: unescaped user @ domain.
    pub aor: String,
    /// Its AoR as it writes it into To and From.
    pub aor_uri: String,
    /// Another spelling of the same AoR, as callers write it into the Request-URI.
    pub called_uri: String,
    /// One or two contacts.
    pub contacts: Vec<Contact>,
    /// Contacts of earlier days, which a [`Ask::Bind`] removes in the same request and an [`Ask::Unbind`] removes too.
    pub left: Vec<Contact>,
    /// Path values in order (RFC 3327: the first is the nearest to the registrar).
    pub paths: Vec<String>,
    /// Does it say `Supported: path`, so that a 200 must show the Path?
    pub supports_path: bool,
    /// Call-ID of all its REGISTERs.
    pub call_id: String,
    domain: String,
    tag: String,
    agent: &'static str,
    style: Style,
}

/// What a REGISTER asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Add or refresh all contacts for so many seconds.
    Bind(u32),
    /// Remove all contacts, each named with expires 0.
    Unbind,
    /// `Contact: *`
    Clear,
    /// No Contact at all.
    Query,
}

const AGENTS: [&str; 4] = [
    "Yealink SIP-T46U 108.86.0.20",
    "snomD785/10.1.175.16",
    "PolyEdge-E350-UA/8.1.1.4016",
    "Linphone/5.2.0 (belle-sip)",
];
const QS: [&str; 6] = ["0.7", "0.55", "1.0", "0.001", "0.30", "1"];

impl Phone {
    /// The phone of this number.
    #[must_use]
    pub fn new(household: &Household, index: usize) -> Phone {
        let seed = household.seed ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut one_in = |n: u32| rng.u32(0..n) == 0;
        let (two, instance, outbound) = (one_in(10), one_in(5), one_in(2));
        let style =
            Style { folded: one_in(10), compact: one_in(10), one_field: one_in(2), expires: u8::from(one_in(2)) };
        let (second_path, deaf, has_path) = (one_in(10), one_in(10), household.edge.is_some() || !one_in(10));
        let outbound = instance && outbound && !two;
        let style = Style { expires: style.expires + 2 * rng.u8(0..2), ..style };
        let (aor, aor_uri, called_uri) = names(household, index, &mut rng);
        let mut contacts: Vec<Contact> =
            (0..=usize::from(two)).map(|nth| contact(index, nth, instance, &mut rng)).collect();
        if outbound {
            contacts[0].params.push(("reg-id", Some("1".to_owned())));
        }
        let mut paths = Vec::new();
        if has_path {
            let ob = if outbound { ";ob" } else { "" };
            let edge = household.edge.map_or_else(|| "192.0.2.99:5060".to_owned(), |e| e.to_string());
            let token = if rng.u32(0..10) == 0 { "%41%2Fb%25" } else { "flow" };
            paths.push(format!("<sip:{token}{index}@{edge};lr{ob}>"));
            if second_path {
                paths.push(format!("<sip:[2001:db8::{:x}]:5062;lr{ob}>", index % 65_536));
            }
        }
        Phone {
            index,
            aor,
            aor_uri,
            called_uri,
            contacts,
            left: Vec::new(),
            supports_path: !paths.is_empty() && !deaf,
            paths,
            call_id: format!("{:016x}@pbx-{}.invalid", rng.u64(..), index),
            domain: household.domain.clone(),
            tag: format!("{:08x}", rng.u32(..)),
            agent: AGENTS[rng.usize(0..AGENTS.len())],
            style,
        }
    }

    /// A REGISTER. Every request of one phone has a higher `cseq`, except a retransmission.
    #[must_use]
    pub fn register(&self, ask: Ask, cseq: u32) -> Text {
        let mut text = self.head(&self.aor_uri, &self.aor_uri);
        let _ = write!(text, "Call-ID: {}\r\nCSeq: {cseq} REGISTER\r\n", self.call_id);
        if matches!(ask, Ask::Bind(_)) {
            self.write_paths(&mut text);
        }
        let supported = match (self.supports_path, self.contacts[0].params.iter().any(|(n, _)| *n == "reg-id")) {
            (true, true) => "Supported: path, outbound, gruu\r\n",
            (true, false) => "Supported: replaces,path\r\n",
            (false, true) => "Supported: outbound\r\n",
            (false, false) => "",
        };
        text.push_str(supported);
        match ask {
            Ask::Bind(seconds) => self.write_contacts(&mut text, seconds),
            Ask::Unbind => self.write_contacts(&mut text, 0),
            Ask::Clear => text.push_str("Contact: *\r\nExpires: 0\r\n"),
            Ask::Query => {}
        }
        self.finish(text, format!("REGISTER sip:{} SIP/2.0\r\n", self.domain))
    }

    /// A caller's INVITE (or other out-of-dialog request) to this phone; `nonce` makes Call-ID and tag unique.
    #[must_use]
    pub fn called(&self, method: &str, nonce: u64) -> Text {
        let caller = format!("sip:caller{}@elsewhere.test", nonce % 1000);
        let mut text = self.head(&caller, &self.called_uri);
        let _ = write!(
            text,
            "Call-ID: {nonce:016x}@caller.invalid\r\nCSeq: 1 {method}\r\nContact: <sip:caller@192.0.2.1:5060>\r\n"
        );
        self.finish(text, format!("{method} {} SIP/2.0\r\n", self.called_uri))
    }

    /// `Route` values that a redirect must carry with each contact; empty without a Path.
    #[must_use]
    pub fn route(&self) -> &[String] {
        &self.paths
    }

    fn head(&self, from: &str, to: &str) -> String {
        let mut text = String::with_capacity(900);
        let (index, tag) = (self.index, &self.tag);
        // The phone's own Via, as the SBC that stands between left it.
        let _ = write!(
            text,
            "Via: SIP/2.0/UDP 10.{}.{}.{}:5060;branch=z9hG4bK{tag}{index:x};rport=5060;received=203.0.113.{}\r\n",
            index >> 16 & 255,
            index >> 8 & 255,
            index & 255,
            index % 250 + 1
        );
        let fold = if self.style.folded { "\r\n  " } else { " " };
        let (f, t) = if self.style.compact { ("f", "t") } else { ("From", "To") };
        let _ = write!(
            text,
            "Max-Forwards: 69\r\n{f}: \"Phone, {index} \\\"desk\\\"\"{fold}<{from}>;tag={tag}\r\n{t}:{fold}<{to}>\r\n"
        );
        text
    }

    fn finish(&self, mut text: String, start: String) -> Text {
        let _ = write!(
            text,
            "User-Agent: {}\r\nAllow: INVITE, ACK, OPTIONS, CANCEL, BYE, SUBSCRIBE, NOTIFY, INFO, REFER, UPDATE, MESSAGE\r\n{}: 0\r\n\r\n",
            self.agent,
            if self.style.compact { "l" } else { "Content-Length" }
        );
        Text { start, rest: text }
    }

    fn write_paths(&self, text: &mut String) {
        match self.paths.as_slice() {
            [] => {}
            [one] => _ = write!(text, "Path: {one}\r\n"),
            all if self.style.one_field => _ = write!(text, "Path: {}\r\n", all.join(",")),
            all => all.iter().for_each(|p| _ = write!(text, "Path: {p}\r\n")),
        }
    }

    fn write_contacts(&self, text: &mut String, seconds: u32) {
        let fold = if self.style.folded { "\r\n\t" } else { "" };
        let name = if self.style.compact { "m" } else { "Contact" };
        for contact in &self.left {
            let _ = write!(text, "{name}: <{}>;expires=0\r\n", contact.uri);
        }
        for (nth, contact) in self.contacts.iter().enumerate() {
            if nth == 0 || !self.style.one_field {
                let _ = write!(text, "{name}: ");
            }
            let (open, close) = if contact.bracketed { ("<", ">") } else { ("", "") };
            let _ = write!(text, "{open}{}{close}{fold}", contact.uri);
            if let Some(q) = contact.q {
                let _ = write!(text, ";q={q}");
            }
            for (name, value) in &contact.params {
                match value {
                    Some(value) => _ = write!(text, ";{name}={value}"),
                    None => _ = write!(text, ";{name}"),
                }
            }
            if self.style.expires != 1 && !(self.style.expires == 3 && nth > 0) {
                let _ = write!(text, ";expires={seconds}");
            }
            let last = nth + 1 == self.contacts.len();
            text.push_str(if self.style.one_field && !last { ", " } else { "\r\n" });
        }
        match self.style.expires {
            0 => {}
            // What the parameter says must win over this.
            2 => text.push_str("Expires: 1234\r\n"),
            _ => _ = write!(text, "Expires: {seconds}\r\n"),
        }
    }
}

/// (key, URI as the phone writes it, URI as callers write it).
fn names(household: &Household, index: usize, rng: &mut fastrand::Rng) -> (String, String, String) {
    let domain = &household.domain;
    let shouted = domain.to_ascii_uppercase();
    let (user, written, called, params) = match rng.u32(0..20) {
        0 => (format!("u{index}#home"), format!("u{index}%23home"), format!("%75{index}%23home"), ""),
        1 => (format!("jürgen{index}"), format!("j%C3%BCrgen{index}"), format!("j%c3%bcrgen{index}"), ""),
        2 => (
            format!("+4930{index:08}"),
            format!("+49-30-{:03}.{:05}", index / 100_000, index % 100_000),
            format!("+4930{index:08}"),
            ";user=phone",
        ),
        3 => (format!("u&=$,;?/{index}"), format!("u&=$,;?/{index}"), format!("u%26=$%2C;?/{index}"), ""),
        _ => (format!("user{index}"), format!("user{index}"), format!("user{index}"), ""),
    };
    let host = if rng.u32(0..10) == 0 { &shouted } else { domain };
    let port = if rng.u32(0..10) == 0 { ":5060" } else { "" };
    (
        format!("{user}@{domain}"),
        format!("sip:{written}@{host}{params}"),
        format!("sip:{called}@{domain}{port}{params}"),
    )
}

fn contact(index: usize, nth: usize, instance: bool, rng: &mut fastrand::Rng) -> Contact {
    let port = 5060 + 2 * nth;
    let line = rng.u32(..);
    let v4 = format!("{}.{}", ["192.0.2", "198.51.100", "203.0.113"][index % 3], rng.u8(1..255));
    let mut bracketed = true;
    let uri = match rng.u32(0..20) {
        0 | 1 => format!("sip:user{index}@[2001:DB8:0::{:x}]:{port};transport=udp", index % 65_536),
        2 | 3 => format!("sip:{line:08x}@{:012x}.invalid;transport=ws", rng.u64(..) >> 16),
        4 => format!("sip:%75s%65r%23{index}@{v4}:{port}"),
        5 => format!("sip:u{index};isub=1:p%40ss@{v4}:{port}"),
        6 => format!("sip:user{index}@{v4}:{port}?X-Line={line:x}&Subject=a%20b"),
        7 | 8 => {
            bracketed = false;
            format!("sip:user{index}@{v4}:{port}")
        }
        _ => format!("sip:user{index}@{v4}:{port};line={line:08x}{nth}"),
    };
    let q = (rng.u32(0..5) < 2).then(|| QS[rng.usize(0..QS.len())]);
    let mut params = Vec::new();
    if instance {
        let tail = (index as u64) << 1 | nth as u64;
        params.push(("+sip.instance", Some(format!("\"<urn:uuid:{:08x}-0000-1000-8000-{tail:012x}>\"", rng.u32(..)))));
    }
    match rng.u32(0..10) {
        0 => params.push(("methods", Some("\"INVITE, ACK;BYE\"".to_owned()))),
        1 => params.push(("audio", None)),
        _ => {}
    }
    Contact { uri, q, params, bracketed }
}

#[cfg(test)]
mod tests {
    use super::{Ask, Household, Phone};
    use crate::message::{Message, unescape};
    use std::collections::HashSet;

    #[test]
    fn a_phone_is_a_function_of_its_number_and_reads_back() {
        let household = Household::new(7);
        let (mut aors, mut two, mut bytes) = (HashSet::new(), 0, 0);
        for index in 0..5000 {
            let phone = Phone::new(&household, index);
            let datagram = phone.register(Ask::Bind(600), 3).datagram("127.0.0.1:5060", "z9hG4bK1");
            assert_eq!(
                datagram,
                Phone::new(&household, index).register(Ask::Bind(600), 3).datagram("127.0.0.1:5060", "z9hG4bK1")
            );
            let message = Message::read(&datagram).expect("a phone speaks SIP");
            let contacts = message.contacts().expect("contacts");
            assert_eq!(contacts.len(), phone.contacts.len());
            assert!(contacts.iter().zip(&phone.contacts).all(|(read, sent)| read.uri == sent.uri));
            assert_eq!(message.list("Path").expect("paths"), phone.paths);
            let to = message.exactly_one("To").expect("a To");
            let user = to.trim_start_matches("<sip:").split('@').next().expect("a user");
            if !to.contains("user=phone") {
                assert!(phone.aor.starts_with(&unescape(user).expect("escapes")), "{to} {}", phone.aor);
            }
            two += usize::from(contacts.len() == 2);
            bytes += datagram.len();
            assert!(aors.insert(phone.aor));
        }
        assert!((400..600).contains(&two), "{two} of 5000 with two contacts");
        assert!((600..800).contains(&(bytes / 5000)), "{} bytes on average", bytes / 5000);
    }
}
