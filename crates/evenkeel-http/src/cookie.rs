//! The cookies of a request: reading those of one name, and joining their lines.

use http::{HeaderMap, HeaderValue, header};
use hyper::body::Bytes;

/// The value of the first cookie called `name`, without the quotes around it.
///
/// Bytes that are not a cookie are skipped. The size of the headers bounds the cost.
pub(crate) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    values(headers, name).next()
}

/// The values of all cookies called `name`, in the order of the request.
///
/// A browser sends several if they were set for different paths or domains (RFC 6265, section 5.4).
pub(crate) fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        let value = pair.trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(unquoted.unwrap_or(value))
    })
}

/// Joins the lines of `Cookie` to one, as a server of HTTP/1.1 expects it (RFC 9113, section 8.2.3).
pub(crate) fn join(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut line = Vec::new();
    for (count, crumb) in headers.get_all(header::COOKIE).iter().enumerate() {
        if count != 0 {
            line.extend_from_slice(b"; ");
        }
        line.extend_from_slice(crumb.as_bytes());
    }
    let line = HeaderValue::from_maybe_shared(Bytes::from(line)).expect("made of header values");
    headers.insert(header::COOKIE, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&[u8]]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, http::HeaderValue::from_bytes(line).unwrap());
        }
        value(&headers, "sid").map(<[u8]>::to_vec)
    }

    #[test]
    fn a_cookie_is_found_among_others_and_over_several_lines() {
        for lines in [
            &[&b"sid=abc"[..]][..],
            &[b"a=b; sid=abc; c=d"],
            &[b"a=b;sid=\"abc\";"],
            &[b"a=b", b"c=d;  sid = abc "],
            &[b"sid2=x; xsid=y; sid=abc; sid=later"],
        ] {
            assert_eq!(read(lines).as_deref(), Some(&b"abc"[..]), "{lines:?}");
        }
        assert_eq!(read(&[b"sid="]).as_deref(), Some(&b""[..]));
        assert_eq!(read(&[b"sid=a=b"]).as_deref(), Some(&b"a=b"[..]));
    }

    #[test]
    fn an_invalid_cookie_is_ignored() {
        for line in [&b""[..], b";;;", b"sid", b"=abc", b"SID=abc", b"\xff\xfe=;\xff"] {
            assert_eq!(read(&[line]), None, "{line:?}");
        }
        assert_eq!(read(&[b"sid=\""]).as_deref(), Some(&b"\""[..]));
    }
}
