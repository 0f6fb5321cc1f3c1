//! One AoR of the crowd, its one or two phones, and what each was told. Pure: times are milliseconds since the crowd was
//! made.
//!
//! One request is open for an AoR at a time, so that what is sure of one phone never depends on what another is just
//! asking for.

use super::belief::{Belief, Must, Where, World};
use super::device::{self, Shape, has_instance, own_number};
use super::plan::CrowdPlan;
use super::tally::Deed;
use crate::engine::Outcome;
use crate::phone::{Household, Phone};

/// After a request of which a copy may still be on its way (it was sent more than once, or not answered), and after a 200
/// that was short, the AoR rests for so long: longer than a datagram lives and than the clocks of nodes that are cut off
/// from each other drift apart. RFC 3261 orders requests only within a Call-ID.
pub(super) const REST_MS: u64 = 2000;

/// What the last 200 said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) deed: Deed,
    pub(super) at_ms: u64,
    pub(super) place: u8,
    pub(super) full: bool,
}

/// One phone.
#[derive(Debug, Clone, Default)]
pub(super) struct Device {
    pub(super) belief: Belief,
    pub(super) told: Option<Told>,
    pub(super) cseq: u32,
    pub(super) shape: Shape,
    pub(super) instance: bool,
    /// Asks for few seconds and never refreshes.
    pub(super) short_lived: bool,
    /// Gained its `reg-id`, and no full 200 has said since that its contact without one is superseded.
    pub(super) two_keys: bool,
    /// Its lapse is, or will be, looked at: it does not register again before.
    pub(super) watched: bool,
    /// Has to register with a new Call-ID as soon as it can.
    pub(super) storms: bool,
}

/// One AoR.
#[derive(Debug, Clone)]
pub(super) struct Aor {
    /// The number of its first phone; the second one's is the next.
    pub(super) first: usize,
    pub(super) devices: Vec<Device>,
    pub(super) open: Option<Box<Errand>>,
    pub(super) rest_until_ms: u64,
    pub(super) last_sent_ms: u64,
}

/// What a REGISTER is to bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// At the port of its shape, for so many seconds.
    Bind(u32),
    /// Nowhere.
    Unbind,
    /// Nobody of this AoR anywhere.
    Clear,
}

/// What is open for an AoR.
#[derive(Debug, Clone)]
pub(super) enum Errand {
    /// A REGISTER.
    Register(Register),
    /// An INVITE; begun at this time.
    Call { began_ms: u64 },
    /// An INVITE that asks whether the contact of a phone that does not refresh is served, before or after the end of its
    /// time; begun at this time.
    Look { device: usize, after: bool, began_ms: u64 },
    /// The INVITE to a contact that a redirect named.
    Deliver { node: std::net::SocketAddr, device: usize, uri: String },
}

/// An open REGISTER.
#[derive(Debug, Clone, Copy)]
pub(super) struct Register {
    pub(super) device: usize,
    pub(super) deed: Deed,
    pub(super) wish: Wish,
    /// Ports that it removes besides, as bits.
    pub(super) left: u8,
    pub(super) began_ms: u64,
    /// It was answered, and now asks another node the same.
    pub(super) again: bool,
    /// Part of a storm.
    pub(super) storm: bool,
}

/// All AoRs of a plan, none registered.
pub(super) fn all(plan: &CrowdPlan, household: &Household) -> Vec<Aor> {
    let mut aors = Vec::new();
    let mut index = 0;
    while index < plan.phones {
        let number = own_number(!plan.seed, index);
        let two = number % 100 < u64::from(plan.second_phone_percent) && index + 1 < plan.phones;
        let count = 1 + usize::from(two);
        let devices = (index..index + count)
            .map(|device| {
                let number = own_number(plan.seed.wrapping_add(1), device);
                let plain = device::phone(household, index, device, Shape::default(), 0);
                let instance = has_instance(&plain.contacts[0]);
                let shape = Shape { reg_id: instance && number & 1 == 0, ..Shape::default() };
                let short_lived = (number >> 8) % 100 < u64::from(plan.short_lived_percent);
                Device { shape, instance, short_lived, ..Device::default() }
            })
            .collect();
        aors.push(Aor { first: index, devices, open: None, rest_until_ms: 0, last_sent_ms: 0 });
        index += count;
    }
    aors
}

impl Aor {
    /// One of its phones as it is now.
    pub(super) fn phone(&self, household: &Household, device: usize, left: u8) -> Phone {
        device::phone(household, self.first, self.first + device, self.devices[device].shape, left)
    }

    pub(super) fn is_idle(&self, now_ms: u64) -> bool {
        self.open.is_none() && now_ms >= self.rest_until_ms
    }

    /// No copy of anything sent is still on its way.
    fn is_quiet(&self, now_ms: u64) -> bool {
        now_ms >= self.last_sent_ms + REST_MS
    }

    /// What must be said about a port all through a span of time.
    pub(super) fn must(&self, device: usize, port: u8, span: (u64, u64)) -> Must {
        let belief = &self.devices[device].belief;
        let (first, last) = (belief.must(port, span.0), belief.must(port, span.1));
        if first == last { first } else { Must::Either }
    }

    /// Whether it is sure, and stays so for `ahead_ms`, who rings: `Some(true)` = somebody.
    pub(super) fn rings(&self, now_ms: u64, ahead_ms: u64) -> Option<bool> {
        let mut rings = false;
        for device in &self.devices {
            let is_where = device.belief.is_where(now_ms);
            if is_where == Where::Unsure || is_where != device.belief.is_where(now_ms + ahead_ms) {
                return None;
            }
            rings |= is_where != Where::Nowhere;
        }
        Some(rings)
    }

    /// What a phone does next, by a die of 0 to (sum of the mix) - 1; `None` = nothing for now.
    pub(super) fn chooses(
        &self,
        device: usize,
        plan: &CrowdPlan,
        rng: &mut fastrand::Rng,
        now_ms: u64,
    ) -> Option<Deed> {
        let own = &self.devices[device];
        let is_where = own.belief.is_where(now_ms);
        if own.short_lived {
            // Never refreshed: it registers again once it has surely lapsed and that was looked at, or when nobody answered.
            let again = (is_where == Where::Nowhere && !own.watched) || !own.belief.is_settled();
            return again.then_some(Deed::Register);
        }
        match is_where {
            Where::Nowhere => Some(Deed::Register),
            Where::Unsure if own.belief.is_settled() || rng.u8(..) < 200 => Some(Deed::Refresh),
            Where::Unsure => Some(Deed::Unregister),
            Where::Port(_) => Some(self.changes(own, plan, rng, now_ms)),
        }
    }

    fn changes(&self, own: &Device, plan: &CrowdPlan, rng: &mut fastrand::Rng, now_ms: u64) -> Deed {
        let mix = &plan.mix;
        let weights = [
            (Deed::Refresh, mix.refresh),
            (Deed::Move, mix.moves),
            (Deed::Unregister, mix.unregister),
            (Deed::Clear, mix.clear),
            (Deed::Reboot, mix.reboot),
            (Deed::GainRegId, mix.gain_reg_id),
        ];
        let mut die = rng.u32(0..weights.iter().map(|(_, weight)| weight).sum::<u32>().max(1));
        let mut deed = Deed::Refresh;
        for (one, weight) in weights {
            if die < weight {
                deed = one;
                break;
            }
            die -= weight;
        }
        let full = own.told.is_some_and(|told| told.full) && own.belief.is_settled();
        let possible = match deed {
            Deed::Move => !own.two_keys && (full || !own.shape.reg_id),
            Deed::Clear | Deed::Reboot => self.is_quiet(now_ms),
            Deed::GainRegId => own.instance && !own.shape.reg_id && full,
            _ => true,
        };
        if possible { deed } else { Deed::Refresh }
    }

    /// May this phone restart now?
    pub(super) fn may_reboot(&self, now_ms: u64) -> bool {
        self.is_idle(now_ms) && self.is_quiet(now_ms)
    }

    /// Takes up a deed: the phone changes its shape, and from now on what it asks for may be true. `ends_ms` is when the
    /// last copy of it may be stamped.
    pub(super) fn begins(
        &mut self,
        device: usize,
        deed: Deed,
        plan: &CrowdPlan,
        now_ms: u64,
        ends_ms: u64,
    ) -> Register {
        let own = &mut self.devices[device];
        own.cseq += 1;
        match deed {
            Deed::Move => own.shape.port = (own.shape.port + 1) % super::belief::PORTS,
            Deed::Reboot => {
                own.shape.boots = own.shape.boots.wrapping_add(1);
                own.cseq = 1;
            }
            Deed::GainRegId => (own.shape.reg_id, own.two_keys) = (true, true),
            _ => {}
        }
        let seconds = if own.short_lived { plan.short_expires_s } else { plan.expires_s };
        let wish = match deed {
            Deed::Unregister => Wish::Unbind,
            Deed::Clear => Wish::Clear,
            _ => Wish::Bind(seconds),
        };
        // Under an instance the node replaces the old contact; a URI must be removed by who gave it.
        let here = 1 << own.shape.port;
        let left = if own.shape.reg_id || wish == Wish::Clear { 0 } else { own.belief.ports(now_ms) & !here };
        let register = Register { device, deed, wish, left, began_ms: now_ms, again: false, storm: false };
        self.asks(&register, ends_ms);
        self.last_sent_ms = now_ms;
        self.open = Some(Box::new(Errand::Register(register)));
        register
    }

    /// From now on this may be true.
    pub(super) fn asks(&mut self, register: &Register, ends_ms: u64) {
        self.brings(register, ends_ms, Belief::asks);
    }

    fn brings(&mut self, register: &Register, stamped_ms: u64, to: impl Fn(&mut Belief, World)) {
        let own = &mut self.devices[register.device];
        match register.wish {
            Wish::Bind(seconds) => {
                let lives_ms = u64::from(seconds) * 1000;
                let (from_ms, to_ms) = (register.began_ms + lives_ms, stamped_ms + lives_ms);
                to(&mut own.belief, World::At { port: own.shape.port, from_ms, to_ms });
            }
            Wish::Unbind => to(&mut own.belief, World::Gone),
            Wish::Clear => self.devices.iter_mut().for_each(|device| to(&mut device.belief, World::Gone)),
        }
    }

    /// A 200 came.
    pub(super) fn settles(&mut self, register: &Register, told: Told) {
        self.brings(register, told.at_ms, Belief::settles);
        let everybody = register.wish == Wish::Clear;
        for (nth, device) in self.devices.iter_mut().enumerate() {
            if everybody || nth == register.device {
                // Of two nodes that said the same, one that was sure is enough.
                let before = device.told.filter(|_| register.again);
                device.told = Some(before.filter(|before| before.full).unwrap_or(told));
                device.two_keys &= !(told.full && device.shape.reg_id);
            }
        }
    }

    /// A request ended: notes for how long the AoR rests.
    pub(super) fn ends(&mut self, outcome: &Outcome<'_>, settled_fully: bool, now_ms: u64) {
        if outcome.sent > 1 || !settled_fully {
            self.rest_until_ms = now_ms + REST_MS;
        }
        if outcome.sent > 1 || outcome.status().is_none() {
            self.last_sent_ms = now_ms;
        }
    }
}
