//! What an operator decides about answers. Built from the configuration by who starts the node.

use std::net::SocketAddr;

use aorta_proto::NodeId;
use aorta_proto::uri::AorRules;

use crate::config::{NotReadyOptions, PathInRedirect, PathMode};
use crate::registrar::RegistrarLimits;

/// The settings of a [`super::Uas`].
#[derive(Debug, Clone)]
pub struct UasSettings {
    /// This node, as bindings name the one that accepted them.
    pub node: NodeId,
    /// Which URIs mean which AoR.
    pub rules: AorRules,
    /// What a REGISTER may ask for.
    pub limits: RegistrarLimits,
    /// `path_mode`. A Path is stored in any case.
    pub path_mode: PathMode,
    /// `path_in_redirect`.
    pub path_in_redirect: PathInRedirect,
    /// `redirect_multiple`: 302 or 300.
    pub redirect_multiple: u16,
    /// `no_binding_status`: 404 or 480.
    pub no_binding_status: u16,
    /// `probe_users`, unescaped.
    pub probe_users: Vec<String>,
    /// `not_ready_options`.
    pub not_ready_options: NotReadyOptions,
    /// `retry_after_s`, in the 503 to OPTIONS.
    pub retry_after_s: u32,
    /// Where SIP is served: `sip.listen` as bound. The address that a request came to counts as one in any case.
    pub own_addresses: Vec<SocketAddr>,
    /// Key of To-tags, the same on every node of a cluster: then another node answers a retransmission with the same tag.
    pub tag_key: [u8; 16],
}

impl UasSettings {
    /// The defaults of the configuration, for a node of this name.
    #[must_use]
    pub fn of(node: NodeId) -> Self {
        Self {
            node,
            rules: AorRules::default(),
            limits: RegistrarLimits::default(),
            path_mode: PathMode::Lazy,
            path_in_redirect: PathInRedirect::Route,
            redirect_multiple: 302,
            no_binding_status: 404,
            probe_users: Vec::new(),
            not_ready_options: NotReadyOptions::Unavailable,
            retry_after_s: 2,
            own_addresses: Vec::new(),
            tag_key: [0; 16],
        }
    }
}
