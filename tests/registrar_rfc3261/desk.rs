//! One AoR at one node's registrar, driven with Contact values as a phone writes them. Judges nothing itself.

use std::cell::Cell;

use aorta::location::Location;
use aorta::registrar::{
    ContactWish, Contacts, Expires, Judged, Listed, Refusal, RegisterRequest, RegistrarLimits, Write, judge,
    register as register_at,
};
use aorta::sip::message::{Contact, Lifetime};
use aorta_proto::{Aor, BootId, NodeId, Record, Stamp, hash};

/// 2026 or so, microseconds: far from 0, so that nothing works by accident.
pub(crate) const START_US: u64 = 1_790_000_000_000_000;

/// A record, a clock, and the stamps drawn from it.
pub(crate) struct Desk {
    pub record: Record,
    pub now_us: u64,
    pub limits: RegistrarLimits,
    pub boot: BootId,
    drawn: u64,
    node: NodeId,
}

/// One REGISTER.
#[derive(Clone)]
pub(crate) struct Register<'a> {
    pub call_id: &'a str,
    pub cseq: u32,
    /// `["*"]` is `Contact: *`; none is a query.
    pub contacts: Vec<&'a str>,
    pub expires: Expires,
    pub path: Vec<&'a str>,
}

/// A REGISTER with these contacts, no Expires header and no Path.
pub(crate) fn register<'a>(call_id: &'a str, cseq: u32, contacts: &[&'a str]) -> Register<'a> {
    Register { call_id, cseq, contacts: contacts.to_vec(), expires: Expires::Absent, path: Vec::new() }
}

/// `Contact: *` with `Expires: 0`.
pub(crate) fn star(call_id: &str, cseq: u32) -> Register<'_> {
    Register { expires: Expires::Seconds(0), ..register(call_id, cseq, &["*"]) }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Desk {
    pub(crate) fn new(boot: u64) -> Self {
        Self {
            record: Record::default(),
            now_us: START_US,
            limits: RegistrarLimits::default(),
            boot: BootId(boot),
            drawn: 0,
            node: NodeId::new(&format!("node{boot}")).expect("a node id"),
        }
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now_us += seconds * 1_000_000;
    }

    /// How many stamps were drawn.
    pub(crate) fn drawn(&self) -> u64 {
        self.drawn
    }

    /// What the registrar says; what it writes is merged.
    pub(crate) fn judge(&mut self, request: &Register<'_>) -> Judged {
        let contacts: Vec<Contact<'_>> = match request.contacts.as_slice() {
            ["*"] => Vec::new(),
            values => values.iter().map(|value| Contact::parse(value.as_bytes()).expect("a Contact")).collect(),
        };
        let wishes: Vec<ContactWish<'_>> = contacts.iter().map(wish).collect();
        let contacts = match request.contacts.as_slice() {
            [] => Contacts::Query,
            ["*"] => Contacts::Star,
            _ => Contacts::List(&wishes),
        };
        let path: Vec<&[u8]> = request.path.iter().map(|value| value.as_bytes()).collect();
        let request = RegisterRequest {
            call_id: request.call_id.as_bytes(),
            call_id_hash: hash::call_id_hash(request.call_id.as_bytes()),
            cseq: request.cseq,
            contacts,
            expires: request.expires,
            path: &path,
            user_agent: b"desk",
            source: b"udp:192.0.2.1:5060",
            node: &self.node,
        };
        let (now_us, boot, drawn) = (self.now_us, self.boot, Cell::new(self.drawn));
        let draw = || {
            drawn.set(drawn.get() + 1);
            Stamp { time_us: now_us + drawn.get(), counter: 0, boot }
        };
        // As nodes do it, in a table, and then by the record alone.
        let (location, aor) = (Location::new([7; 16], false), Aor::from_canonical("desk@example.com"));
        location.apply(&aor, self.record.clone());
        let registered = register_at(&location, &aor, &request, now_us, &self.limits, draw);
        let drawn_there = drawn.replace(self.drawn);
        let judged = judge(&request, &self.record, now_us, &self.limits, draw);
        assert_eq!((&registered, drawn_there), (&judged, drawn.get()), "{:?}", self.record);
        self.drawn = drawn.get();
        if let Judged::Accepted { write: Write::New(delta), .. } = &judged {
            let merged = self.record.merge(delta);
            assert!(merged.changed && !merged.conflict, "{merged:?}");
        }
        location.get(&aor, |record| assert_eq!(record.cloned().unwrap_or_default(), self.record));
        judged
    }

    /// The contacts of the 200.
    pub(crate) fn ok(&mut self, request: &Register<'_>) -> Vec<Listed> {
        match self.judge(request) {
            Judged::Accepted { bindings, .. } => bindings.into_vec(),
            Judged::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    /// The refusal; asserts that nothing was written.
    pub(crate) fn refused(&mut self, request: &Register<'_>) -> Refusal {
        let before = self.record.clone();
        let Judged::Refused(refusal) = self.judge(request) else { panic!("accepted") };
        assert_eq!(self.record, before);
        refusal
    }

    /// The URIs that ring now.
    pub(crate) fn uris(&mut self) -> Vec<String> {
        uris(&self.ok(&register("query", 1, &[])))
    }
}

pub(crate) fn uris(listed: &[Listed]) -> Vec<String> {
    listed.iter().map(|listed| String::from_utf8_lossy(listed.binding.uri()).into_owned()).collect()
}

fn wish<'a>(contact: &Contact<'a>) -> ContactWish<'a> {
    ContactWish {
        key: contact.key(),
        uri_hash: contact.uri_hash(),
        uri: contact.uri.raw,
        params: contact.kept_params(),
        q: contact.q,
        expires: match contact.expires {
            Lifetime::Absent => Expires::Absent,
            Lifetime::Malformed => Expires::Malformed,
            Lifetime::Seconds(seconds) => Expires::Seconds(seconds),
        },
    }
}
