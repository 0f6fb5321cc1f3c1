//! The SIP transports on real loopback sockets: who is heard, on which thread, and where replies go.

mod rig;
mod tcp;
mod udp;
