//! The address of record: whose contacts. Canonical from the moment it exists; how a URI becomes one is in [`crate::uri`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::spare::Shared;

/// A canonical address of record, `user@domain` (RFC 3261 §10.3): user unescaped, domain in lower case, no scheme, port,
/// password or parameters, so that `sip:` and `sips:` are one. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Aor(Arc<String>);

thread_local! {
    static TEXTS: Shared<String> = const { Shared::new() };
}

/// The longest AoR, bytes; a longer one is refused where a request is read.
pub const AOR_BYTES_MAX: usize = 512;

impl Aor {
    /// Takes a text that is canonical already: one made by [`crate::uri`], or one that a peer or a snapshot holds.
    #[must_use]
    pub fn from_canonical(text: &str) -> Self {
        if text.len() > AOR_BYTES_MAX {
            return Self(Arc::new(text.to_owned()));
        }
        let assign = |made: &mut String| {
            made.clear();
            made.push_str(text);
        };
        Self(TEXTS.with(|texts| texts.make(assign, || text.to_owned())))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Aor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Aor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address of record")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Aor, E> {
                Ok(Aor::from_canonical(text))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl fmt::Display for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Aor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
