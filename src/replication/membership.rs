//! Who there is: the typed form of what gossip carries, and the memory of members that are not there now. Knows no links
//! and sends nothing.

use std::collections::{BTreeMap, BTreeSet};

use aorta_proto::frame::{LastKnown, PeerState, VERSION_MIN};
use aorta_proto::{BootId, NodeId};

use crate::location::Room;

/// Others' memory of a node may be this much younger than its good-bye, µs.
const HEARSAY_MARGIN_US: u64 = 5_000_000;

/// A member that gossip shows alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The process.
    pub boot: BootId,
    /// Where it is in its life.
    pub state: PeerState,
    /// The longest lifetime it grants, seconds.
    pub expires_max_s: u32,
    /// The highest wire version that it reads.
    pub wire_version_max: u8,
    /// Whom it is linked with.
    pub links: BTreeSet<NodeId>,
    /// Which AoRs its memory has room for.
    pub room: Room,
    /// Whom it suspects, and the epoch of the suspect that this is about.
    pub suspects: BTreeMap<NodeId, u64>,
    /// For which suspects, in which epoch of theirs, it promises to go on serving.
    pub stays_for: BTreeMap<NodeId, u64>,
}

/// Gossip keys, all values text.
mod key {
    pub(super) const BOOT: &str = "boot";
    pub(super) const STATE: &str = "state";
    pub(super) const EXPIRES_MAX_S: &str = "expires_max_s";
    pub(super) const WIRE_VERSION_MAX: &str = "wire_version_max";
    pub(super) const LINKS: &str = "links";
    pub(super) const SUSPECTS: &str = "suspects";
    pub(super) const STAYS_FOR: &str = "stays_for";
    pub(super) const ROOM: &str = "room";
}

/// The most members that this node remembers; a cluster is a handful of nodes.
pub(super) const MEMBERS_MAX: usize = 256;

impl Member {
    /// Reads a member from its gossip keys. Unknown keys are left alone; names that are none are skipped.
    ///
    /// # Errors
    /// What is missing or malformed: a member that has not said everything yet is not there yet.
    pub fn from_keys(node: NodeId, keys: &BTreeMap<String, String>) -> Result<Self, String> {
        let value = |key: &str| keys.get(key).map(String::as_str).ok_or_else(|| format!("no '{key}'"));
        let number = |key: &str| format!("'{key}' is no number");
        let boot = u64::from_str_radix(value(key::BOOT)?, 16).map_err(|_| number(key::BOOT))?;
        let expires_max_s = value(key::EXPIRES_MAX_S)?.parse().map_err(|_| number(key::EXPIRES_MAX_S))?;
        let state = state_from(value(key::STATE)?).ok_or_else(|| format!("no such '{}'", key::STATE))?;
        // Builds that speak only the first version do not say so.
        let wire_version_max = keys.get(key::WIRE_VERSION_MAX).map_or(Ok(VERSION_MIN), |value| value.parse());
        let wire_version_max = wire_version_max.map_err(|_| number(key::WIRE_VERSION_MAX))?;
        let links = keys.get(key::LINKS).map(String::as_str).unwrap_or_default();
        let links = links.split(',').filter_map(|name| NodeId::new(name).ok()).take(MEMBERS_MAX).collect();
        let epochs = |key: &str| {
            let text = keys.get(key).map(String::as_str).unwrap_or_default();
            text.split(',').filter_map(epoch_from).take(MEMBERS_MAX).collect()
        };
        let (suspects, stays_for) = (epochs(key::SUSPECTS), epochs(key::STAYS_FOR));
        // Builds that set no limit do not say so.
        let room = keys.get(key::ROOM).and_then(|name| room_from(name)).unwrap_or_default();
        Ok(Self { node, boot: BootId(boot), state, expires_max_s, wire_version_max, links, room, suspects, stays_for })
    }

    /// The keys that say this.
    #[must_use]
    pub fn to_keys(&self) -> BTreeMap<String, String> {
        let links: Vec<&str> = self.links.iter().map(NodeId::as_str).collect();
        let epochs = |of: &BTreeMap<NodeId, u64>| {
            let texts: Vec<String> = of.iter().map(|(node, epoch)| format!("{node}@{epoch}")).collect();
            texts.join(",")
        };
        BTreeMap::from([
            (key::BOOT.to_owned(), format!("{:016x}", self.boot.0)),
            (key::STATE.to_owned(), state_name(self.state).to_owned()),
            (key::EXPIRES_MAX_S.to_owned(), self.expires_max_s.to_string()),
            (key::WIRE_VERSION_MAX.to_owned(), self.wire_version_max.to_string()),
            (key::LINKS.to_owned(), links.join(",")),
            (key::SUSPECTS.to_owned(), epochs(&self.suspects)),
            (key::STAYS_FOR.to_owned(), epochs(&self.stays_for)),
            (key::ROOM.to_owned(), room_name(self.room).to_owned()),
        ])
    }
}

fn epoch_from(text: &str) -> Option<(NodeId, u64)> {
    let (node, epoch) = text.split_once('@')?;
    Some((NodeId::new(node).ok()?, epoch.parse().ok()?))
}

fn room_name(room: Room) -> &'static str {
    match room {
        Room::ForAll => "all",
        Room::ForKnown => "known",
        Room::ForRegistered => "registered",
    }
}

fn room_from(name: &str) -> Option<Room> {
    Room::ALL.into_iter().find(|&room| room_name(room) == name)
}

/// The name of a state, as gossip, `/v1/cluster` and the command line show it.
#[must_use]
pub fn state_name(state: PeerState) -> &'static str {
    match state {
        PeerState::Joining => "joining",
        PeerState::Ready => "ready",
        PeerState::Draining => "draining",
        PeerState::Left => "left",
    }
}

fn state_from(name: &str) -> Option<PeerState> {
    [PeerState::Joining, PeerState::Ready, PeerState::Draining, PeerState::Left]
        .into_iter()
        .find(|&state| state_name(state) == name)
}

/// The members, present and remembered; never this node itself.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Alive, as gossip has it.
    pub(super) view: BTreeMap<NodeId, Member>,
    /// This process slept since it was shown: what members are may be otherwise by now.
    pub(super) view_is_old: bool,
    /// Two members are in sync and not linked with each other.
    pub(super) shows_a_cut: bool,
    /// Once a member, and neither parted nor forgotten.
    pub(super) last_known: BTreeMap<NodeId, LastKnown>,
    /// Parted or forgotten, at which cluster time, and which process: older news of them is void.
    parted: BTreeMap<NodeId, (u64, Option<BootId>)>,
    /// Dropped from the view without a good-bye.
    pub(super) lost: BTreeSet<NodeId>,
    /// When (monotonic µs) each was last seen alive.
    alive_us: BTreeMap<NodeId, u64>,
    /// Wire versions that last-known members showed in gossip last.
    offers_shown: BTreeMap<NodeId, u8>,
    /// Wire versions that last-known members offered at least, as others say.
    offers_told: BTreeMap<NodeId, u8>,
}

impl Members {
    /// Takes a new view; gives those that vanished from it without a good-bye.
    pub(super) fn see(&mut self, view: BTreeMap<NodeId, Member>, now_us: u64) -> Vec<NodeId> {
        let vanished: Vec<NodeId> = self
            .view
            .keys()
            .filter(|node| !view.contains_key(node) && self.last_known.contains_key(node))
            .cloned()
            .collect();
        for (node, member) in &view {
            self.alive(node, now_us);
            if self.last_known.contains_key(node) {
                self.offers_shown.insert(node.clone(), member.wire_version_max);
            }
        }
        self.lost.extend(vanished.iter().cloned());
        self.shows_a_cut = shows_a_cut(&view);
        self.view_is_old = false;
        self.view = view;
        vanished
    }

    /// A member as gossip shows it, if that is not from before a sleep.
    pub(super) fn shown(&self, node: &NodeId) -> Option<&Member> {
        self.view.get(node).filter(|_| !self.view_is_old)
    }

    /// A sign of life.
    pub(super) fn alive(&mut self, node: &NodeId, now_us: u64) {
        self.lost.remove(node);
        self.alive_us.insert(node.clone(), now_us);
    }

    /// Whether a member ever showed a sign of life to this process.
    pub(super) fn was_alive(&self, node: &NodeId) -> bool {
        self.alive_us.contains_key(node)
    }

    /// How long a member has shown no sign of life; since `since_us` if it never did.
    pub(super) fn silent_us(&self, node: &NodeId, since_us: u64, now_us: u64) -> u64 {
        if self.view.contains_key(node) {
            return 0;
        }
        now_us.saturating_sub(self.alive_us.get(node).copied().unwrap_or(since_us))
    }

    /// Whether gossip shows a process that has said good-bye already. Of one that was never met, and only others heard
    /// say it, that is whichever drains.
    pub(super) fn has_parted(&self, member: &Member) -> bool {
        let leaves = member.state == PeerState::Draining;
        let unmet = self.parted.get(&member.node).is_some_and(|(_, boot)| boot.is_none());
        self.is_gone(&member.node, member.boot) || (unmet && leaves)
    }

    /// Whether this process of a node has said good-bye.
    pub(super) fn is_gone(&self, node: &NodeId, boot: BootId) -> bool {
        self.parted.get(node).is_some_and(|(_, parted)| *parted == Some(boot))
    }

    /// Whether a member parted after it was seen.
    fn parted_since(&self, known: &LastKnown, margin_us: u64) -> bool {
        let parted_us = self.parted.get(&known.node).map(|&(parted_us, _)| parted_us.saturating_add(margin_us));
        parted_us.is_some_and(|parted_us| parted_us >= known.seen_us)
    }

    /// Whether a member that another node remembers has parted, as far as is known here: gossip may have shown it there a
    /// little later, and does not show it here.
    pub(super) fn is_known_to_part(&self, known: &LastKnown) -> bool {
        !self.view.contains_key(&known.node) && self.parted_since(known, HEARSAY_MARGIN_US)
    }

    /// Whether gossip shows a member that does not leave: what others heard of its good-bye was about an earlier process,
    /// or is earlier than what gossip shows, and comes again when that shows nothing any more.
    pub(super) fn stays(&self, node: &NodeId) -> bool {
        self.view.get(node).is_some_and(|member| matches!(member.state, PeerState::Joining | PeerState::Ready))
    }

    /// Remembers a member; whether that is news for the disk. What was parted later than `seen_us` stays parted.
    pub(super) fn remember(&mut self, known: LastKnown) -> bool {
        if self.parted_since(&known, 0) {
            return false;
        }
        self.parted.remove(&known.node);
        let full = self.last_known.len() >= MEMBERS_MAX;
        match self.last_known.get_mut(&known.node) {
            None if full => false,
            None => {
                self.last_known.insert(known.node.clone(), known);
                true
            }
            Some(before) => {
                let grown = before.expires_max_s < known.expires_max_s;
                before.expires_max_s = before.expires_max_s.max(known.expires_max_s);
                before.seen_us = before.seen_us.max(known.seen_us);
                grown
            }
        }
    }

    /// What another node remembers, as against what this one saw: others may not have heard a good-bye yet.
    pub(super) fn hearsay(&mut self, known: LastKnown) -> bool {
        !self.parted_since(&known, HEARSAY_MARGIN_US) && self.remember(known)
    }

    /// Somebody parted or is forgotten: nobody waits for it. Whether that is news.
    pub(super) fn part(&mut self, node: &NodeId, boot: Option<BootId>, cluster_us: u64) -> bool {
        let news = self.last_known.remove(node).is_some();
        self.offers_shown.remove(node);
        self.offers_told.remove(node);
        self.lost.remove(node);
        if self.parted.len() < MEMBERS_MAX || self.parted.contains_key(node) {
            self.parted.insert(node.clone(), (cluster_us, boot));
        }
        news
    }

    /// Another node says that a member has offered a wire version.
    pub(super) fn tell_offer(&mut self, node: &NodeId, version: u8) {
        if self.last_known.contains_key(node) {
            let told = self.offers_told.entry(node.clone()).or_insert(version);
            *told = version.max(*told);
        }
    }

    /// The wire version that a member offered without a Hello to this process: as it showed last, else as others say.
    pub(super) fn offer_told_of(&self, node: &NodeId) -> Option<u8> {
        self.offers_shown.get(node).or_else(|| self.offers_told.get(node)).copied()
    }

    /// Whether more than half of three or more members, this node counted, are lost without a good-bye or `suspect`.
    pub(super) fn lost_most(&self, suspects: impl Iterator<Item = NodeId>) -> bool {
        let lost: BTreeSet<NodeId> = self.lost.iter().cloned().chain(suspects).collect();
        self.are_most(lost.len())
    }

    /// Whether so many are more than half of three or more members, this node counted.
    pub(super) fn are_most(&self, count: usize) -> bool {
        let members = self.last_known.len() + 1;
        members >= 3 && count * 2 > members
    }
}

/// Whether gossip shows two members that are not linked with each other, though both are in sync.
fn shows_a_cut(view: &BTreeMap<NodeId, Member>) -> bool {
    let in_sync = |member: &&Member| member.state.is_in_sync();
    view.values().filter(in_sync).any(|one| {
        let others = view.values().filter(in_sync).filter(|two| two.node != one.node);
        others.into_iter().any(|two| !one.links.contains(&two.node))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a node id")
    }

    #[test]
    fn keys_say_what_the_member_is() {
        let member = Member {
            node: id("n1"),
            boot: BootId(0xfeed),
            state: PeerState::Draining,
            expires_max_s: 7200,
            wire_version_max: 3,
            links: BTreeSet::from([id("n2"), id("n3")]),
            room: Room::ForKnown,
            suspects: BTreeMap::from([(id("n3"), 4)]),
            stays_for: BTreeMap::from([(id("n3"), 3)]),
        };
        assert_eq!(Member::from_keys(id("n1"), &member.to_keys()), Ok(member));
    }

    #[test]
    fn a_member_that_has_not_said_its_state_is_not_there_yet() {
        let keys = BTreeMap::from([("boot".to_owned(), "1".to_owned()), ("state".to_owned(), "asleep".to_owned())]);
        assert!(Member::from_keys(id("n1"), &keys).is_err());
    }

    #[test]
    fn a_process_that_only_others_heard_part_is_no_member_again_while_gossip_shows_it_drain() {
        let mut members = Members::default();
        members.part(&id("n2"), None, 20);
        let keys = |state: &str| {
            let keys = [("boot", "7"), ("state", state), ("expires_max_s", "60")];
            keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        };
        let shown = |state| Member::from_keys(id("n2"), &keys(state)).expect("a member");
        assert!(members.has_parted(&shown("draining")));
        assert!(!members.has_parted(&shown("joining")) && !members.has_parted(&shown("ready")), "the next process");
    }

    #[test]
    fn what_parted_stays_parted_until_it_is_seen_again() {
        let mut members = Members::default();
        let known = |seen_us| LastKnown { node: id("n2"), expires_max_s: 60, seen_us };
        assert!(members.remember(known(10)));
        assert!(members.part(&id("n2"), Some(BootId(7)), 20));
        assert!(!members.remember(known(15)), "older news");
        assert!(members.last_known.is_empty());
        assert!(members.remember(known(25)));
    }
}
