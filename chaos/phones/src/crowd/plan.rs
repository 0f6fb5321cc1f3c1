//! What a [`super::Crowd`] is told to do: how many phones, how often, in which mix. All of it seeded; it does nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::Patience;

/// Phones at most in one crowd.
pub const PHONES_MAX: usize = 1_000_000;

/// How often, out of the sum of all, a phone that is registered does what. Phones that are not, register.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// The same again, with a higher CSeq.
    pub refresh: u32,
    /// A new port: under the same instance where the phone has a `reg-id`, else the old URI is removed in the same request.
    pub moves: u32,
    /// `expires=0`.
    pub unregister: u32,
    /// `Contact: *`, which takes the other phone of the AoR along.
    pub clear: u32,
    /// A new Call-ID and CSeq 1.
    pub reboot: u32,
    /// From now on with a `reg-id` (RFC 5626); does a refresh where there is no instance, or a `reg-id` already.
    pub gain_reg_id: u32,
    /// Percent of full 200s after which the phone at once sends its next change to another node.
    pub at_once_percent: u32,
    /// Percent of 200s after which the same request comes again at another node, as from an SBC that heard nothing.
    pub again_percent: u32,
    /// Percent of calls that go to somebody who is surely not there.
    pub calls_to_nobody_percent: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Mix {
            refresh: 55,
            moves: 15,
            unregister: 12,
            clear: 3,
            reboot: 8,
            gain_reg_id: 7,
            at_once_percent: 5,
            again_percent: 5,
            calls_to_nobody_percent: 15,
        }
    }
}

/// A crowd.
#[derive(Debug, Clone)]
pub struct CrowdPlan {
    /// Phones, at most [`PHONES_MAX`]. An AoR has one or two.
    pub phones: usize,
    /// Decides who the phones are and what they do next.
    pub seed: u64,
    /// REGISTERs a second, over all phones, whatever the answers.
    pub per_second: u32,
    /// INVITEs a second.
    pub calls_per_second: u32,
    /// Seconds that phones ask for.
    pub expires_s: u32,
    /// Percent of phones that ask for [`CrowdPlan::short_expires_s`] and never refresh: their bindings lapse.
    pub short_lived_percent: u32,
    /// Seconds that those ask for; the nodes must run with an `expires_min_s` no larger.
    pub short_expires_s: u32,
    /// Percent of AoRs with two phones.
    pub second_phone_percent: u32,
    /// Domain of all AoRs, in lower case.
    pub domain: String,
    /// What phones do.
    pub mix: Mix,
    /// What an INVITE for nobody gets: 404 or 480.
    pub no_binding_status: u16,
    /// An SBC, such as Kamailio, that takes the calls instead of the nodes and follows their redirects itself.
    pub via: Option<SocketAddr>,
    /// How long requests wait for whom.
    pub patience: Patience,
    /// Time between two OPTIONS to a node.
    pub probe_every: Duration,
    /// Sockets, each with a task and a part of the phones of its own.
    pub sockets: usize,
    /// Requests in flight per socket while the phones register as fast as they can.
    pub fill_window: usize,
}

impl CrowdPlan {
    /// So many phones at 2000 REGISTERs and 200 calls a second.
    #[must_use]
    pub fn new(phones: usize, seed: u64) -> Self {
        CrowdPlan {
            phones,
            seed,
            per_second: 2000,
            calls_per_second: 200,
            expires_s: 1800,
            short_lived_percent: 5,
            short_expires_s: 4,
            second_phone_percent: 10,
            domain: "crowd.test".to_owned(),
            mix: Mix::default(),
            no_binding_status: 404,
            via: None,
            patience: Patience {
                t1: Some(Duration::from_millis(250)),
                attempt: Duration::from_millis(700),
                whole: Duration::from_secs(4),
                failover: true,
                marks: true,
                pause: Duration::from_millis(100),
            },
            probe_every: Duration::from_millis(250),
            sockets: 2,
            fill_window: 64,
        }
    }
}
