//! Aorta: a SIP location service. The table AoR → contacts, whole, in every node of a cluster behind an SBC.
//!
//! Rooms, bottom up; a room imports only from floors below it, and rooms on one floor do not import each other:
//!
//! | floor | rooms |
//! |---|---|
//! | 0 | `aorta_proto` |
//! | 1 | [`clock`] · [`config`] · [`metrics`] |
//! | 2 | [`location`] |
//! | 3 | [`registrar`] · [`redirect`] · [`replication`] · `location::snapshot` |
//! | 4 | [`sip`] · [`cluster`] · [`admin`] |
//! | 5 | [`node`] |
//! | 6 | [`cli`] |

pub mod admin;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod location;
pub mod metrics;
pub mod node;
pub mod redirect;
pub mod registrar;
pub mod replication;
pub mod sip;
