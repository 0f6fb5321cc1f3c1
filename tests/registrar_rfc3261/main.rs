//! The registrar against RFC 3261 §10.3, one test a MUST, and against what this cluster adds to it. No socket, no message.

mod desk;
mod histories;
mod keys;
mod lacking;
mod limits;
mod order;
mod steps;
mod trails;
