//! Bytes as nobody wrote them.

use proptest::prelude::*;

/// Something done to bytes.
#[derive(Debug, Clone)]
pub(in crate::location) enum Harm {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Cut(prop::sample::Index),
}

pub(in crate::location) fn harms() -> impl Strategy<Value = Vec<Harm>> {
    let bytes = || prop_oneof![any::<u8>(), Just(0xff), Just(0x80), Just(0)];
    let harm = prop_oneof![
        6 => (any::<prop::sample::Index>(), bytes()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        3 => (any::<prop::sample::Index>(), bytes()).prop_map(|(at, byte)| Harm::Insert(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Harm::Cut),
    ];
    prop::collection::vec(harm, 1..8)
}

pub(in crate::location) fn harm(harms: Vec<Harm>, bytes: &mut Vec<u8>) {
    for harm in harms {
        match harm {
            Harm::Set(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            Harm::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), byte),
            Harm::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Harm::Set(..) => {}
        }
    }
}
