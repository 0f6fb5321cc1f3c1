//! A request before it has a transaction: all of it but the top Via, so that each try gets its own branch.

/// A request without its top Via.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The first line with its CRLF.
    pub start: String,
    /// All fields after the top Via, the empty line, the body.
    pub rest: String,
}

impl Text {
    /// The whole datagram, sent from `sent_by` (host:port) in the transaction `branch`.
    #[must_use]
    pub fn datagram(&self, sent_by: &str, branch: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(sent_by, branch, &mut bytes);
        bytes
    }

    /// Like [`Text::datagram`], into a buffer that is reused.
    pub fn write(&self, sent_by: &str, branch: &str, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(self.start.as_bytes());
        for part in ["Via: SIP/2.0/UDP ", sent_by, ";branch=", branch, ";rport\r\n"] {
            into.extend_from_slice(part.as_bytes());
        }
        into.extend_from_slice(self.rest.as_bytes());
    }

    /// An OPTIONS to the node itself, as an SBC probes.
    #[must_use]
    pub fn probe(node: std::net::SocketAddr, nonce: u64) -> Text {
        Text {
            start: format!("OPTIONS sip:{node} SIP/2.0\r\n"),
            rest: format!(
                "Max-Forwards: 70\r\nFrom: <sip:probe@sbc.invalid>;tag={nonce:x}\r\nTo: <sip:{node}>\r\n\
                 Call-ID: {nonce:016x}@sbc.invalid\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
            ),
        }
    }
}
