//! A phone of the crowd as it is at the moment: the [`Phone`] of its number after its moves and restarts. Pure.

use crate::phone::{Contact, Household, Phone};

/// Of a hundred phones that would have no `+sip.instance`, so many have one all the same: only they can gain a `reg-id`.
const INSTANCES_PERCENT: u64 = 50;

/// What changes about a phone in the course of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Where it is; see [`super::belief::PORTS`].
    pub(crate) port: u8,
    /// Restarts: each gives a new Call-ID.
    pub(crate) boots: u16,
    /// Registers with a `reg-id`.
    pub(crate) reg_id: bool,
}

/// A number that is the phone's own, for what its [`Phone`] does not decide.
pub(crate) fn own_number(seed: u64, index: usize) -> u64 {
    fastrand::Rng::with_seed(seed.rotate_left(32) ^ index as u64).u64(..)
}

/// The phone `index`, of the AoR of phone `owner`, in this shape; `left` are the ports (bits) whose contacts its next
/// REGISTER removes.
pub(crate) fn phone(household: &Household, owner: usize, index: usize, shape: Shape, left: u8) -> Phone {
    let mut phone = Phone::new(household, index);
    if owner != index {
        let first = Phone::new(household, owner);
        (phone.aor, phone.aor_uri, phone.called_uri) = (first.aor, first.aor_uri, first.called_uri);
    }
    phone.contacts.truncate(1);
    let contact = &mut phone.contacts[0];
    contact.params.retain(|(name, _)| *name != "reg-id");
    if !has_instance(contact) && own_number(household.seed, index) % 100 < INSTANCES_PERCENT {
        let instance = format!("\"<urn:uuid:00000000-0000-1000-8000-{index:012x}>\"");
        contact.params.push(("+sip.instance", Some(instance)));
    }
    if shape.reg_id {
        contact.params.push(("reg-id", Some("1".to_owned())));
    }
    let first_uri = contact.uri.clone();
    contact.uri = uri_at(&first_uri, shape.port);
    phone.left = (0..super::belief::PORTS)
        .filter(|port| left >> port & 1 == 1)
        .map(|port| phone.contacts[0].moved_to(uri_at(&first_uri, port)))
        .collect();
    phone.call_id = format!("{}-{}", shape.boots, phone.call_id);
    phone
}

/// Whether a contact names its instance (RFC 5626 §4.1).
pub(crate) fn has_instance(contact: &Contact) -> bool {
    contact.params.iter().any(|(name, _)| *name == "+sip.instance")
}

/// The phone's URI after it moved.
pub(crate) fn uri_at(first: &str, port: u8) -> String {
    if port == 0 {
        return first.to_owned();
    }
    match first.rfind(":5060") {
        Some(at) => format!("{}:{}{}", &first[..at], 5060 + 10 * u16::from(port), &first[at + 5..]),
        // Behind a WebSocket there is no port: the user part changes.
        None => first.replacen("sip:", &format!("sip:m{port}."), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::phone::Ask;
    use std::collections::HashSet;

    #[test]
    fn a_phone_keeps_who_it_is_while_it_moves_restarts_and_gains_a_reg_id() {
        let household = Household::new(5);
        let (mut uris, mut instances) = (HashSet::new(), 0);
        for index in 0..500 {
            let plain = phone(&household, index, index, Shape::default(), 0);
            for port in 0..8 {
                let moved = phone(&household, index, index, Shape { port, ..Shape::default() }, 0);
                assert_eq!((&moved.aor, &moved.paths), (&plain.aor, &plain.paths));
                assert!(uris.insert(moved.contacts[0].uri.clone()), "{}", moved.contacts[0].uri);
            }
            if has_instance(&plain.contacts[0]) {
                instances += 1;
                let gained = phone(&household, index, index, Shape { reg_id: true, ..Shape::default() }, 0);
                assert_eq!(gained.contacts[0].params.len(), plain.contacts[0].params.len() + 1);
            }
            let booted = phone(&household, index, index, Shape { boots: 1, ..Shape::default() }, 0);
            assert_ne!(booted.call_id, plain.call_id);
        }
        assert!((250..350).contains(&instances), "{instances}");
    }

    #[test]
    fn what_is_left_is_removed_in_the_same_request() {
        let household = Household::new(5);
        for index in 0..200 {
            let phone = phone(&household, index, index, Shape { port: 2, ..Shape::default() }, 0b11);
            let sent = phone.register(Ask::Bind(60), 1).datagram("127.0.0.1:1", "z9hG4bK1");
            let message = Message::read(&sent).expect("well formed");
            let contacts = message.contacts().expect("contacts");
            assert_eq!(contacts.len(), 3);
            let removed: Vec<bool> = contacts.iter().map(|contact| contact.expires() == Ok(Some(0))).collect();
            assert_eq!(removed, [true, true, false], "{contacts:?}");
        }
    }
}
