//! Real node processes under real faults: scenario files, what is done, what was seen, what it is worth. It builds no
//! networks and knows no SIP: the lab and the phones do.

pub mod fault;
pub mod scenario;
pub mod story;
pub mod verdict;
