//! The judges of Aorta: a simulator over the pure rooms, a laboratory for real processes. Nothing of a node lives here.

pub mod lab;
pub mod sim;
