//! sip
pub mod message;
