//! No header makes the reader of cookies or hash keys panic, and no cookie names an endpoint that the
//! secret did not write.

#![no_main]

use evenkeel_http::{HashBy, RequestHead, StickyLayer};
use http::{HeaderName, HeaderValue, Request, header};
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "a secret of 16 bytes or more";

fuzz_target!(|input: (Vec<Vec<u8>>, String)| {
    let (lines, uri) = input;
    let mut request = Request::new(());
    if let Ok(uri) = uri.parse() {
        *request.uri_mut() = uri;
    }
    for line in lines.into_iter().take(64) {
        let Ok(value) = HeaderValue::from_bytes(&line) else { continue };
        request.headers_mut().append(header::COOKIE, value.clone());
        request.headers_mut().append("x-user", value);
    }

    let by = HashBy::new().header(HeaderName::from_static("x-user")).cookie("a").query("q").path();
    let hash = by.hash(RequestHead::of(&request));
    assert_eq!(hash, by.hash(RequestHead::of(&request)));

    for layer in [StickyLayer::signed(SECRET), StickyLayer::opaque(SECRET)] {
        assert_eq!(layer.name("a").endpoint(request.headers()), None, "forged");
    }
});
