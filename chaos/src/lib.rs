//! The judges of Aorta: a simulator over the pure rooms, real processes under real faults, and the benchmark. Nothing of a node lives here.

pub mod bench;
mod host;
mod kamailio;
pub mod lab;
mod program;
pub mod run;
pub mod sim;
