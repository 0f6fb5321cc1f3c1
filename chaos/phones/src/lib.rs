//! SIP phones, a small SBC and load: what tests, the demo and the chaos runs hold against real nodes.
//!
//! It imports no code of Aorta, its parser and its wire types included: a judge must not share the bugs of the judged.
//! It talks to loopback addresses only, bounds everything it counts or waits for, and believes only SIP that was sent
//! and received.
//!
//! * [`Phone`]: who a phone is and what it sends, a function of (seed, index).
//! * [`Fleet`]: N phones, what each was told, closed-loop load with failover; judges every answer.
//! * [`Crowd`]: phones that remember what they were told, under open-loop load while nodes break.
//! * [`Sbc`] and [`Edge`]: calls through the nodes, by their redirects, to the place where the phones are.
//! * [`judges`]: what a cluster must do.
//! * [`engine`]: one socket and its transactions, for load of your own ([`engine::Work`]).
//! * [`message`], [`verdict`]: the strict reader and the comparison with what was sent.
//!
//! ```no_run
//! # async fn example(nodes: &[std::net::SocketAddr]) -> anyhow::Result<()> {
//! use aorta_phones::{Fleet, Household, Turn, judges};
//! let mut fleet = Fleet::new(Household::new(42), 10_000);
//! let report = fleet.register(3600, nodes).await?;
//! anyhow::ensure!(report.is_clean(), "{report}");
//! for (node, report) in judges::everyone_answers_for_all(&mut fleet, nodes, Turn::Lookup).await? {
//!     anyhow::ensure!(report.is_clean(), "{node}: {report}");
//! }
//! # Ok(())
//! # }
//! ```

pub mod crowd;
pub mod edge;
pub mod engine;
pub mod fleet;
pub mod judges;
pub mod message;
pub mod nodes;
pub mod phone;
pub mod request;
pub mod sbc;
pub mod stats;
mod sweep;
mod transaction;
mod value;
pub mod verdict;

pub use crowd::{Crowd, CrowdPlan};
pub use edge::Edge;
pub use fleet::{Fleet, Load, Pace, Report, Turn};
pub use nodes::Nodes;
pub use phone::{Household, Phone};
pub use sbc::{Call, Calls, Sbc, Timers};
pub use stats::Stats;
pub use verdict::{Mismatch, Mismatches};
