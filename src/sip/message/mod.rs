//! SIP messages: bytes ⇄ meaning (RFC 3261 §7, §25). Pure: no socket, no clock, no decision about what to answer.
//!
//! Received bytes are read by this room's own slices-only parser; rsip gives the vocabulary of what is sent
//! ([`vocabulary`]) and is an oracle in tests. It never interprets a received message: version 0.4 reads
//! `sip:john.doe@example.com` as a URI without user and drops a second Via of one header.
//!
//! ```
//! # use aorta::sip::message::{Framing, Message, Reply, Unfolded};
//! # let datagram = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1;rport\r\nFrom: <sip:a@b>;tag=1\r\n\
//! #   To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n";
//! let text = Unfolded::new(datagram);
//! let Ok(Message::Request(request)) = Message::parse(&text, Framing::Datagram) else { panic!() };
//! let peer = "192.0.2.1:5060".parse().unwrap();
//! let reply = Reply::to(&request, peer, 200, "OK", "tag").header("Allow", "OPTIONS").finish();
//! assert!(reply.starts_with(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1;rport=5060;received=192.0.2.1\r\n"));
//! ```

mod contact;
mod framer;
mod glance;
mod headers;
mod lines;
mod parse;
mod reply;
mod request;
mod values;
mod via;
pub mod vocabulary;

pub use contact::{Contact, Contacts, Lifetime, params_without};
pub use framer::{Framed, Framer};
pub use glance::glance;
pub use headers::{Header, Headers};
pub use lines::{Name, Unfolded};
pub use parse::{Framing, HEADERS_MAX, Message, ParseError, Response};
pub use reply::{Reply, http_date, push_http_date, reuse};
pub use request::{CONTACTS_MAX, CSeq, Fault, PATHS_MAX, Party, Request};
pub use values::{List, NameAddr, clamped_u32, thousandths};
pub use via::{Via, ViaTarget};

#[cfg(test)]
mod tests;
