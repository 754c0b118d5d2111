//! What the parser of endpoint files accepts and what it refuses, with the position.

use std::collections::BTreeMap;

use evenkeel_core::{endpoint::Endpoint, rng::Rng};
use evenkeel_discovery::file::{Format, MAX_FILE_SIZE, parse};
use proptest::{prelude::*, test_runner::RngSeed};

const FORMATS: [Format; 3] = [Format::Json, Format::Yaml, Format::Toml];

const JSON: &str = r#"[
  {"address": "10.0.0.1:80", "weight": 3, "zone": "eu-1a", "priority": 1, "metadata": {"v": "7"}},
  {"address": "[2001:db8::1]:443"},
  {"address": "unix:/run/app.sock", "weight": 0},
  {"address": "db.internal:5432"}
]"#;

const YAML: &str = r#"# a comment
- address: 10.0.0.1:80
  weight: 3
  zone: eu-1a
  priority: 1
  metadata: { v: "7" }
- address: "[2001:db8::1]:443"
- { address: "unix:/run/app.sock", weight: 0 }
- address: db.internal:5432
"#;

const TOML: &str = r#"# a comment
[[endpoints]]
address = "10.0.0.1:80"
weight = 3
zone = "eu-1a"
priority = 1
metadata = { v = "7" }

[[endpoints]]
address = "[2001:db8::1]:443"

[[endpoints]]
address = "unix:/run/app.sock"
weight = 0

[[endpoints]]
address = "db.internal:5432"
"#;

fn endpoint(address: &str) -> Endpoint {
    address.parse().unwrap()
}

fn error(text: &str, format: Format) -> String {
    parse(text, format).unwrap_err().to_string()
}

#[test]
fn all_formats_say_the_same() {
    let expected = [
        endpoint("10.0.0.1:80").weight(3).zone("eu-1a").priority(1).metadata("v", "7"),
        endpoint("[2001:db8::1]:443"),
        endpoint("unix:/run/app.sock").weight(0),
        endpoint("db.internal:5432"),
    ];
    for (text, format) in [JSON, YAML, TOML].into_iter().zip(FORMATS) {
        assert_eq!(parse(text, format).unwrap(), expected, "{format:?}");
        assert_eq!(parse(&format!("\u{feff}{text}"), format).unwrap(), expected, "{format:?}");
    }
    assert_eq!(parse(&format!("{{\"endpoints\": {JSON}}}"), Format::Json).unwrap(), expected);
    let nested = format!("endpoints:\n{}", YAML.split_once('\n').unwrap().1);
    assert_eq!(parse(&nested, Format::Yaml).unwrap(), expected);
}

#[test]
fn an_explicitly_empty_list_is_taken_and_an_empty_text_is_not() {
    for (text, format) in
        [("[]", Format::Json), ("[]", Format::Yaml), ("endpoints = []", Format::Toml)]
    {
        assert_eq!(parse(text, format).unwrap(), [], "{format:?}");
    }
    for format in FORMATS {
        for text in ["", " \n\t\n", "\u{feff}"] {
            assert!(error(text, format).contains("empty"), "{format:?} took {text:?}");
        }
    }
    for (text, format) in [
        ("{}", Format::Json),
        ("null", Format::Json),
        ("# nothing\n", Format::Yaml),
        ("endpoints:\n", Format::Yaml),
        ("~", Format::Yaml),
        ("# nothing\n", Format::Toml),
        ("endpoints = \"\"", Format::Toml),
    ] {
        assert!(parse(text, format).is_err(), "{format:?} took {text:?}");
    }
}

#[test]
fn an_error_names_its_place() {
    for (text, format, place) in [
        ("[\n {\"address\": \"a:1\"},\n {\"address\": \"b:1\", \"wieght\": 1}]", Format::Json, 3),
        ("[\n {\"address\": \"a:1\"},\n {\"address\": \"b\"}]", Format::Json, 3),
        (
            "[\n {\"address\": \"a:1\"},\n {\"address\": \"b:1\",\n \"weight\": -1}]",
            Format::Json,
            4,
        ),
        ("[\n {\"address\": \"a:1\"},\n {\"addr", Format::Json, 3),
        ("- address: a:1\n- address: b:1\n  wieght: 1\n", Format::Yaml, 3),
        ("- address: a:1\n- address: b\n", Format::Yaml, 2),
        ("- address: a:1\n- address: b:1\n  weight: -1\n", Format::Yaml, 3),
        ("- address: a:1\n  weight: [\n", Format::Yaml, 2),
        ("[[endpoints]]\naddress = \"a:1\"\nwieght = 1\n", Format::Toml, 3),
        ("[[endpoints]]\naddress = \"a\"\n", Format::Toml, 2),
        ("[[endpoints]]\naddress = \"a:1\"\nweight = -1\n", Format::Toml, 3),
        ("[[endpoints]]\naddress = \"a:1\n", Format::Toml, 2),
    ] {
        let error = parse(text, format).unwrap_err();
        let line = error.position.map(|position| position.line);
        assert_eq!(line, Some(place), "{format:?} {text:?}: {error}");
        assert!(!error.reason.contains('\n'), "{error}");
        assert!(!error.reason.contains("line"), "the place is told once: {error}");
    }
}

#[test]
fn an_address_that_is_listed_twice_is_refused_with_both_places() {
    for (text, format, expected) in [
        (
            "[{\"address\": \"a:1\"},\n {\"address\": \"b:1\"}, {\"address\": \"a:1\"}]",
            Format::Json,
            "line 2, column 22: a:1 is listed already at line 1, column 2; remove one of the two",
        ),
        (
            "- address: a:1\n- address: b:1\n- address: a:1\n",
            Format::Yaml,
            "line 3, column 3: a:1 is listed already at line 1, column 3; remove one of the two",
        ),
        (
            "[[endpoints]]\naddress = \"a:1\"\n\n[[endpoints]]\naddress = \"a:1\"\n",
            Format::Toml,
            "line 4, column 1: a:1 is listed already at line 1, column 1; remove one of the two",
        ),
    ] {
        assert_eq!(error(text, format), expected);
    }
}

#[test]
fn a_text_that_is_too_long_is_refused_before_it_is_read() {
    let text = format!("[]{}", " ".repeat(MAX_FILE_SIZE - 2));
    assert!(parse(&text, Format::Json).is_ok());
    assert!(error(&format!("{text} "), Format::Json).contains("longer"));
}

#[test]
fn bombs_are_refused_in_bounded_time() {
    let deep = "[".repeat(100_000);
    let aliases: String = std::iter::once("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned())
        .chain(
            (1..30)
                .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))),
        )
        .collect();
    for format in FORMATS {
        assert!(parse(&deep, format).is_err());
        assert!(parse(&format!("endpoints = {deep}"), format).is_err());
        assert!(parse(&aliases, format).is_err());
    }
}

/// The fuzz target on a stable toolchain: 100,000 texts with random edits, the same on every run.
#[test]
fn no_text_makes_the_parser_panic() {
    let mut rng = Rng::with_seed(20_260_101);
    let tokens = [
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        "\"",
        "'",
        "\n",
        "  ",
        "- ",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "---\n",
        "|",
        ">",
        "=",
        "[[endpoints]]\n",
        "address",
        "endpoints",
        "weight",
        "null",
        "-1",
        "4294967296",
        "1e999",
        "\\u0000",
        "\u{0}",
        "\u{feff}",
        "é",
        "😀",
        "#",
        "\r",
        "\t",
        "~",
    ];
    let mut taken = 0;
    for round in 0..100_000 {
        let at = round % 3;
        let mut text = [JSON, YAML, TOML][at].to_owned();
        for _ in 0..=rng.below(6) {
            mutate(&mut text, &tokens, &mut rng);
        }
        // Mostly in its own format, sometimes as another.
        let format = FORMATS[if rng.below(8) == 0 { rng.below(3) } else { at }];
        match parse(&text, format) {
            Ok(_) => taken += 1,
            Err(error) => assert!(!error.reason.is_empty()),
        }
    }
    assert!((1_000..90_000).contains(&taken), "the edits are too wild or too tame: {taken}");
}

fn mutate(text: &mut String, tokens: &[&str], rng: &mut Rng) {
    let place = |text: &str, rng: &mut Rng| {
        let at = rng.below(text.len() + 1);
        (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap()
    };
    let (a, b) = (place(text, rng), place(text, rng));
    let (from, to) = (a.min(b), a.max(b));
    match rng.below(5) {
        0 => text.insert_str(from, tokens[rng.below(tokens.len())]),
        1 => text.truncate(to),
        2 => text.replace_range(from..to, ""),
        3 => {
            let copy = text[from..to].to_owned();
            text.insert_str(from, &copy);
        }
        _ => {
            if let Some(c) = text[from..].chars().next() {
                text.replace_range(from..from + c.len_utf8(), tokens[rng.below(tokens.len())]);
            }
        }
    }
    if 1_024 < text.len() {
        let cut = (0..=1_024).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        text.truncate(cut);
    }
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let one = (
        any::<u32>(),
        any::<u32>(),
        prop::option::of(any::<String>()),
        prop::collection::btree_map(any::<String>(), any::<String>(), 0..3),
    );
    prop::collection::vec(one, 0..8).prop_map(|records| {
        let endpoints =
            records.into_iter().enumerate().map(|(n, (weight, priority, zone, data))| {
                let mut endpoint = endpoint(&format!("10.0.0.1:{}", n + 1));
                endpoint = endpoint.weight(weight).priority(priority);
                if let Some(zone) = zone {
                    endpoint = endpoint.zone(zone);
                }
                data.into_iter().fold(endpoint, |endpoint, (k, v)| endpoint.metadata(k, v))
            });
        endpoints.collect()
    })
}

fn as_json(endpoint: &Endpoint) -> serde_json::Value {
    let metadata: BTreeMap<_, _> = endpoint.metadata.as_ref().clone();
    serde_json::json!({
        "address": endpoint.address.to_string(),
        "weight": endpoint.weight,
        "zone": endpoint.zone.as_deref(),
        "priority": endpoint.priority,
        "metadata": metadata,
    })
}

/// The same cases on every run.
fn seeded() -> ProptestConfig {
    ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn what_is_written_is_read(endpoints in endpoints()) {
        let list: Vec<_> = endpoints.iter().map(as_json).collect();
        let text = serde_json::to_string_pretty(&list).unwrap();

        prop_assert_eq!(parse(&text, Format::Json).unwrap(), endpoints);
    }

    #[test]
    fn yaml_and_toml_read_what_is_written(endpoints in endpoints()) {
        let mut yaml = String::from("endpoints:");
        let mut toml = String::from("endpoints = [");
        for endpoint in &endpoints {
            let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
            let zone = endpoint.zone.as_deref().map(plain).unwrap_or_default();
            let (address, weight, priority) = (&endpoint.address, endpoint.weight, endpoint.priority);
            yaml += &format!("\n  - {{address: '{address}', weight: {weight}, zone: 'z{zone}', priority: {priority}}}");
            toml += &format!("\n  {{address = '{address}', weight = {weight}, zone = 'z{zone}', priority = {priority}}},");
        }
        if endpoints.is_empty() {
            yaml += " []";
        }
        toml += "]";

        let read = parse(&yaml, Format::Yaml).unwrap();

        prop_assert_eq!(&read, &parse(&toml, Format::Toml).unwrap());
        prop_assert_eq!(read.len(), endpoints.len());
        for (read, written) in read.iter().zip(&endpoints) {
            prop_assert_eq!(&read.address, &written.address);
            prop_assert_eq!((read.weight, read.priority), (written.weight, written.priority));
        }
    }
}
