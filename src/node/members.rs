//! Members that are remembered over restarts: who, and where they were. Knows no disk: the bytes are kept by others.

use std::net::SocketAddr;

use aorta_proto::frame::LastKnown;
use serde::{Deserialize, Serialize};

/// The version of the form in which members are kept.
const MEMBERS_VERSION: u8 = 1;

/// Most bytes of kept members: some hundred names.
const MEMBERS_BYTES_MAX: usize = 1 << 20;

/// A member that is remembered, and where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptMember {
    /// What replication remembers.
    pub(super) known: LastKnown,
    /// Where it is dialled, if gossip ever said so.
    pub(super) address: Option<SocketAddr>,
}

/// The bytes that a snapshot keeps of these members.
pub(super) fn encode(members: &[KeptMember]) -> Vec<u8> {
    let mut bytes = vec![MEMBERS_VERSION];
    // Cannot fail: plain fields into memory.
    bytes.extend(bincode::serde::encode_to_vec(members, bincode::config::standard()).unwrap_or_default());
    bytes
}

/// The members that a snapshot kept; none where the bytes are of another version or damaged, which is said.
pub(super) fn decode(bytes: &[u8]) -> Vec<KeptMember> {
    let config = bincode::config::standard().with_limit::<MEMBERS_BYTES_MAX>();
    let decoded = match bytes {
        [MEMBERS_VERSION, rest @ ..] => bincode::serde::decode_from_slice::<Vec<KeptMember>, _>(rest, config)
            .ok()
            .filter(|(_, used)| *used == rest.len())
            .map(|(members, _)| members),
        _ => None,
    };
    decoded.unwrap_or_else(|| {
        tracing::error!("the members kept on disk cannot be read; this node starts as if it knew none");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use aorta_proto::NodeId;

    use super::*;

    #[test]
    fn members_are_read_as_they_were_kept() {
        let known = LastKnown { node: NodeId::new("n1").expect("a node id"), expires_max_s: 7200, seen_us: 12_345 };
        let members = vec![KeptMember { known, address: "[::1]:7060".parse().ok() }];
        assert_eq!(decode(&encode(&members)), members);
        assert_eq!(decode(&[]), []);
        assert_eq!(decode(&[9, 1, 2]), []);
        let mut longer = encode(&members);
        longer.push(0);
        assert_eq!(decode(&longer), []);
    }
}
