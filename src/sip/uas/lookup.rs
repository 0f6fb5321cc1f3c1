//! Requests for an AoR: where the caller is sent (RFC 3261 §8.3). Finds nothing itself.

use aorta_proto::uri::{AorError, Uri, aor_text};
use smallvec::SmallVec;

use super::counts::LookedUp;
use super::{Answer, Asked};
use crate::location::View;
use crate::redirect::{self, Found, Lookup};
use crate::sip::message::Fault;

/// What may be asked of the node itself. INVITE and the like need somebody to ring.
const NODE_METHODS: &str = "REGISTER, OPTIONS, CANCEL, ACK";

impl Asked<'_, '_> {
    /// 302, 300, or why not. One question to the table; nothing is written and nothing is kept.
    pub(super) fn look_up<S>(&self, uri: &Uri<'_>) -> Answer<S> {
        self.find(uri, |found| self.redirect(found)).unwrap_or_else(|error| {
            self.uas.counts.looked_up(LookedUp::Refused);
            self.no_aor(error)
        })
    }

    fn redirect<S>(&self, found: Found<'_>) -> Answer<S> {
        let settings = &self.uas.settings;
        match found {
            Found::Contacts(contacts) => {
                self.uas.counts.looked_up(LookedUp::Redirected);
                let mut reply = match contacts.len() {
                    1 => self.reply(302, "Moved Temporarily"),
                    _ if settings.redirect_multiple == 300 => self.reply(300, "Multiple Choices"),
                    _ => self.reply(302, "Moved Temporarily"),
                };
                for contact in contacts {
                    let write = |line: &mut Vec<u8>| redirect::push_contact(line, contact, settings.path_in_redirect);
                    reply = reply.header_with("Contact", write);
                }
                self.send(reply)
            }
            Found::Nobody | Found::NoSecureContact if !self.moment.serving.absence => {
                self.uas.counts.looked_up(LookedUp::NotReady);
                self.fault(Fault { status: 503, reason: "Service Unavailable" })
            }
            Found::NoSecureContact => {
                self.uas.counts.looked_up(LookedUp::NoBinding);
                self.fault(Fault { status: 480, reason: "No Secure Contact" })
            }
            Found::Nobody => {
                self.uas.counts.looked_up(LookedUp::NoBinding);
                self.fault(match settings.no_binding_status {
                    480 => Fault { status: 480, reason: "Temporarily Unavailable" },
                    _ => Fault { status: 404, reason: "Not Found" },
                })
            }
        }
    }

    /// Whether the AoR that `uri` means has a live contact.
    pub(super) fn has_contact(&self, uri: &Uri<'_>) -> bool {
        self.find(uri, |found| matches!(found, Found::Contacts(_))).unwrap_or_default()
    }

    /// What `uri` leads to, shown to `read` where the table keeps it: under a lock.
    fn find<T>(&self, uri: &Uri<'_>, read: impl FnOnce(Found<'_>) -> T) -> Result<T, AorError> {
        let settings = &self.uas.settings;
        let aor = aor_text(uri, &settings.rules)?;
        let mut own_ports = SmallVec::<[u16; 8]>::from_slice(&[self.flow.local.port()]);
        own_ports.extend(settings.own_addresses.iter().map(std::net::SocketAddr::port));
        let lookup = Lookup {
            request_uri: uri,
            aor: aor.as_str(),
            rules: &settings.rules,
            own_ports: &own_ports,
            contacts_max: settings.limits.max_contacts_per_aor,
        };
        let now_us = self.moment.now.cluster_us;
        let find =
            |view: Option<&View<'_>>| read(view.map_or(Found::Nobody, |view| redirect::find(&lookup, view, now_us)));
        Ok(self.uas.location.look_up(aor.as_str(), find))
    }

    fn no_aor<S>(&self, error: AorError) -> Answer<S> {
        match error {
            AorError::Scheme | AorError::NoTelDomain => {
                self.fault(Fault { status: 416, reason: "Unsupported URI Scheme" })
            }
            AorError::NoUser => self.send(self.reply(405, "Method Not Allowed").header("Allow", NODE_METHODS)),
            AorError::ForeignDomain => self.fault(Fault { status: 404, reason: "Domain Not Served" }),
            AorError::TooLong => self.fault(Fault { status: 414, reason: "Request-URI Too Long" }),
        }
    }
}
