//! The parts of an address.

use std::time::Duration;

use evenkeel_core::{BoxError, number::digits};

/// The parts of an address: `scheme://user@authority/path?key=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The address as it was written, except for the scheme.
    pub text: String,
    /// The part before the first colon, in lower case.
    pub scheme: String,
    /// The user, and a password after a colon. Decoded.
    pub user: Option<(String, Option<String>)>,
    /// The hosts, separated by commas.
    pub authority: String,
    /// The part after the hosts, without the slash between them. Decoded.
    pub path: String,
    /// The options, in their order. Decoded.
    pub options: Vec<(String, String)>,
}

impl Target {
    /// Splits an address into its parts.
    ///
    /// # Errors
    /// If it has no scheme, or an encoded character cannot be decoded.
    pub fn parse(text: &str) -> Result<Self, BoxError> {
        let (scheme, rest) = text.split_once(':').ok_or("there is no scheme")?;
        let scheme = scheme.to_ascii_lowercase();
        let text = format!("{scheme}:{rest}");
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", rest),
        };
        let is_cut = path.contains('@') || (path.is_empty() && query.contains('@'));
        if is_cut && !authority.is_empty() && !authority.contains('@') {
            return Err("in a user or a password, `/` is written %2F and `?` is written %3F".into());
        }
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let user = user.map(|user| {
            let (name, password) = match user.split_once(':') {
                Some((name, password)) => (name, Some(password)),
                None => (user, None),
            };
            Ok::<_, BoxError>((decode(name)?, password.map(decode).transpose()?))
        });
        let options = query.split('&').filter(|option| !option.is_empty()).map(|option| {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            Ok::<_, BoxError>((decode(key)?, decode(value)?))
        });
        Ok(Self {
            text,
            scheme,
            user: user.transpose()?,
            authority: authority.to_owned(),
            path: decode(path)?,
            options: options.collect::<Result<_, _>>()?,
        })
    }

    /// The values of an option that may be repeated.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(found, _)| found == key).map(|(_, value)| &**value)
    }

    /// The value of an option.
    ///
    /// # Errors
    /// If the option occurs twice.
    pub fn one(&self, key: &str) -> Result<Option<&str>, BoxError> {
        let mut values = self.options.iter().filter(|(found, _)| found == key);
        let value = values.next().map(|(_, value)| &**value);
        if values.next().is_some() {
            return Err(format!("the option `{key}` stands there twice").into());
        }
        Ok(value)
    }

    /// The value of an option that is `true` or `false`.
    ///
    /// # Errors
    /// If it is neither, or the option occurs twice.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, BoxError> {
        match self.one(key)? {
            None => Ok(None),
            Some("true" | "1" | "") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("`{key}={other}` is neither true or false").into()),
        }
    }

    /// The value of an option that is a time: `500ms`, `2s`, `1m` or `1h`.
    ///
    /// # Errors
    /// If it is not a time, or the option occurs twice.
    pub fn time(&self, key: &str) -> Result<Option<Duration>, BoxError> {
        self.one(key)?.map(time).transpose()
    }

    /// Refuses options that are not among `known`, so that a misspelt option is not ignored.
    ///
    /// # Errors
    /// If there is another option.
    pub fn only(&self, known: &[&str]) -> Result<(), BoxError> {
        match self.options.iter().find(|(key, _)| !known.contains(&&**key)) {
            None => Ok(()),
            Some((key, _)) if known.is_empty() => {
                Err(format!("there is no option `{key}`, nor any other").into())
            }
            Some((key, _)) => {
                Err(format!("there is no option `{key}`; there are {}", known.join(", ")).into())
            }
        }
    }
}

fn time(text: &str) -> Result<Duration, BoxError> {
    let error = || format!("`{text}` is no time; write 500ms, 2s, 1m or 1h");
    let end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let (number, unit) = text.split_at(end);
    let number: u32 = digits(number).ok_or_else(error)?;
    let one = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        _ => return Err(error().into()),
    };
    Ok(one * number)
}

/// Decodes `%` and two digits (RFC 3986). Errors do not contain the text, which may be a password.
pub(super) fn decode(text: &str) -> Result<String, BoxError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        // Rust would accept `+f` too.
        let hex = after.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        let decoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.ok_or("there is a `%` without two digits after it")?);
        rest = &after[2..];
    }
    let decoded = String::from_utf8(bytes).map_err(|_| "what `%` stands for is no UTF-8")?;
    if decoded.contains(char::is_control) {
        return Err(
            "what `%` stands for is a control character, such as a line break or NUL".into()
        );
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let target = Target::parse("x://u:p%40@a:1,b:2/c%2Fd?k=1&k=%26&flag").unwrap();
        assert_eq!(target.scheme, "x");
        assert_eq!(target.user, Some(("u".into(), Some("p@".into()))));
        assert_eq!((&*target.authority, &*target.path), ("a:1,b:2", "c/d"));
        assert_eq!(target.all("k").collect::<Vec<_>>(), ["1", "&"]);
        assert_eq!(target.flag("flag").unwrap(), Some(true));
        assert!(target.one("k").is_err());
        assert!(target.only(&["k"]).is_err());
        assert!(Target::parse("x:///%zz").is_err());
        assert!(Target::parse("x:///%e").is_err());
        let target = Target::parse("DNS:///A:1").unwrap();
        assert_eq!((&*target.scheme, &*target.text, &*target.path), ("dns", "dns:///A:1", "A:1"));
        assert!(Target::parse("x:///%+f").is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(time("1h").unwrap(), Duration::from_secs(3_600));
        for text in ["", "5", "s", "5 s", "-1s", "5d", "99999999999s"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
