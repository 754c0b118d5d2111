//! Reading one cookie out of a request.

use http::{HeaderMap, header};

/// The value of the first cookie called `name`, without the quotes around it.
///
/// Bytes that are no cookie are passed over. What it costs is bounded by the size of the headers.
pub(crate) fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    let value = pairs.find_map(|pair| {
        let pair = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        pair.trim_ascii_start().strip_prefix(b"=")
    })?;
    let value = value.trim_ascii();
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(unquoted.unwrap_or(value))
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
    fn what_is_no_cookie_is_passed_over() {
        for line in [&b""[..], b";;;", b"sid", b"=abc", b"SID=abc", b"\xff\xfe=;\xff"] {
            assert_eq!(read(&[line]), None, "{line:?}");
        }
        assert_eq!(read(&[b"sid=\""]).as_deref(), Some(&b"\""[..]));
    }
}
