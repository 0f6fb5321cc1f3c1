//! How long what a phone sends may be, and so how long the longest answer gets. Numbers only.

/// Longest Contact URI stored, bytes; a longer one is refused where a REGISTER is read.
pub const CONTACT_URI_BYTES_MAX: usize = 512;
/// Longest Contact parameters stored, all of one contact, bytes.
pub const CONTACT_PARAMS_BYTES_MAX: usize = 1024;
/// Longest Path stored, all values of one REGISTER, bytes.
pub const PATH_BYTES_MAX: usize = 1024;
/// Longest Call-ID stored, bytes.
pub const CALL_ID_BYTES_MAX: usize = 256;
/// Longest User-Agent stored, bytes; a longer one is cut.
pub const USER_AGENT_BYTES_MAX: usize = 256;

/// Largest payload of a UDP datagram over IPv4, bytes.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// What a reply carries beside its contacts, bytes: Vias, From, To, Call-ID, CSeq, Date and the status line.
const REPLY_HEADERS_BYTES: usize = 8192;
/// `Contact: <` `>;expires=4294967295` and line end.
const CONTACT_FRAME_BYTES: usize = 32;
/// `?Route=`, and every byte of Path as `%XX` in the worst case.
const ESCAPED: usize = 3;
/// Stamps, hashes, lengths, source and node id of an entry.
const ENTRY_FRAME_BYTES: usize = 256;

/// Bytes of the longest 200 to a REGISTER: all contacts, and the Path of the request.
#[must_use]
pub const fn largest_200(max_contacts: usize) -> usize {
    REPLY_HEADERS_BYTES
        + PATH_BYTES_MAX
        + max_contacts * (CONTACT_URI_BYTES_MAX + CONTACT_PARAMS_BYTES_MAX + CONTACT_FRAME_BYTES)
}

/// Bytes of the longest 302: all contacts, each with its Path as a Route header in its URI where `with_path`.
#[must_use]
pub const fn largest_302(max_contacts: usize, with_path: bool) -> usize {
    let path = if with_path { ESCAPED * PATH_BYTES_MAX } else { 0 };
    REPLY_HEADERS_BYTES + max_contacts * (CONTACT_URI_BYTES_MAX + CONTACT_PARAMS_BYTES_MAX + CONTACT_FRAME_BYTES + path)
}

/// Bytes of the largest record: an AoR with all the entries that it may have, all of them live.
#[must_use]
pub const fn largest_record(entries: usize) -> usize {
    // The key is a contact URI or an instance, which is a parameter; the URI itself stands beside it.
    let entry = CONTACT_PARAMS_BYTES_MAX
        + CONTACT_URI_BYTES_MAX
        + CONTACT_PARAMS_BYTES_MAX
        + PATH_BYTES_MAX
        + CALL_ID_BYTES_MAX
        + USER_AGENT_BYTES_MAX
        + ENTRY_FRAME_BYTES;
    aorta_proto::aor::AOR_BYTES_MAX + entries * entry
}
