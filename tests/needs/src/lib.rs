//! An attribute for tests that need a real server.
//!
//! `#[needs("consul")]` above `#[test]` or `#[tokio::test]` leaves the test out if the server is
//! missing. The run counts it as ignored and says how to install the server. If `CI` is set, the
//! test is not left out, and fails.

use proc_macro::{TokenStream, TokenTree};

/// Leaves a test out if one of the named servers is missing. See the [crate docs](crate).
///
/// Names are those of `.ci/get-servers`, or `redis-server`, `named` and `pdns_server`, which are
/// searched on `PATH`.
#[proc_macro_attribute]
pub fn needs(servers: TokenStream, test: TokenStream) -> TokenStream {
    let found: Vec<&str> = env!("SERVERS_FOUND").split(' ').collect();
    let missing: Vec<String> =
        names(servers).into_iter().filter(|name| !found.contains(&name.as_str())).collect();
    if missing.is_empty() || env!("IS_CI") == "true" {
        return test;
    }
    let missing = missing.join(" ");
    let advice =
        format!("missing: {missing} (`.ci/get-servers` gets servers, `.ci/run` installs packages)");
    let ignore: TokenStream = format!("#[ignore = {advice:?}]").parse().expect("an attribute");
    ignore.into_iter().chain(test).collect()
}

/// The string literals in `tokens`, including those passed on by a macro, which come in groups of
/// one.
fn names(tokens: TokenStream) -> Vec<String> {
    let names = tokens.into_iter().map(|token| match token {
        TokenTree::Literal(name) => vec![name.to_string().trim_matches('"').to_owned()],
        TokenTree::Group(group) => names(group.stream()),
        TokenTree::Punct(comma) if comma.as_char() == ',' => Vec::new(),
        other => panic!("`{other}` names no server: write \"consul\""),
    });
    names.flatten().collect()
}
