//! The SIP transports on real loopback sockets: who is heard, on which thread, and where replies go.

mod rig;
mod sleep;
mod tcp;
mod udp;
