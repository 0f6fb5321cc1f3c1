//! What two Aorta nodes must agree on, provable without a network: identities, stamps, the merge law, digests, frames.
//!
//! No socket, no clock, no disk and no SIP message lives here. Two nodes that merge differently disagree as surely as
//! two that encode differently; so the law stands beside the codec. `proto/README.md` gives the proofs.
//!
//! Bottom up: [`octets`] bytes as they came · `spare` memory for what is made again and again · [`hash`] fingerprints ·
//! [`stamp`] the one order · [`uri`] SIP URIs and their canonical form · [`aor`] whose contacts · [`binding`] one contact · [`record`] an AoR's contacts and how two copies merge ·
//! [`view`] what a reader sees of them · [`digest`] what two nodes compare · [`frame`] what they say.

pub mod aor;
pub mod binding;
pub mod digest;
pub mod frame;
pub mod hash;
#[doc(hidden)]
pub mod mutant;
pub mod octets;
pub mod record;
mod spare;
pub mod stamp;
pub mod uri;
pub mod view;

pub use aor::Aor;
pub use binding::{Binding, BindingParts, ContactKey};
pub use digest::{Digester, Listed};
pub use octets::Octets;
pub use record::{Cleared, Entry, Merged, Record, Refresh, Value};
pub use stamp::{BootId, NodeId, Stamp};
