//! The judges of Aorta: a simulator over the pure rooms, a laboratory and stories for real processes. Nothing of a node
//! lives here.

pub mod lab;
pub mod run;
pub mod sim;
