//! Texts that many contacts share, kept once: User-Agents, Paths, domains, the parameters of a make of phones. It decides
//! nothing, and what a number means never changes: words are added, none is ever taken out.
//!
//! Bounded: so many words of each kind, each of so many bytes. A text becomes a word only when it is met again while few
//! others were, so that a million texts that each come once an hour never fill the places of those that all phones share.
//! What is no word costs its own bytes and nothing else. Looking up takes no lock and writes nothing shared.

use std::hash::BuildHasher as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use parking_lot::Mutex;

/// Words of one kind, at most.
pub(super) const WORDS_MAX: usize = 1024;

/// Longer texts are no words, bytes: with [`WORDS_MAX`] and the number of kinds a bound of 2 MiB.
pub(super) const WORD_BYTES_MAX: usize = 256;

/// Shorter texts are as short as the number of a word.
const WORD_BYTES_MIN: usize = 3;

/// Places of the index: twice the words, so that a search ends soon. A power of two.
const PLACES: usize = 2 * WORDS_MAX;

/// Texts that are remembered as met, at most: another one in its place makes one forgotten. A power of two.
const MET_MAX: usize = 1024;

/// So often a text is met before it is a word.
const MEETINGS: u32 = 3;

/// Bits of a place of [`Lexicon::met`] that count; the others tell the text.
const COUNT_BITS: u32 = 8;

/// What a text is. Each kind has room of its own, so that one that does not repeat takes nothing from the others. Their order
/// is that of their numbers on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The domain of an AoR.
    Domain,
    /// The parameters of a Contact, without the UUID in them.
    Params,
    /// The key of a contact that is gone, without the UUID in it.
    Key,
    /// One value of a Path.
    Path,
    /// A User-Agent.
    UserAgent,
    /// Where a REGISTER came from: few, where phones are behind an SBC.
    Source,
    /// The id of a node.
    Node,
    /// The boot id of a process.
    Boot,
}

pub(super) const KINDS: usize = 8;

impl Kind {
    const ALL: [Self; KINDS] =
        [Self::Domain, Self::Params, Self::Key, Self::Path, Self::UserAgent, Self::Source, Self::Node, Self::Boot];

    /// The one that has this number.
    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// The words of one table of contacts.
pub(in crate::location) struct Words {
    hasher: SeedableRandomState,
    kinds: [OnceLock<Lexicon>; KINDS],
}

/// The words of one kind.
struct Lexicon {
    words: Box<[OnceLock<Box<[u8]>>]>,
    /// Numbers of words, from 1, each at the place of its hash or behind it; 0 where there is none.
    index: Box<[AtomicU16]>,
    /// Who was met lately and how often, by hash.
    met: Box<[AtomicU32]>,
    /// How many words there are.
    count: Mutex<u16>,
    full: AtomicBool,
}

impl Words {
    /// Two texts that share a place are no words as long as they come in turns. Which do, depends on the key, so that who does not
    /// know it cannot choose them; and on nothing else, so that what a table tells another is the same when all is done again.
    pub(in crate::location) fn new(key: [u8; 16]) -> Self {
        let hasher = SeedableRandomState::with_seed(u128::from_le_bytes(key) as u64, SharedSeed::global_fixed());
        Self { hasher, kinds: Default::default() }
    }

    /// The number of a text, if it is a word or becomes one.
    pub(super) fn number(&self, kind: Kind, text: &[u8]) -> Option<u16> {
        if !(WORD_BYTES_MIN..=WORD_BYTES_MAX).contains(&text.len()) {
            return None;
        }
        let lexicon = self.kinds[kind as usize].get_or_init(Lexicon::new);
        let hash = self.hasher.hash_one(text);
        match lexicon.find(hash, text) {
            Ok(number) => Some(number),
            Err(_) if lexicon.meets(hash) => lexicon.add(hash, text),
            Err(_) => None,
        }
    }

    /// The text of a number that was given out for this kind.
    pub(super) fn text(&self, kind: Kind, number: u16) -> &[u8] {
        let word = self.kinds[kind as usize].get().and_then(|lexicon| lexicon.word(number));
        debug_assert!(word.is_some(), "{kind:?} {number} was never given out");
        word.unwrap_or_default()
    }
}

impl Lexicon {
    fn new() -> Self {
        Self {
            words: (0..WORDS_MAX).map(|_| OnceLock::new()).collect(),
            index: (0..PLACES).map(|_| AtomicU16::new(0)).collect(),
            met: (0..MET_MAX).map(|_| AtomicU32::new(0)).collect(),
            count: Mutex::new(0),
            full: AtomicBool::new(false),
        }
    }

    fn word(&self, number: u16) -> Option<&[u8]> {
        self.words.get(usize::from(number))?.get().map(|word| &**word)
    }

    /// The number of a word, or the place in the index where it would be.
    fn find(&self, hash: u64, text: &[u8]) -> Result<u16, usize> {
        let mut place = hash as usize % PLACES;
        loop {
            // A word is there before its number is: see `add`.
            let Some(number) = self.index[place].load(Ordering::Acquire).checked_sub(1) else { return Err(place) };
            if self.word(number) == Some(text) {
                return Ok(number);
            }
            place = (place + 1) % PLACES;
        }
    }

    /// Notes that a text was met; whether that was often enough. Two threads may lose count of each other's meetings.
    fn meets(&self, hash: u64) -> bool {
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        let who = (hash >> 32) as u32 & !((1 << COUNT_BITS) - 1);
        let place = &self.met[hash as usize % MET_MAX];
        let before = place.load(Ordering::Relaxed);
        let count = if before >> COUNT_BITS == who >> COUNT_BITS { before & ((1 << COUNT_BITS) - 1) } else { 0 } + 1;
        place.store(who | count.min(MEETINGS), Ordering::Relaxed);
        count >= MEETINGS
    }

    fn add(&self, hash: u64, text: &[u8]) -> Option<u16> {
        let mut count = self.count.lock();
        // Somebody else may have been faster.
        let place = match self.find(hash, text) {
            Ok(number) => return Some(number),
            Err(place) => place,
        };
        let number = *count;
        let free = self.words.get(usize::from(number))?;
        // Only here, under the lock, and once for each number.
        free.set(text.into()).ok()?;
        self.index[place].store(number + 1, Ordering::Release);
        *count += 1;
        self.full.store(usize::from(*count) == WORDS_MAX, Ordering::Relaxed);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met_often(words: &Words, kind: Kind, text: &str) -> Option<u16> {
        (0..MEETINGS).map(|_| words.number(kind, text.as_bytes())).last().flatten()
    }

    #[test]
    fn what_is_met_often_is_a_word_for_ever() {
        let words = Words::new([0; 16]);
        assert_eq!(words.number(Kind::UserAgent, b"phone/1.0"), None);
        let number = met_often(&words, Kind::UserAgent, "phone/1.0").expect("a word");
        for other in 0..100 {
            met_often(&words, Kind::UserAgent, &format!("phone/2.{other}"));
        }
        assert_eq!(words.number(Kind::UserAgent, b"phone/1.0"), Some(number));
        assert_eq!(words.text(Kind::UserAgent, number), b"phone/1.0");
        assert_eq!(words.number(Kind::Path, b"phone/1.0"), None, "another kind");
    }

    #[test]
    fn what_comes_round_after_many_others_never_is() {
        let words = Words::new([0; 16]);
        for _ in 0..2 * MEETINGS {
            let rare =
                (0..50 * MET_MAX).filter(|at| words.number(Kind::Source, format!("udp:{at}").as_bytes()).is_some());
            assert_eq!(rare.count(), 0);
        }
        assert!(met_often(&words, Kind::Source, "udp:192.0.2.1:5060").is_some());
    }

    #[test]
    fn there_are_so_many_and_no_more_and_none_is_too_long_or_too_short() {
        let words = Words::new([0; 16]);
        let texts: Vec<String> = (0..WORDS_MAX + 10).map(|at| format!("agent {at}")).collect();
        let numbers: Vec<_> = texts.iter().filter_map(|text| met_often(&words, Kind::UserAgent, text)).collect();
        assert!(numbers.iter().copied().eq(0..WORDS_MAX as u16));
        for (number, text) in (0..).zip(&texts[..WORDS_MAX]) {
            assert_eq!(words.text(Kind::UserAgent, number), text.as_bytes());
        }
        assert_eq!(met_often(&words, Kind::Path, &"x".repeat(WORD_BYTES_MAX + 1)), None);
        assert_eq!(met_often(&words, Kind::Path, "ab"), None);
    }

    #[test]
    fn threads_that_meet_the_same_texts_agree_on_their_numbers() {
        let words = Words::new([0; 16]);
        let texts: Vec<String> = (0..300).map(|at| format!("agent {at}")).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for text in texts.iter().cycle().take(3000) {
                        if let Some(number) = met_often(&words, Kind::UserAgent, text) {
                            assert_eq!(words.text(Kind::UserAgent, number), text.as_bytes());
                        }
                    }
                });
            }
        });
        let mut numbers: Vec<_> = texts.iter().filter_map(|text| met_often(&words, Kind::UserAgent, text)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), texts.len());
    }
}
