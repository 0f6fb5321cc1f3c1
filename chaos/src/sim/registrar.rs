//! The SIP side of a simulated node: a REGISTER as text, through the real parser of contacts, the real judge, the real
//! table, in the order in which `sip::uas` does it. Decides nothing itself.

use std::cell::Cell;

use aorta::clock::Now;
use aorta::location;
use aorta::registrar::{
    ContactWish, Contacts, Expires, Judged, Listed, Refusal, RegisterRequest, Write, judge, list, register,
};
use aorta::replication::{Effects, Slot};
use aorta::sip::message::{Contact, Lifetime};
use aorta_proto::hash::call_id_hash;
use aorta_proto::mutant::{Mutant, is};
use aorta_proto::{Aor, Entry, NodeId, Record};

use super::node::Process;
use super::phones::Register;

/// What a simulated node answers.
pub(super) enum Answer {
    /// 503: another node may do better.
    TryAnother,
    /// 4xx.
    Refused(Refusal),
    /// 200, at once.
    Ok,
    /// 200, once [`Effects::released`] says so.
    AfterAcks(Effects<u64>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TryAnother => f.write_str("503"),
            Self::Refused(refusal) => write!(f, "{} {}", refusal.status(), refusal.phrase()),
            Self::Ok => f.write_str("200"),
            Self::AfterAcks(_) => f.write_str("200 after acks"),
        }
    }
}

impl Process {
    /// Takes a REGISTER; `reply` names the answer that may have to wait. A node that judges and writes at two moments
    /// judges on what it saw before.
    pub(super) fn register(
        &self,
        id: &NodeId,
        aor: &Aor,
        register: &Register,
        judged_on: Option<&Record>,
        reply: u64,
        now: Now,
    ) -> Result<Answer, String> {
        if !self.replication.serving().requests {
            return Ok(Answer::TryAnother);
        }
        let values = register.contacts.iter().filter(|value| *value != "*");
        let contacts: Result<Vec<Contact<'_>>, _> = values.map(|value| Contact::parse(value.as_bytes())).collect();
        let contacts = contacts.map_err(|fault| format!("{fault:?}: {:?}", register.contacts))?;
        let wishes: Vec<ContactWish<'_>> = contacts.iter().map(wish).collect();
        let contacts = if wishes.is_empty() { Contacts::Star } else { Contacts::List(&wishes) };
        let path = register.dress.path();
        let path: Vec<&[u8]> = path.iter().map(|value| value.as_bytes()).collect();
        let request = RegisterRequest {
            call_id: register.call_id.as_bytes(),
            call_id_hash: call_id_hash(register.call_id.as_bytes()),
            cseq: register.cseq,
            contacts,
            expires: register.expires,
            path: &path,
            user_agent: b"simulated",
            source: b"udp:192.0.2.1:5060",
            node: id,
        };
        let Some(slot) = self.replication.reserve() else { return Ok(Answer::TryAnother) };
        self.write(aor, (&request, judged_on), slot, reply, now)
    }

    fn write(
        &self,
        aor: &Aor,
        (request, judged_on): (&RegisterRequest<'_>, Option<&Record>),
        slot: Slot,
        reply: u64,
        now: Now,
    ) -> Result<Answer, String> {
        let drawn = Cell::new(None);
        let draw = || {
            let stamp = self.clock.draw();
            drawn.set(Some(stamp));
            self.drawn.set(Some(stamp));
            stamp
        };
        let judged = match judged_on {
            None => register(&self.location, aor, request, now.cluster_us, &self.limits, draw),
            Some(record) => {
                let judged = |_: &Record| judge(request, record, now.cluster_us, &self.limits, draw);
                self.location.update(aor, judged, Judged::delta)
            }
        };
        match judged {
            Judged::Refused(Refusal::StampBehind) => Err("what it holds is ahead of its time".into()),
            Judged::Refused(refusal) => Ok(Answer::Refused(refusal)),
            Judged::Accepted { write, bindings } => {
                judge_listed(request, &bindings)?;
                if matches!(write, Write::Again(_)) && drawn.get().is_some() {
                    return Err("a retransmission drew a stamp".into());
                }
                let Some(delta) = write.published() else { return Ok(Answer::Ok) };
                Ok(Answer::AfterAcks(self.replication.publish(slot, aor, &delta, reply, now)))
            }
        }
    }

    /// A live contact of an AoR.
    pub(super) fn contact(&self, aor: &Aor, which: usize, now_us: u64) -> Option<Entry> {
        self.location.get(aor, |record| {
            let live: Vec<&Entry> = record?.live(now_us).collect();
            live.get(which % live.len().max(1)).map(|entry| (*entry).clone())
        })
    }

    /// Removes a contact that no phone or person asked to remove: it is gone unless somebody wrote it since.
    pub(super) fn remove_silent(&self, aor: &Aor, judged: &Entry, reply: u64, now: Now) -> Option<Effects<u64>> {
        let slot = self.replication.reserve()?;
        let fresh = is(Mutant::MachineRemovalFresh);
        self.drawn.set(fresh.then(|| self.clock.draw()));
        let removal = judged.gone_at(self.drawn.get().unwrap_or_else(|| judged.stamp.machine_made()));
        let delta = Record::from(removal);
        self.location.update(aor, |_| &delta, |delta| Some(delta));
        Some(self.replication.publish(slot, aor, &delta, reply, now))
    }

    /// Shows what a caller is sent to; `None` when nothing is known of the AoR.
    pub(super) fn rings<T>(
        &self,
        aor: &Aor,
        now_us: u64,
        show: impl FnOnce(Option<&[&location::Contact<'_>]>) -> T,
    ) -> T {
        let contacts_max = self.limits.max_contacts_per_aor;
        self.location.look_up(aor.as_str(), |view| {
            let shown = view.map(|view| view.shown(now_us, contacts_max));
            show(shown.as_deref())
        })
    }

    /// What a 200 would list.
    pub(super) fn lists(&self, aor: &Aor, now_us: u64) -> Vec<Listed> {
        let listed = |record: &Record| list(record, now_us, &self.limits).into_vec();
        self.location.get(aor, |record| record.map(listed)).unwrap_or_default()
    }
}

/// A 200 lists what it registers (RFC 3261 §10.3 step 8).
fn judge_listed(request: &RegisterRequest<'_>, bindings: &[Listed]) -> Result<(), String> {
    let Contacts::List(wishes) = &request.contacts else { return Ok(()) };
    for wish in wishes.iter().filter(|wish| wish.expires != Expires::Seconds(0)) {
        if !bindings.iter().any(|listed| listed.binding.uri() == wish.uri) {
            return Err(format!("a 200 does not list {}, which it registers", String::from_utf8_lossy(wish.uri)));
        }
    }
    Ok(())
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
