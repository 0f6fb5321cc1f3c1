//! What an operator may write, and what is said about it.

use std::path::Path;

use super::{Ack, Config, KEYS, Mistake, Place, SipTransport, example};

fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    Config::parse(text, Path::new("/etc/aorta"), &[])
}

fn with(sets: &[&str]) -> Result<Config, Vec<Mistake>> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::parse("", Path::new(""), &sets)
}

/// The one mistake of a text, as an operator reads it.
fn only_mistake(text: &str) -> String {
    let mistakes = parse(text).expect_err("a mistake was expected");
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    let Mistake { place, key, why, way_out } = &mistakes[0];
    let place = match place {
        Place::Line(line) => format!("{line}"),
        other => format!("{other:?}"),
    };
    format!("{place} {key}: {why}; {way_out}")
}

#[test]
fn nothing_written_is_a_node_that_runs_alone_on_loopback() {
    let config = parse("").expect("defaults are sound");
    assert_eq!(config.cluster, None);
    assert_eq!(config.ack, Ack::All);
    assert_eq!(config.sip.listen.len(), 2);
    assert!(config.sip.listen.iter().all(|listen| listen.address.to_string() == "127.0.0.1:5060"));
    assert_eq!(config.sip.networks().len(), 2);
    assert_eq!(config.max_contacts_per_aor, 10);
    assert_eq!(config.entries_per_aor_max, 256);
    assert_eq!(config.ack_timeout_ms, 300);
    assert_eq!(config.no_binding_status, 404);
}

#[test]
fn every_key_has_a_sentence_and_a_default_that_its_own_reader_takes() {
    for key in KEYS {
        assert!(key.doc.ends_with('.') && key.doc.len() > 20, "{} has no sentence", key.name);
        let result = with(&[&format!("{}={}", key.name, key.default)]);
        assert_eq!(result, with(&[]), "{}", key.name);
    }
}

#[test]
fn the_example_file_is_what_the_table_says_and_parses_to_the_defaults() {
    let file = include_str!("../../deploy/aorta.example.toml");
    assert_eq!(parse(file), parse(""));
    assert_eq!(file, example(), "write it anew: aorta config example > deploy/aorta.example.toml");
}

#[test]
fn every_mistake_is_named_at_once_with_its_line() {
    let text = "max_contact_per_aor = 3\nack = 7\n\n[sip]\nlisten = [\"127.0.0.1:5060\", \"nowhere\"]\nretry_after_s = 1\n\
                [cluster]\nseed = []\n= 3\n";
    let mistakes = parse(text).expect_err("five mistakes");
    let found: Vec<(Place, &str)> = mistakes.iter().map(|mistake| (mistake.place, mistake.key.as_str())).collect();
    let expected = [
        (Place::Line(1), "max_contact_per_aor"),
        (Place::Line(2), "ack"),
        (Place::Line(5), "sip.listen"),
        (Place::Line(6), "sip.retry_after_s"),
        (Place::Line(8), "cluster.seed"),
        (Place::Line(9), ""),
    ];
    assert_eq!(found, expected, "{mistakes:#?}");
}

#[test]
fn an_unknown_key_names_the_nearest() {
    assert_eq!(
        only_mistake("max_contact_per_aor = 3"),
        "1 max_contact_per_aor: no such key; the nearest is max_contacts_per_aor"
    );
    assert_eq!(only_mistake("[sip]\nlisen = []"), "2 sip.lisen: no such key; the nearest is sip.listen");
    assert_eq!(only_mistake("[sip]\nack = \"all\""), "2 sip.ack: no such key; ack belongs above the first [section]");
    assert_eq!(only_mistake("sip = 3"), "1 sip: this is a section, not a key; write [sip] and its keys below");
    assert_eq!(
        only_mistake("[zzz]\nqqqqqqqq = 1"),
        "2 zzz.qqqqqqqq: no such key; `aorta config example` prints all keys"
    );
}

#[test]
fn a_value_is_taken_in_every_form_it_may_have() {
    let config = parse(
        "ack_timeout_ms = 1_000\ndomains = \"Example.COM\"\n[sip]\nlisten = [\"udp:[::1]:5070\", \"127.0.0.1\"]\n\
         [domain_aliases]\n\"127.0.0.1\" = \"example.com\"\n\"[::1]\" = \"example.com\"\n",
    )
    .expect("all of this is right");
    assert_eq!(config.ack_timeout_ms, 1000);
    assert_eq!(config.domains, ["example.com"]);
    let listen: Vec<String> = config.sip.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["udp:[::1]:5070", "udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"]);
    assert_eq!(config.sip.listen[0].transport, SipTransport::Udp);
    let alias = |host: &str| (host.to_owned(), "example.com".to_owned());
    assert_eq!(config.domain_aliases, [alias("127.0.0.1"), alias("::1")]);
    assert_eq!(config.data_dir, Path::new("/var/lib/aorta"));
}

#[test]
fn set_overrides_the_file_and_falls_back_to_text() {
    let sets: Vec<String> = [
        "ack=one",
        "sip.listen=127.0.0.1:5070",
        "no_binding_status=480",
        "not_ready_options=503",
        "domain_aliases.10.0.0.1=example.com",
        "http.token=12345",
        "data_dir=here",
    ]
    .map(str::to_owned)
    .to_vec();
    let file = "ack = \"none\"\n[domain_aliases]\n\"10.0.0.2\" = \"example.com\"";
    let config = Config::parse(file, Path::new("/srv"), &sets).expect("all of this is right");
    assert_eq!(config.ack, Ack::One);
    assert_eq!(config.sip.listen[0].address.port(), 5070);
    assert_eq!(config.no_binding_status, 480);
    assert_eq!(config.domain_aliases.len(), 2);
    assert_eq!(config.http.token.as_deref(), Some("12345"));
    assert_eq!(config.data_dir, Path::new("/srv/here"));
}

#[test]
fn a_mistaken_set_is_reported_like_one_in_the_file() {
    let mistakes = with(&["sip.lisen=1", "nothing", "ack_timeout_ms=soon"]).expect_err("three mistakes");
    let shown = super::Mistakes { file: None, list: mistakes }.to_string();
    assert_eq!(
        shown,
        "--set number 1: sip.lisen: no such key; the nearest is sip.listen\n\
         --set number 2: 'nothing' has no '='; write --set dotted.path=value\n\
         --set number 3: ack_timeout_ms: a whole number is wanted, not a text; the default is 300"
    );
}

#[test]
fn who_may_talk_must_be_said_beyond_loopback() {
    assert!(only_mistake("sip.listen = [\"0.0.0.0:5060\"]").contains("sip.allow"));
    assert!(parse("sip.listen = [\"0.0.0.0:5060\"]\nsip.allow = [\"10.0.0.0/8\"]").is_ok());
    assert!(parse("sip.listen = [\"0.0.0.0:5060\"]\nsip.allow_any = true").is_ok());
    assert!(only_mistake("sip.allow = [\"10.1.0.0/8\"]").contains("10.0.0.0/8 is meant"));
    assert!(only_mistake("http.listen = \"0.0.0.0:8060\"").contains("http.token"));
}

#[test]
fn limits_whose_largest_message_does_not_fit_a_datagram_are_refused() {
    assert!(only_mistake("max_contacts_per_aor = 13").contains("12 is the most that fits"));
    assert!(parse("max_contacts_per_aor = 13\npath_in_redirect = \"none\"").is_ok());
    let mistakes = parse("max_contacts_per_aor = 100").expect_err("neither fits");
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(only_mistake("entries_per_aor_max = 100000").contains("largest record"));
    assert!(only_mistake("entries_per_aor_max = 9").contains("raise entries_per_aor_max"));
}

#[test]
fn a_memory_limit_that_an_empty_table_exceeds_is_refused() {
    assert!(only_mistake("memory_max_mb = 7").contains("8 is the least; 0 sets no limit"));
    assert!(only_mistake("memory_max_mb = -1").contains("not between 0 and"));
    assert_eq!(parse("memory_max_mb = 8").map(|config| config.memory_max_mb), Ok(8));
    assert_eq!(parse("").map(|config| config.memory_max_mb), Ok(0));
}

#[test]
fn lifetimes_are_in_order() {
    assert!(only_mistake("expires_default_s = 9000").contains("min ≤ default ≤ max"));
    assert!(only_mistake("expires_default_s = 30").contains("min ≤ default ≤ max"));
    assert!(only_mistake("drain_grace_s = 60").contains("drain_timeout_s"));
    let hours = parse("expires_min_s = 4000\nexpires_default_s = 5000").expect("423 is another matter");
    assert_eq!(hours.expires_min_s, 4000);
}

#[test]
fn a_cluster_needs_its_files_and_an_address_that_others_can_use() {
    let files = "ca = \"ca.pem\"\ncertificate = \"n1.pem\"\nkey = \"n1.key\"\n";
    let config =
        parse(&format!("[cluster]\nlisten = \"10.0.0.1\"\nseeds = \"Aorta.svc:7061\"\n{files}")).expect("complete");
    let cluster = config.cluster.expect("there is one");
    assert_eq!(cluster.listen.to_string(), "10.0.0.1:7060");
    assert_eq!(cluster.advertise, cluster.listen);
    assert_eq!(cluster.seeds, ["aorta.svc:7061"]);
    assert_eq!(cluster.ca, Path::new("/etc/aorta/ca.pem"));
    assert!(only_mistake(&format!("[cluster]\nlisten = \"[::]:7060\"\n{files}")).contains("cluster.advertise"));
    assert!(only_mistake("[cluster]\nseeds = [\"10.0.0.1:7060\"]").contains("run alone"));
    let mistakes = parse("[cluster]\nlisten = \"10.0.0.1:7060\"").expect_err("three files are missing");
    assert_eq!(mistakes.len(), 3, "{mistakes:#?}");
}

#[test]
fn what_is_not_built_yet_is_refused_clearly() {
    assert!(only_mistake("lookup.mode = \"proxy\"").contains("not built yet"));
}

#[test]
fn no_text_makes_the_reader_panic() {
    for text in [
        "\u{0}",
        "[",
        "a = [",
        "= = =",
        "[sip\nlisten=",
        "x = 9999999999999999999999",
        "ack = nan",
        "\"",
        "a.b.c.d = 1",
        "ack.x = 1",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}
