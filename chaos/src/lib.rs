//! The judges of Aorta: a simulator over the pure rooms, real processes under real faults. Nothing of a node lives here.

pub mod lab;
pub mod run;
pub mod sim;
