//! One node's user agent server, message in, message out: what is answered to what. No socket, no peer.

mod lookups;
mod mutations;
mod node;
mod order;
mod registers;
mod states;
