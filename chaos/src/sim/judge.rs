//! What must hold, each a sentence. Its model is what phones sent and heard, and nothing else.

use std::collections::BTreeSet;

use aorta::location::Contact;

use super::line::{Line, Must, Off};
use super::phones::Dress;
use super::world::World;

impl World {
    /// At any time in which nothing is cut: a node that serves never denies a binding whose full 200 was sent, and never
    /// serves one whose removal was answered in full.
    pub(super) fn judge_answers(&mut self) -> Result<(), String> {
        self.news.extend(0..self.lines.len());
        self.judge_news()
    }

    /// The same of the AoRs of which something was answered just now, and of all when a node began to serve just now: what
    /// a node lacks then it often has a moment later.
    pub(super) fn judge_news(&mut self) -> Result<(), String> {
        let news = std::mem::take(&mut self.news);
        self.judge_lines(&news, |_| true)
    }

    /// A node that was cut off from most others, and gave them up, hears one that served all the time: from now on it may
    /// not answer from before.
    pub(super) fn judge_return(&mut self, met: [usize; 2]) {
        let Some(back) = self.returns.filter(|back| met.contains(back)) else { return };
        if met.iter().all(|node| self.serves(*node)) {
            let judged = self.judge_lines(&(0..self.lines.len()).collect(), |node| node == back);
            self.alarm = self.alarm.take().or(judged.err());
        }
    }

    fn judge_lines(&mut self, news: &BTreeSet<usize>, of: impl Fn(usize) -> bool) -> Result<(), String> {
        let (now_us, off, ghosts) = (self.now_us, self.off, self.judge_ghosts);
        let contacts_max = self.limits.max_contacts_per_aor;
        let lines = || news.iter().map(|at| &self.lines[*at]);
        let certain: Vec<Vec<Certain<'_>>> = lines().map(|line| certain(line, now_us, self.off)).collect();
        for (_, node) in self.nodes.iter_mut().enumerate().filter(|(node, _)| of(*node)) {
            let id = node.id.clone();
            let Some((process, now)) = node.awake(now_us) else { continue };
            let serving = process.replication.serving();
            if !serving.requests {
                continue;
            }
            let judges = Judges { denies_unknown: serving.denies_unknown, ghosts, contacts_max };
            for (line, certain) in lines().zip(&certain) {
                let has_room = |uri: &str, shown: &[&str]| !line.may_lack_room(uri, shown, now_us, off);
                process
                    .rings(&line.aor, now.cluster_us, |rings| judges.judge(rings, certain, has_room))
                    .map_err(|why| format!("{id} {why}"))?;
            }
        }
        Ok(())
    }

    /// Whether all that run are ready without reservations, and hold the same.
    pub(super) fn is_settled(&mut self) -> Result<(), String> {
        let mut root = None;
        let common = self.versions.common(|node| self.nodes[node].process.is_some());
        for node in 0..self.nodes.len() {
            let now_us = self.now_us;
            let id = self.nodes[node].id.clone();
            let Some((process, now)) = self.nodes[node].awake(now_us) else { continue };
            let readiness = process.replication.readiness(now);
            if !readiness.ready || readiness.reason.is_some() {
                return Err(format!("{id} is not ready: {}", readiness.reason.unwrap_or_default()));
            }
            let mine = process.location.root();
            if *root.get_or_insert(mine) != mine {
                return Err(format!("the digest of {id} is another one"));
            }
            let (writes, known) = (process.replication.wire_version(), process.replication.last_known());
            if writes != common && writes != self.versions.remembered(node, |node| self.nodes[node].process.is_some()) {
                let known: Vec<&str> = known.iter().map(|known| known.node.as_str()).collect();
                return Err(format!(
                    "{id}, which remembers {known:?}, writes wire version {writes}, all read {common}"
                ));
            }
        }
        Ok(())
    }

    /// All that serve show the same contacts of each AoR in the same order, no more than may be shown, hold nothing under a
    /// stamp that nobody drew, and compare nothing that is to be forgotten.
    pub(super) fn judge_agreement(&mut self) -> Result<(), String> {
        let (now_us, mut cluster_us) = (self.now_us, None);
        for (aor, line) in self.lines.iter().enumerate() {
            let mut shown = None;
            for node in &mut self.nodes {
                let id = node.id.clone();
                let Some((process, now)) = node.awake(now_us) else { continue };
                let at_us = *cluster_us.get_or_insert(now.cluster_us);
                let mine = process.lists(&line.aor, at_us);
                if mine.len() > self.limits.max_contacts_per_aor {
                    return Err(format!("{id} shows {} contacts of {}", mine.len(), line.aor.as_str()));
                }
                if *shown.get_or_insert_with(|| mine.clone()) != mine {
                    return Err(format!(
                        "{id} shows others of {} than the first: {mine:?}, {shown:?}",
                        line.aor.as_str()
                    ));
                }
                let floor_us = process.location.floor_us();
                let listed = process.location.list(line.bucket);
                if let Some(below) = listed.iter().find(|listed| listed.stamp.time_us <= floor_us) {
                    return Err(format!("{id} has {:?}, and forgets what is up to {floor_us}", below.stamp));
                }
                let record = process.location.get(&line.aor, |record| record.cloned());
                self.stamps.knows(aor, &record.unwrap_or_default()).map_err(|why| format!("{id}: {why}"))?;
            }
        }
        Ok(())
    }

    /// Somebody serves while nobody dies or is stopped: who gives way does so for another that stays.
    pub(super) fn judge_service(&self) -> Result<(), String> {
        let serves = || (0..self.nodes.len()).any(|node| self.serves(node));
        if self.somebody_must_serve && !serves() { Err("nobody serves, though nobody died".to_owned()) } else { Ok(()) }
    }

    /// Bounds that hold whatever happens.
    pub(super) fn judge_bounds(&mut self) -> Result<(), String> {
        if self.now_us < self.next_bounds_us {
            return Ok(());
        }
        self.next_bounds_us = self.now_us + BOUNDS_EVERY_US;
        let limits = self.limits;
        for node in 0..self.nodes.len() {
            let now_us = self.now_us;
            let id = self.nodes[node].id.clone();
            let Some((process, _)) = self.nodes[node].awake(now_us) else { continue };
            let (bytes, replies) = process.replication.kept();
            if bytes > limits.outbox_bytes_max.max(CHANGE_BYTES_MAX) || replies > limits.pending_replies_max {
                return Err(format!("{id} keeps {bytes} bytes for others and {replies} replies"));
            }
        }
        Ok(())
    }
}

/// What a node may answer of one AoR.
struct Judges {
    denies_unknown: bool,
    ghosts: bool,
    contacts_max: usize,
}

impl Judges {
    /// `None` where nothing is known of the AoR.
    fn judge(
        &self,
        rings: Option<&[&Contact<'_>]>,
        certain: &[Certain<'_>],
        has_room: impl Fn(&str, &[&str]) -> bool,
    ) -> Result<(), String> {
        let (known, rings) = (rings.is_some(), rings.unwrap_or_default());
        let denies = self.denies_unknown || (known && self.ghosts);
        // As many as are shown at most may have registered before it, elsewhere.
        let shown = || -> Vec<&str> {
            rings.iter().map(|contact| std::str::from_utf8(contact.uri()).unwrap_or_default()).collect()
        };
        let must_show = |uri: &str| rings.len() < self.contacts_max || has_room(uri, &shown());
        let again = |at: usize| rings[..at].iter().any(|contact| contact.uri() == rings[at].uri());
        if let Some(at) = (0..rings.len()).find(|&at| again(at)) {
            return Err(format!("serves {} twice", String::from_utf8_lossy(rings[at].uri())));
        }
        for (uri, must, dress) in certain {
            let there = rings.iter().find(|contact| contact.uri() == uri.as_bytes());
            match (*must, there) {
                (Must::Ring, None) if denies && must_show(uri) => {
                    return Err(format!("denies {uri}, which was acknowledged"));
                }
                (Must::NotRing, Some(_)) if self.ghosts => {
                    return Err(format!("serves {uri}, whose removal was acknowledged"));
                }
                (Must::Ring, Some(contact)) if self.ghosts && !is_dressed(contact, *dress) => {
                    return Err(format!("serves {uri} with the q or Path of another request"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A contact of which it is known what must be, and what it must carry, if that is known.
type Certain<'a> = (&'a str, Must, Option<Dress>);

/// The contacts of which it is known what must be.
fn certain(line: &Line, now_us: u64, off: Off) -> Vec<Certain<'_>> {
    line.musts(now_us, off).filter(|(_, must, _)| *must != Must::Either).collect()
}

/// Whether a contact carries what its phone said, and nothing else.
fn is_dressed(contact: &Contact<'_>, dress: Option<Dress>) -> bool {
    let Some(dress) = dress else { return true };
    let path = dress.path();
    contact.q() == dress.q() && contact.path().eq(path.iter().map(String::as_bytes))
}

/// Between two looks at bounds, µs.
const BOUNDS_EVERY_US: u64 = 200_000;

/// An outbox keeps one change, however small it is; changes here are smaller than this, bytes.
const CHANGE_BYTES_MAX: usize = 4_096;
