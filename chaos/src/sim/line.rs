//! One AoR as its phones know it: requests sent, answers received, and what therefore must ring. The judge's model; it
//! knows no node, no record and no stamp.

use aorta_proto::{Aor, Digester};

use super::node::DIGEST_KEY;

use super::phones::{Dress, PATIENCE_US, PHONES, PORTS, Phone, Register};

/// Clocks of nodes that hear each other, or were cut off a moment ago, differ by less than this, µs.
const CLOCKS_DIFFER_US: u64 = 1_000_000;

/// Clocks of nodes that were cut off from each other drift apart by less than this, µs.
const CUT_CLOCKS_DIFFER_US: u64 = 50_000;

/// Around the moment of its lapse a contact may be there or not, µs.
const LAPSE_TOLERANCE_US: u64 = 1_000_000;

/// So long after a request was sent no copy of it is under way any more, µs.
const COPIES_COME_US: u64 = 3_500_000;

/// Where something may ring. What the latest request for it says holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// A contact that is its URI.
    Uri { phone: u8, port: u8 },
    /// A contact with instance and `reg-id`, at this URI.
    Flow { phone: u8, port: u8 },
}

impl Slot {
    pub(super) fn port(self) -> u8 {
        match self {
            Self::Uri { port, .. } | Self::Flow { port, .. } => port,
        }
    }
}

/// What is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Gone,
    Live { granted_s: u32 },
}

/// What a request does to a slot if it is accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) slot: Slot,
    pub(super) state: State,
}

impl Written {
    /// What `Contact: *` does.
    pub(super) fn all() -> Vec<Self> {
        let gone = |slot| Self { slot, state: State::Gone };
        let at = |phone, port| [Slot::Uri { phone, port }, Slot::Flow { phone, port }];
        let of = |phone| (0..PORTS).flat_map(move |port| at(phone, port));
        (0..PHONES).flat_map(of).map(gone).collect()
    }
}

/// One request, with all its copies.
#[derive(Debug)]
struct Asked {
    id: u64,
    phone: u8,
    register: Register,
    sent_us: u64,
    /// When a copy of it last reached a node.
    reached_us: u64,
    /// When it was answered 200 with all acks.
    full_us: Option<u64>,
    /// It was answered 200 without all acks: not all that served while it was asked knew what had all.
    short: bool,
    /// When all that serve held the same, so that it was known to all if it was accepted at all.
    known_us: Option<u64>,
    /// A node found its contact silent and may remove it.
    doubted: bool,
    /// All nodes that served died before it was surely on a disk: what it said may be so, or what was so before.
    lost: bool,
    /// The shortest and the longest lifetime that its answers granted, seconds.
    granted_s: Option<(u32, u32)>,
}

/// What a node must answer about a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    Ring,
    NotRing,
    Either,
}

/// How far cluster time may be off true time, µs, after starts from disks.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Off {
    pub(super) ahead_us: u64,
    pub(super) behind_us: u64,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) aor: Aor,
    /// Where nodes that compare list it.
    pub(super) bucket: u32,
    /// Every contact that its phones may have, phone by phone, port by port.
    uris: Vec<String>,
    asked: Vec<Asked>,
    /// Each `Contact: *` that was sent: which request, of which phone, when.
    stars: Vec<(u64, u8, u64)>,
}

impl Line {
    pub(super) fn new(line: usize) -> Self {
        let uris = (0..PHONES).flat_map(|phone| (0..PORTS).map(move |port| Phone::uri(line, phone, port))).collect();
        let aor = Aor::from_canonical(&format!("u{line}@example.com"));
        let bucket = Digester::new(DIGEST_KEY).aor(&aor).bucket();
        Self { aor, bucket, uris, asked: Vec::new(), stars: Vec::new() }
    }

    pub(super) fn asks(&mut self, id: u64, phone: u8, register: Register, now_us: u64) {
        if register.is_star() {
            self.stars.push((id, phone, now_us));
        }
        self.asked.push(Asked {
            id,
            phone,
            register,
            sent_us: now_us,
            reached_us: now_us,
            full_us: None,
            short: false,
            known_us: None,
            doubted: false,
            lost: false,
            granted_s: None,
        });
    }

    /// A copy reaches a node.
    pub(super) fn reaches(&mut self, id: u64, now_us: u64) {
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.id == id) {
            asked.reached_us = now_us;
        }
    }

    /// A node accepts a copy and grants at most so much.
    pub(super) fn grants(&mut self, id: u64, most_s: u32) {
        for asked in self.asked.iter_mut().filter(|asked| asked.id == id) {
            let (least, most) = asked.granted_s.unwrap_or((most_s, most_s));
            asked.granted_s = Some((least.min(most_s), most.max(most_s)));
        }
    }

    /// Whether a node accepted a copy.
    pub(super) fn is_granted(&self, id: u64) -> bool {
        self.asked.iter().any(|asked| asked.id == id && asked.granted_s.is_some())
    }

    /// A node finds a contact silent: what its phone asked for until now may end, what it asks for from now on may not.
    pub(super) fn doubts(&mut self, entry: &aorta_proto::Entry, now_us: u64) {
        let Some(binding) = entry.binding() else { return };
        let at = self.uris.iter().position(|uri| uri.as_bytes() == binding.uri());
        let Some(phone) = at.map(|at| at / usize::from(PORTS)) else { return };
        for asked in self.asked.iter_mut().filter(|asked| asked.sent_us <= now_us) {
            asked.doubted |= usize::from(asked.phone) == phone;
        }
    }

    /// A 200 with all acks: what it surely comes after is history.
    pub(super) fn hears_full(&mut self, id: u64, now_us: u64) {
        let Some(at) = self.asked.iter().position(|asked| asked.id == id && asked.full_us.is_none()) else { return };
        let mut by = self.asked.remove(at);
        (by.full_us, by.lost) = (Some(now_us), false);
        for one in self.asked.iter_mut().filter(|one| one.is_before(&by)) {
            one.register.written.retain(|written| !by.writes(written.slot));
        }
        self.asked.retain(|asked| !asked.register.written.is_empty());
        let at = self.asked.partition_point(|asked| asked.id < id);
        self.asked.insert(at, by);
    }

    /// A 200 without all acks.
    pub(super) fn hears_short(&mut self, id: u64) {
        self.asked.iter_mut().filter(|asked| asked.id == id).for_each(|asked| asked.short = true);
    }

    /// All that serve hold the same: what was sent a while ago is known to all if it was accepted anywhere. Unless something
    /// died for good meanwhile, what was answered without all acks is from now on as good as what had them.
    pub(super) fn settles(&mut self, gentle: bool, now_us: u64) {
        for asked in self.asked.iter_mut().filter(|asked| asked.sent_us + COPIES_COME_US < now_us) {
            asked.known_us.get_or_insert(now_us);
        }
        let short = self.asked.iter_mut().filter(|asked| asked.short && asked.full_us.is_none());
        let short: Vec<u64> = short
            .filter_map(|asked| {
                asked.short = gentle;
                gentle.then_some(asked.id)
            })
            .collect();
        short.into_iter().for_each(|id| self.hears_full(id, now_us));
    }

    /// What came to a node since then may be nowhere any more, or may be all the same: which requests.
    pub(super) fn loses_since(&mut self, since_us: u64) -> Vec<u64> {
        let lost = self.asked.iter_mut().filter(|asked| asked.reached_us >= since_us);
        lost.map(|asked| {
            (asked.full_us, asked.lost) = (None, true);
            asked.id
        })
        .collect()
    }

    /// What a phone was answered in full and still counts: which request, when it was sent, what it said.
    pub(super) fn answered(&self, phone: u8) -> impl Iterator<Item = (u64, u64, Register)> {
        let of = self.asked.iter().filter(move |asked| asked.phone == phone && asked.full_us.is_some());
        of.map(|asked| (asked.id, asked.sent_us, asked.register.clone()))
    }

    /// Whether a copy of an acknowledged request that comes late must change nothing: of `*` only the last is remembered; and
    /// where an older request of its phone was accepted at a node that did not hear of it, the nodes may hold that one to be
    /// the later, and go on from its CSeq.
    pub(super) fn may_come_late(&self, id: u64, is_star: bool) -> bool {
        let by = self.asked.iter().find(|asked| asked.id == id);
        let rival = |one: &Asked, by: &Asked| one.phone == by.phone && one.id < id && !one.is_before(by);
        let last_of_its_phone = by.is_none_or(|by| !self.asked.iter().any(|one| rival(one, by)));
        last_of_its_phone && (!is_star || self.stars.last().is_some_and(|(last, ..)| *last == id))
    }

    /// Whether a request of which no copy came yet is surely refused when one comes: a newer one of its Call-ID was answered
    /// in full, a contact's after a `*`, or a `*` after which no other phone's can have been accepted.
    pub(super) fn is_overtaken(&self, id: u64, sent_us: u64, register: &Register) -> bool {
        let newer =
            |asked: &&Asked| asked.id > id && asked.full_us.is_some() && asked.register.call_id == register.call_id;
        let mut newer = self.asked.iter().filter(newer).peekable();
        let Some(phone) = newer.peek().map(|asked| asked.phone) else { return false };
        let others = self.stars.iter().filter(|(_, of, _)| *of != phone);
        let alone = others.map(|(.., at_us)| at_us + PATIENCE_US).all(|until_us| until_us < sent_us);
        newer.any(|by| if by.register.is_star() { alone } else { register.is_star() })
    }

    /// Whether a contact that must ring, and does not, may have had to make room for those that do: not where each of them
    /// was known to all before it was asked for, for whoever accepted it had room all the same.
    pub(super) fn may_lack_room(&self, uri: &str, shown: &[&str], now_us: u64, off: Off) -> bool {
        let accepted = self.adding(uri).filter(|(asked, _)| asked.full_us.is_some() && !asked.short);
        let Some(since_us) = accepted.map(|(asked, _)| asked.sent_us).min() else { return true };
        let was_known = |asked: &Asked| asked.full_us.is_some_and(|full_us| full_us <= since_us);
        !shown.iter().all(|uri| {
            let mut adding = self.adding(uri).peekable();
            adding.peek().is_some()
                && adding.all(|(asked, state)| was_known(asked) && asked.must(state, now_us, off) == Must::Ring)
        })
    }

    /// The requests that want a contact to ring.
    fn adding(&self, uri: &str) -> impl Iterator<Item = (&Asked, State)> {
        let at = self.uris.iter().position(|known| known == uri);
        self.asked.iter().flat_map(move |asked| {
            let here =
                move |slot: Slot| at == Some(usize::from(asked.phone) * usize::from(PORTS) + usize::from(slot.port()));
            let live = |written: &&Written| matches!(written.state, State::Live { .. });
            let written = asked.register.written.iter().filter(live).filter(move |written| here(written.slot));
            written.map(move |written| (asked, written.state))
        })
    }

    /// Every contact of its phones with what must be true of it, phone by phone, port by port; of one that must ring what it
    /// carries, if only one request can have said so.
    pub(super) fn musts(&self, now_us: u64, off: Off) -> impl Iterator<Item = (&str, Must, Option<Dress>)> {
        let mut uris = [[Place::default(); PORTS as usize]; PHONES as usize];
        let mut flows = uris;
        for asked in &self.asked {
            let full = asked.full_us.is_some();
            for written in &asked.register.written {
                let place = match written.slot {
                    Slot::Uri { phone, port } => &mut uris[usize::from(phone)][usize::from(port)],
                    Slot::Flow { phone, port } => &mut flows[usize::from(phone)][usize::from(port)],
                };
                place.hears(asked.must(written.state, now_us, off), full);
                place.dress = if std::mem::replace(&mut place.heard, true) { None } else { Some(asked.register.dress) };
            }
        }
        let both = uris.into_iter().flatten().zip(flows.into_iter().flatten());
        self.uris.iter().zip(both).map(|(uri, (one, other))| {
            let (must, dress) = match (one.must(), other.must()) {
                (Must::Ring, Must::NotRing) => (Must::Ring, one.dress),
                (Must::NotRing, Must::Ring) => (Must::Ring, other.dress),
                (Must::Ring, _) | (_, Must::Ring) => (Must::Ring, None),
                (Must::NotRing, Must::NotRing) => (Must::NotRing, None),
                _ => (Must::Either, None),
            };
            (uri.as_str(), must, dress)
        })
    }
}

/// What the requests that may be the last one for a slot say of one contact.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    must: Option<Must>,
    /// One of them was answered in full.
    settled: bool,
    heard: bool,
    /// What the only one of them says that the contact carries.
    dress: Option<Dress>,
}

impl Place {
    fn hears(&mut self, must: Must, full: bool) {
        self.settled |= full;
        self.must = Some(if self.must.is_none_or(|before| before == must) { must } else { Must::Either });
    }

    /// As long as nothing is settled there may be nothing at all.
    fn must(mut self) -> Must {
        if !self.settled {
            self.hears(Must::NotRing, false);
        }
        self.must.unwrap_or(Must::NotRing)
    }
}

impl Asked {
    fn writes(&self, slot: Slot) -> bool {
        self.register.written.iter().any(|written| written.slot == slot)
    }

    fn was_known_before(&self, other: &Self) -> bool {
        let full_us = self.full_us.filter(|_| !other.short);
        full_us.into_iter().chain(self.known_us).any(|at_us| at_us <= other.sent_us)
    }

    /// Whether every copy of it is surely earlier in the one order than every copy of `other`: what was acknowledged in
    /// full is known; a phone asks one thing at a time, not always at nodes that hear each other; or they are far apart.
    fn is_before(&self, other: &Self) -> bool {
        let same_phone = self.phone == other.phone && self.id < other.id;
        (same_phone && self.reached_us + CUT_CLOCKS_DIFFER_US < other.sent_us)
            || self.was_known_before(other)
            || self.sent_us + PATIENCE_US + CLOCKS_DIFFER_US < other.sent_us
    }

    fn must(&self, state: State, now_us: u64, off: Off) -> Must {
        if self.lost {
            return Must::Either;
        }
        let State::Live { granted_s } = state else { return Must::NotRing };
        let (least_s, most_s) = self.granted_s.unwrap_or((0, u32::MAX));
        let lasts_us = |most_s: u32| u64::from(granted_s.min(most_s)) * 1_000_000;
        if now_us > self.sent_us + PATIENCE_US + lasts_us(most_s) + LAPSE_TOLERANCE_US + off.behind_us {
            Must::NotRing
        } else if !self.doubted && now_us + LAPSE_TOLERANCE_US + off.ahead_us < self.sent_us + lasts_us(least_s) {
            Must::Ring
        } else {
            Must::Either
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aorta::registrar::Expires;

    fn register(written: Vec<Written>) -> Register {
        let dress = Dress::default();
        Register { call_id: "c".into(), cseq: 1, contacts: Vec::new(), expires: Expires::Absent, dress, written }
    }

    fn live(granted_s: u32) -> Register {
        let state = State::Live { granted_s };
        register(vec![Written { slot: Slot::Uri { phone: 0, port: 0 }, state }])
    }

    fn must(line: &Line, port: usize, now_us: u64) -> Must {
        line.musts(now_us, Off::default()).nth(port).expect("a contact of the first phone").1
    }

    fn star() -> Register {
        register(Written::all())
    }

    #[test]
    fn only_a_full_answer_settles_anything() {
        let mut line = Line::new(0);
        assert_eq!(must(&line, 0, 0), Must::NotRing);
        line.asks(1, 0, live(60), 0);
        assert_eq!(must(&line, 0, 1), Must::Either);
        line.asks(2, 0, live(60), 100_000);
        line.grants(2, 3600);
        line.hears_full(2, 100_010);
        assert_eq!((must(&line, 0, 100_011), must(&line, 1, 100_011)), (Must::Ring, Must::NotRing));
        assert_eq!(must(&line, 0, 70_000_000), Must::NotRing);
        line.asks(3, 1, star(), 100_020);
        assert_eq!(must(&line, 0, 100_021), Must::Either);
        line.hears_full(3, 100_030);
        assert_eq!(must(&line, 0, 100_031), Must::NotRing);
    }

    #[test]
    fn what_all_disks_may_lack_is_uncertain_until_it_is_written_anew() {
        let mut line = Line::new(0);
        line.asks(1, 0, live(60), 0);
        line.grants(1, 3600);
        line.hears_full(1, 10);
        assert_eq!(line.loses_since(1), Vec::<u64>::new());
        line.reaches(1, 1_000);
        assert_eq!(line.loses_since(1_000), [1]);
        assert_eq!(must(&line, 0, 1_001), Must::Either);
        line.asks(2, 0, live(60), 60_000);
        line.grants(2, 3600);
        line.hears_full(2, 60_010);
        assert_eq!(must(&line, 0, 60_011), Must::Ring);
    }

    #[test]
    fn another_phones_star_settles_only_what_came_surely_before() {
        let mut line = Line::new(0);
        line.asks(1, 0, live(60), 0);
        line.asks(2, 1, star(), 10);
        line.hears_full(2, 20);
        line.hears_full(1, 20);
        assert_eq!(must(&line, 0, 21), Must::Either);
    }
}
