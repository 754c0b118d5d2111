//! An attribute for tests that need a real server.
//!
//! `#[needs("consul")]` above `#[test]` or `#[tokio::test]` leaves the test out where the server is missing: the run counts
//! it as ignored, with what to do about it. Where `CI` is set, nothing is left out and the test fails.

use proc_macro::{TokenStream, TokenTree};

/// Leaves a test out while one of the servers that it names is missing. See the [crate docs](crate).
///
/// Names are those of `.ci/get-servers`, or `redis-server`, `named` and `pdns_server`, which are looked for on `PATH`.
#[proc_macro_attribute]
pub fn needs(servers: TokenStream, test: TokenStream) -> TokenStream {
    let found: Vec<&str> = env!("SERVERS_FOUND").split(' ').collect();
    let missing: Vec<String> = servers
        .into_iter()
        .filter_map(|token| match token {
            TokenTree::Literal(name) => Some(name.to_string().trim_matches('"').to_owned()),
            _ => None,
        })
        .filter(|name| !found.contains(&name.as_str()))
        .collect();
    if missing.is_empty() || env!("IS_CI") == "true" {
        return test;
    }
    let missing = missing.join(" ");
    let advice =
        format!("missing: {missing} (`.ci/get-servers` gets servers, `.ci/run` installs packages)");
    let ignore: TokenStream = format!("#[ignore = {advice:?}]").parse().expect("an attribute");
    ignore.into_iter().chain(test).collect()
}
