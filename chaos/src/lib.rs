//! The judges of Aorta: a simulator over the pure rooms. Nothing of a node lives here.

pub mod sim;
