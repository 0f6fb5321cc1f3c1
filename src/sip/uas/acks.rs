//! `sip.ack_header`: what a 200 to a REGISTER says of the acks that it waited for. For tests, which so know what each
//! phone was promised; it decides nothing and does nothing while the key is off.
//!
//! `Aorta-Acks: got=2;asked=2;by=node1`, with `;short` when a node that may serve lacks the change, and `;partial` while
//! this node knows of members that are missing, so that it cannot say of an AoR that nobody has it. A query, and an
//! unregister that changes nothing, wait for nobody: `got=0;asked=0`.

use super::Uas;

/// How every reply ends.
const END: &[u8] = b"Content-Length: 0\r\n\r\n";

/// The acks of one reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acks {
    /// Nodes that had acked when it left.
    pub got: usize,
    /// Nodes in the ack set when the change was published.
    pub asked: usize,
    /// Fewer nodes hold the change than must.
    pub short: bool,
}

impl Uas {
    /// Writes the header into a whole reply without a body, if it is wanted; `partial` is asked only then.
    pub fn say_acks(&self, reply: &mut Vec<u8>, acks: Acks, partial: impl FnOnce() -> bool) {
        if !self.settings.ack_header || !reply.ends_with(END) {
            return;
        }
        reply.truncate(reply.len() - END.len());
        let Acks { got, asked, short } = acks;
        let flag = |name: &'static str, is: bool| if is { name } else { "" };
        let (short, partial) = (flag(";short", short), flag(";partial", partial()));
        let by = &self.settings.node;
        reply.extend(format!("Aorta-Acks: got={got};asked={asked}{short}{partial};by={by}\r\n").into_bytes());
        reply.extend(END);
    }
}
