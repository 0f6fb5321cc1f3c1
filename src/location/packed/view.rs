//! A record read where the table keeps it: whoever looks up is shown texts in their places, and copies those that it
//! sends. Decides nothing: what is shown is [`aorta_proto::view`]'s, here as of an [`aorta_proto::Record`].

use aorta_proto::Stamp;
use aorta_proto::view::{self, Standing};
use smallvec::SmallVec;

use super::Previous;
use super::reader::{Bound, Passed, Reader};
use super::words::{Kind, Words};

/// What is known of an AoR.
pub struct View<'a> {
    cleared: Option<Stamp>,
    contacts: SmallVec<[Contact<'a>; CONTACTS]>,
}

/// Contacts, live and gone, of which a view needs no memory of its own.
const CONTACTS: usize = 8;

/// Bytes of the parameters of a contact that need no memory of their own.
pub(super) const PARAMS_BYTES: usize = 256;

/// One contact of an AoR. [`View::shown`] gives out no other than live ones; of one that is gone every text is empty.
pub struct Contact<'a> {
    stamp: Stamp,
    uri_hash: u64,
    is_instance: bool,
    granted: Option<(Stamp, u32)>,
    /// The rest of a binding; most of it is looked at by nobody.
    bound: Passed<'a>,
    words: &'a Words,
}

impl<'a> View<'a> {
    pub(super) fn new(mut reader: Reader<'a>, words: &'a Words) -> Self {
        let (cleared, count) = reader.cleared();
        let mut view = Self { cleared: cleared.map(|cleared| cleared.stamp), contacts: SmallVec::new() };
        let mut previous = Previous::NONE;
        for _ in 0..count {
            let head = reader.head(&previous);
            let bound = if head.granted.is_some() { reader.pass_bound() } else { Passed::default() };
            let is_instance = reader.key(&head).is_instance(words);
            let Previous { stamp, uri_hash, .. } = head.told;
            view.contacts.push(Contact { stamp, uri_hash, is_instance, granted: head.granted, bound, words });
            previous = head.told;
        }
        view
    }

    /// The contacts that count at `now_us`, cluster time, as [`aorta_proto::Record::shown`] of the same record.
    #[must_use]
    pub fn shown(&self, now_us: u64, contacts_max: usize) -> view::Shown<'_, Contact<'a>> {
        view::shown(&self.contacts, self.cleared, now_us, contacts_max)
    }
}

impl<'a> Contact<'a> {
    /// [`aorta_proto::Entry::stamp`]
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// [`aorta_proto::Binding::uri`]
    #[must_use]
    pub fn uri(&self) -> &'a [u8] {
        self.bound.uri
    }

    /// [`aorta_proto::Binding::q`]
    #[must_use]
    pub fn q(&self) -> Option<u16> {
        self.bound()?.q
    }

    /// [`aorta_proto::Binding::params`]
    #[must_use]
    pub fn params(&self) -> SmallVec<[u8; PARAMS_BYTES]> {
        let mut params = SmallVec::new();
        self.bound().into_iter().for_each(|bound| bound.params.spell(Kind::Params, self.words, &mut params));
        params
    }

    /// [`aorta_proto::Binding::path`]
    pub fn path(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        Reader::at(self.bound().map_or(&[], |bound| bound.path), self.words).path()
    }

    fn bound(&self) -> Option<Bound<'a>> {
        self.granted.map(|_| Reader::at(self.bound.bytes, self.words).bound())
    }
}

impl Standing for Contact<'_> {
    fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn uri_hash(&self) -> u64 {
        self.uri_hash
    }

    fn is_instance(&self) -> bool {
        self.is_instance
    }

    fn granted(&self) -> Option<(Stamp, u32)> {
        self.granted
    }
}
