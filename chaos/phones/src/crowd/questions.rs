//! The work of one socket that asks one node about every AoR: INVITE, and compare. Believes nothing, changes nothing.

use std::sync::Arc;
use std::time::Instant;

use super::aor::Aor;
use super::belief::Where;
use super::heard::{Faces, hear};
use super::judgement::{FINDINGS_MAX, Finding, Judgement};
use super::share::observation;
use crate::engine::{Next, Outcome, Request, To, Work};
use crate::nodes::Nodes;
use crate::phone::Household;

/// One node's examination.
pub(super) struct Questions {
    pub(super) aors: Arc<Vec<Aor>>,
    pub(super) household: Arc<Household>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) no_binding_status: u16,
    pub(super) epoch: Instant,
    pub(super) place: usize,
    pub(super) next: usize,
    pub(super) judgement: Judgement,
}

impl Work for Questions {
    fn next(&mut self) -> Next {
        let Some(aor) = self.aors.get(self.next) else { return Next::Finished };
        let text = aor.phone(&self.household, 0, 0).called("INVITE", fastrand::u64(..));
        let tag = self.next as u64;
        self.next += 1;
        Next::Start(Request { tag, text, to: To::Node(self.place), due: None })
    }

    fn done(&mut self, outcome: &Outcome<'_>) -> Option<Request> {
        let aor = self.aors.get(outcome.tag as usize)?;
        let ms = |at: Instant| at.saturating_duration_since(self.epoch).as_millis() as u64;
        let span = (ms(outcome.began), ms(Instant::now()));
        let faces = Faces::of(aor, &self.household);
        let heard = hear(aor, &faces, outcome.reply, self.no_binding_status, span);
        let judgement = &mut self.judgement;
        judgement.asked += 1;
        judgement.right += u64::from(heard.faults.is_empty());
        for device in &aor.devices {
            match device.belief.is_where(span.1) {
                Where::Port(_) => judgement.bound += 1,
                Where::Unsure => judgement.unsure += 1,
                Where::Nowhere => {}
            }
        }
        for (fault, device, what) in heard.faults {
            if judgement.findings.len() == FINDINGS_MAX {
                judgement.more += 1;
                continue;
            }
            let at = self.epoch.elapsed();
            let seen = observation(aor, &self.household, &self.nodes, device, outcome.node, at, what);
            judgement.findings.push(Finding { fault, seen });
        }
        None
    }
}
