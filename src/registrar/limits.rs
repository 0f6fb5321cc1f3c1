//! What a REGISTER may ask for, and how long a contact lives. Numbers only; the configuration file is read elsewhere.

use aorta_proto::Record;

use super::{Expires, Refusal};
use crate::location::Room;

/// RFC 3261 §10.3 step 7: a lifetime of an hour or more is never too brief, whatever `expires_min_s` says.
const NEVER_TOO_BRIEF_S: u32 = 3600;

/// Limits of the registrar: from the configuration, but for how much room there is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistrarLimits {
    /// Shorter lifetimes are refused with 423, seconds.
    pub expires_min_s: u32,
    /// Granted when none, or nonsense, is asked for, seconds.
    pub expires_default_s: u32,
    /// The longest lifetime granted, seconds.
    pub expires_max_s: u32,
    /// Live contacts of an AoR.
    pub max_contacts_per_aor: usize,
    /// Live and dead entries of an AoR: what a churning phone can make this node remember.
    pub entries_per_aor_max: usize,
    /// Which AoRs may have a contact more.
    pub room: Room,
}

impl Default for RegistrarLimits {
    fn default() -> Self {
        Self {
            expires_min_s: 60,
            expires_default_s: 3600,
            expires_max_s: 7200,
            max_contacts_per_aor: 10,
            entries_per_aor_max: 256,
            room: Room::ForAll,
        }
    }
}

impl RegistrarLimits {
    /// Whether memory has room for a contact more of an AoR of which `record` is known.
    pub(super) fn has_room_for(&self, record: &Record, now_us: u64) -> bool {
        match self.room {
            Room::ForAll => true,
            Room::ForKnown => !record.is_empty(),
            Room::ForRegistered => record.live(now_us).next().is_some(),
        }
    }

    /// The lifetime to grant, seconds; 0 removes. The Contact's parameter beats the header, which beats the default;
    /// nonsense means the default; what is longer than allowed is shortened, nothing is ever lengthened (§10.3 step 7).
    ///
    /// # Errors
    /// [`Refusal::TooBrief`] when it is above 0, below the least, and below an hour.
    pub fn grant(&self, parameter: Expires, header: Expires) -> Result<u32, Refusal> {
        let asked = if parameter == Expires::Absent { header } else { parameter };
        match asked {
            Expires::Absent | Expires::Malformed => Ok(self.expires_default_s.min(self.expires_max_s)),
            Expires::Seconds(seconds) if 0 < seconds && seconds < self.expires_min_s.min(NEVER_TOO_BRIEF_S) => {
                Err(Refusal::TooBrief { expires_min_s: self.expires_min_s })
            }
            Expires::Seconds(seconds) => Ok(seconds.min(self.expires_max_s)),
        }
    }
}
