//! SIP on the wire: messages, transports and what is answered (RFC 3261 §7, §18, §8.2). Keeps no binding: that is
//! `location`; judges no REGISTER: that is `registrar`.

pub mod message;
pub mod transport;
pub mod uas;
