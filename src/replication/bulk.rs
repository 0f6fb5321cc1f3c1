//! Exchanges under way: as the one who opened it (one at a time) and as the one who answers (one a peer). Under a lock of
//! its own, so that comparing tables never delays a REGISTER. Chooses neither peers nor times; applies nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use aorta_proto::NodeId;
use aorta_proto::frame::{Class, Envelope, Frame, RefuseReason};
use aorta_proto::mutant::{Mutant, is};

use super::donor::Donor;
use super::effects::{Moved, Purpose};
use super::joiner::{Joiner, Progress};
use crate::clock::Now;
use crate::location::Location;

/// An answerer silent for so long is given up, µs.
pub(super) const SILENCE_US: u64 = 1_500_000;

/// A floor nearer to now than this is nonsense: no horizon is so short, µs.
const FLOOR_DISTANCE_MIN_US: u64 = 60_000_000;

/// An order from [`super::live::Live`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// The Bulk connection is up, or new.
    Up { peer: NodeId },
    /// It is gone.
    Down { peer: NodeId },
    /// Open an exchange; whatever was open before is given up.
    Begin { id: u64, peer: NodeId, purpose: Purpose },
    /// Give up.
    Cancel,
}

/// News for [`super::live::Live`].
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: u64,
    pub(super) result: Result<Moved, String>,
}

/// One peer's Bulk connection.
#[derive(Debug, Default)]
struct Side {
    donor: Option<Donor>,
    awake: bool,
}

pub(super) struct Bulk {
    location: Arc<Location>,
    sides: BTreeMap<NodeId, Side>,
    joiner: Option<(NodeId, Joiner)>,
    ended: Vec<Ended>,
    wake: Vec<(NodeId, Class)>,
}

impl Bulk {
    pub(super) fn new(location: Arc<Location>) -> Self {
        Self { location, sides: BTreeMap::new(), joiner: None, ended: Vec::new(), wake: Vec::new() }
    }

    pub(super) fn obey(&mut self, command: Command, now: Now) {
        match command {
            Command::Up { peer } => {
                self.give_up(&peer, "its connection was replaced");
                self.sides.insert(peer, Side::default());
            }
            Command::Down { peer } => {
                self.give_up(&peer, "its connection is gone");
                self.sides.remove(&peer);
            }
            Command::Begin { id, peer, purpose } => {
                self.joiner = None;
                if self.sides.contains_key(&peer) {
                    let joiner = Joiner::new(id, purpose, now.mono_us);
                    self.joiner = Some((peer, joiner));
                } else {
                    self.ended.push(Ended { id, result: Err("there is no connection for it".into()) });
                }
            }
            Command::Cancel => self.joiner = None,
        }
    }

    fn give_up(&mut self, peer: &NodeId, why: &str) {
        if let Some((_, joiner)) = self.joiner.take_if(|(with, _)| with == peer) {
            self.ended.push(Ended { id: joiner.id, result: Err(why.to_owned()) });
        }
    }

    /// Takes a frame; entries are already applied. `bytes` is its length.
    ///
    /// # Errors
    /// What a correct peer never says; the connection is closed.
    pub(super) fn handle_frame(
        &mut self,
        peer: &NodeId,
        frame: Frame<'_>,
        bytes: u64,
        records: u64,
        now: Now,
    ) -> Result<(), String> {
        let side = self.sides.get_mut(peer).ok_or("a frame without a connection")?;
        match frame {
            Frame::Begin { id, floor_us } => {
                take_floor(&self.location, floor_us, now)?;
                side.donor = Some(Donor::new(id));
                return Ok(());
            }
            Frame::Ask { id, .. } | Frame::Lists { id, .. } => {
                return match side.donor.as_mut().filter(|donor| donor.id == id) {
                    Some(donor) => donor.handle(frame),
                    // An exchange that its opener gave up while this was under way.
                    None => Ok(()),
                };
            }
            Frame::Entries { id, batch, last, .. } => {
                if let Some(donor) = side.donor.as_mut().filter(|donor| donor.takes(id, batch)) {
                    donor.entries(batch, last);
                    return Ok(());
                }
            }
            _ => {}
        }
        let Some((_, joiner)) = self.joiner.as_mut().filter(|(with, _)| with == peer) else { return Ok(()) };
        joiner.heard(bytes, records, now.mono_us);
        let floor = if let Frame::Root { id, floor_us, .. } = &frame { Some((*id, *floor_us)) } else { None };
        let id = joiner.id;
        if let Some((_, floor_us)) = floor.filter(|(of, _)| *of == id) {
            take_floor(&self.location, floor_us, now)?;
        }
        self.judge(|joiner, location| joiner.handle(frame, location, now.mono_us));
        Ok(())
    }

    fn judge(&mut self, step: impl FnOnce(&mut Joiner, &Location) -> Progress) {
        let Some((_, joiner)) = &mut self.joiner else { return };
        let result = match step(joiner, &self.location) {
            Progress::Goes => return,
            Progress::Done => Ok(joiner.moved),
            Progress::Failed(why) => Err(why),
        };
        let id = joiner.id;
        self.joiner = None;
        self.ended.push(Ended { id, result });
    }

    /// Appends the next frame to `buf`; whether there was one.
    pub(super) fn transmit(&mut self, peer: &NodeId, buf: &mut Vec<u8>, envelope: Envelope) -> bool {
        let Some(side) = self.sides.get_mut(peer) else { return false };
        let before = buf.len();
        if let Some(donor) = &mut side.donor {
            donor.transmit(&self.location, envelope, buf);
        }
        if buf.len() == before && self.joiner.as_ref().is_some_and(|(with, _)| with == peer) {
            self.judge(|joiner, location| joiner.transmit(location, envelope, buf));
        }
        let wrote = buf.len() > before;
        if let Some(side) = self.sides.get_mut(peer) {
            side.awake = wrote;
        }
        wrote
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.judge(|joiner, _| joiner.handle_timeout(now.mono_us));
    }

    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Connections whose writers sleep though there is something to say.
    pub(super) fn take_wakes(&mut self) -> Vec<(NodeId, Class)> {
        for (id, side) in self.sides.iter_mut().filter(|(_, side)| !side.awake) {
            let answers = side.donor.as_ref().is_some_and(Donor::has_due);
            let asks = self.joiner.as_ref().is_some_and(|(with, joiner)| with == id && joiner.has_due());
            if answers || asks {
                side.awake = true;
                self.wake.push((id.clone(), Class::Bulk));
            }
        }
        std::mem::take(&mut self.wake)
    }
}

/// The lower floor rises to the higher one, so that both compare the same.
fn take_floor(location: &Location, floor_us: u64, now: Now) -> Result<(), String> {
    if floor_us > now.cluster_us.saturating_sub(FLOOR_DISTANCE_MIN_US) {
        return Err("its forgetting floor is too near to now".into());
    }
    if !is(Mutant::FloorLetsIn) {
        location.set_floor(floor_us);
    }
    Ok(())
}

/// Refusals in words.
pub(super) fn refusal(why: RefuseReason) -> &'static str {
    match why {
        RefuseReason::Busy => "it is busy",
        RefuseReason::Nonsense => "it understood nothing",
        RefuseReason::Unknown => "it does not know the exchange",
    }
}
