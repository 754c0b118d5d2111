//! Header fields that are meant for one connection and are not passed on.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body;

use crate::error::{InvalidRequest, InvalidResponse};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The version that the next hop speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    Http1,
    Http2,
    /// Either, decided when it is connected.
    Either,
}

/// Removes from a request the fields that its caller meant for the previous hop (RFC 9110, section 7.6.1).
///
/// It keeps an upgrade to a protocol other than HTTP, the note that trailers are read, and the field that
/// says where the body ends.
///
/// # Errors
/// If the next hop could see another end of the body than this one.
pub(crate) fn clean_request(headers: &mut HeaderMap, hop: Hop) -> Result<(), InvalidRequest> {
    settle_length(headers).map_err(|unclear| match unclear {
        Unclear::Coding => InvalidRequest::TransferCoding,
        Unclear::Length => InvalidRequest::ContentLength,
    })?;
    let is_upgrade = remove_named(headers) && hop != Hop::Http2;
    let takes_trailers = headers.get_all(header::TE).iter().flat_map(tokens).any(is_trailers);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(HTTP2_SETTINGS);
    headers.remove(header::TE);
    let upgrade = headers.remove(header::UPGRADE).filter(|_| is_upgrade).and_then(other_protocols);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // HTTP/1.1 requires `Connection` to name `TE` (RFC 9110, section 10.1.4), and hyper's HTTP/2 removes
    // what is named.
    let options = match (upgrade.is_some(), takes_trailers && hop == Hop::Http1) {
        (true, true) => "upgrade, te",
        (true, false) => "upgrade",
        (false, true) => "te",
        (false, false) => return Ok(()),
    };
    headers.insert(header::CONNECTION, HeaderValue::from_static(options));
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
    }
    Ok(())
}

/// Removes from a response the fields that the endpoint meant for this hop. It keeps the protocol that
/// the endpoint switched to, or asks for.
///
/// # Errors
/// If the next hop could see another end of the body than this one.
pub(crate) fn clean_response(
    status: StatusCode,
    headers: &mut HeaderMap,
) -> Result<(), InvalidResponse> {
    settle_length(headers).map_err(|unclear| match unclear {
        Unclear::Coding => InvalidResponse::TransferCoding,
        Unclear::Length => InvalidResponse::ContentLength,
    })?;
    headers.remove(header::TRANSFER_ENCODING);
    remove_named(headers);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED) {
        if headers.contains_key(header::UPGRADE) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
    } else {
        headers.remove(header::UPGRADE);
    }
    Ok(())
}

/// Why it is not clear where a body ends.
enum Unclear {
    /// hyper decodes only the coding `chunked`. Another would lose its label on the way.
    Coding,
    /// There are two lengths, or one that is not valid.
    Length,
}

/// Leaves at most one field that says where the body ends, so that all hops see the same end.
///
/// If two hops see different ends, one takes part of a body for another message: request smuggling (RFC 9112,
/// sections 6.1, 6.3 and 11.2). A message with several lengths may come over HTTP/2, too.
fn settle_length(headers: &mut HeaderMap) -> Result<(), Unclear> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let is_chunked = codings
            .next()
            .is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() {
            return Err(Unclear::Coding);
        }
        // It overrides a length.
        headers.remove(header::CONTENT_LENGTH);
        return Ok(());
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    if !is_number || lengths.any(|length| length != first) {
        return Err(Unclear::Length);
    }
    if 1 < headers.get_all(header::CONTENT_LENGTH).iter().count() {
        let first = first.clone();
        headers.insert(header::CONTENT_LENGTH, first);
    }
    Ok(())
}

/// Sets how a body is delimited, if hyper would not do so.
///
/// `Transfer-Encoding` belonged to the previous hop. It is left out if the length is known, unless trailers
/// follow. Without it hyper would send no body with `GET`. If a method expects a body and there is none, a
/// length of zero says so (RFC 9110, section 8.6).
pub(crate) fn delimit<B: Body>(request: &mut Request<B>) {
    let was_coded = request.headers_mut().remove(header::TRANSFER_ENCODING).is_some();
    let expects_none = matches!(
        *request.method(),
        Method::GET
            | Method::HEAD
            | Method::DELETE
            | Method::OPTIONS
            | Method::TRACE
            | Method::CONNECT
    );
    let body = request.body();
    let length = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    let headers = request.headers_mut();
    if was_coded && (length.is_none() || headers.contains_key(header::TRAILER)) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else if length == Some(0) && !expects_none && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// Removes `Connection` and the fields that it names. Returns whether it names an upgrade.
fn remove_named(headers: &mut HeaderMap) -> bool {
    // The values share their bytes with the headers, and usually there are none.
    let lines: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    if lines.is_empty() {
        return false;
    }
    headers.remove(header::CONNECTION);
    let mut is_upgrade = false;
    for option in lines.iter().flat_map(tokens) {
        if option.eq_ignore_ascii_case("upgrade") {
            is_upgrade = true;
        } else if !option.eq_ignore_ascii_case("te") && !is_end_to_end(option) {
            headers.remove(option);
        }
    }
    is_upgrade
}

/// Whether `Connection` must not remove this field: it is always meant for the endpoint, or a proxy in
/// front of this one may have set it.
fn is_end_to_end(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        // A caller may not remove where a body ends or what follows it.
        "transfer-encoding",
        "trailer",
        "host",
        "authorization",
        "cookie",
        "forwarded",
        "x-real-ip",
        "traceparent",
        "tracestate",
        "cache-control",
    ];
    const PREFIXES: [&str; 4] = ["content-", "x-forwarded-", "grpc-", "x-envoy-"];
    let begins_with = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
        || PREFIXES.into_iter().any(begins_with)
}

/// The parts between commas.
fn tokens(line: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = line.to_str().unwrap_or_default();
    text.split(',').map(str::trim).filter(|token| !token.is_empty())
}

fn is_trailers(coding: &str) -> bool {
    let name = coding.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("trailers")
}

/// The protocols that a request may be upgraded to through this hop: no other version of HTTP, and not TLS.
fn other_protocols(upgrade: HeaderValue) -> Option<HeaderValue> {
    let is_other = |protocol: &&str| {
        let name = protocol.split('/').next().unwrap_or_default();
        !["http", "h2c", "h2", "tls"].iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    if tokens(&upgrade).all(|protocol| is_other(&protocol)) {
        return Some(upgrade);
    }
    let kept: Vec<&str> = tokens(&upgrade).filter(is_other).collect();
    if kept.is_empty() { None } else { HeaderValue::try_from(kept.join(", ")).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_the_coding_of_a_response_overrides_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        // Also if `Connection` names the coding.
        headers.insert(header::CONNECTION, HeaderValue::from_static("transfer-encoding"));

        clean_response(StatusCode::OK, &mut headers).unwrap();

        assert!(headers.is_empty(), "{headers:?}");
    }
}
