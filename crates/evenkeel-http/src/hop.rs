//! Header fields that are meant for one connection, and go no further.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body;

use crate::error::{InvalidRequest, InvalidResponse};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Which version the next hop speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    Http1,
    Http2,
    /// The one or the other, as is found out when it is connected.
    Either,
}

/// Takes out of a request what its caller told the previous hop (RFC 9110, section 7.6.1).
///
/// What stays is an upgrade to another protocol than HTTP, that trailers are read, and what says where the body ends.
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
    // HTTP/1.1 wants `TE` to be named (RFC 9110, section 10.1.4), and hyper's HTTP/2 takes away what is.
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

/// Takes out of a response what the endpoint told this hop. Which protocol it switched to, or asks
/// for, stays.
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
    /// hyper takes off the coding `chunked` alone, and another would lose its label on the way.
    Coding,
    /// There are two lengths, or none that is one.
    Length,
}

/// Leaves one field at most that says where the body ends, so that all on its way see the same end.
///
/// Two that see different ends take part of a body for a message of its own: request smuggling (RFC 9112,
/// sections 6.1, 6.3 and 11.2). Over HTTP/2 as well a message may come with several lengths.
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

/// Says how a body is delimited, where hyper would not say it.
///
/// `Transfer-Encoding` was the previous hop's: it is left out where the length is known, unless trailers
/// follow. Without it hyper would send no body with `GET`. A method that expects a body is told if there
/// is none (RFC 9110, section 8.6).
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

/// Removes `Connection` and the fields that it names. Whether it names an upgrade.
fn remove_named(headers: &mut HeaderMap) -> bool {
    // The values share their bytes with the headers, and mostly there is none.
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

/// Whether `Connection` must not take this field away: it is meant for the endpoint whatever a caller
/// says, or a proxy in front of this one may have set it.
fn is_end_to_end(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        // Where a body ends, and what comes behind it, is not for a caller to take away.
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

/// What a request may be upgraded to without this hop: not another version of HTTP, nor TLS.
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
        // Also where the coding is among what `Connection` takes away.
        headers.insert(header::CONNECTION, HeaderValue::from_static("transfer-encoding"));

        clean_response(StatusCode::OK, &mut headers).unwrap();

        assert!(headers.is_empty(), "{headers:?}");
    }
}
