//! Hides the parts of an address that must not be shown.

use super::parse::decode;

/// Options with one of these parts in their names have their values hidden.
const SECRET: [&str; 6] = ["token", "pass", "secret", "key", "auth", "cred"];

/// The address without users, passwords, tokens and control characters.
pub(super) fn without_secrets(address: &str) -> String {
    let (scheme, rest) = match address.split_once("//") {
        Some((scheme, rest)) if !scheme.contains('@') => (format!("{scheme}//"), rest),
        _ => (String::new(), address),
    };
    let query = rest.find('?').unwrap_or(rest.len());
    let path = if scheme.is_empty() { rest.find(":/").map(|at| at + 1) } else { rest.find('/') };
    let path = path.unwrap_or(rest.len());
    // Unencoded characters in a user's password are hidden too. In a path alone, there is no user.
    let user = match rest[..query].rfind('@') {
        Some(at) if path == 0 || (scheme.is_empty() && path < at) => None,
        None if path < query => None,
        None => rest.rfind('@'),
        at => at,
    };
    let shown = user.map_or(rest, |at| &rest[at..]);
    let hidden = if user.is_some() { "…" } else { "" };
    let (shown, options) = shown.split_once('?').unwrap_or((shown, ""));
    let options = options.split('&').map(without_value).collect::<Vec<_>>().join("&");
    let query = if options.is_empty() { "" } else { "?" };
    let told = format!("{scheme}{hidden}{shown}{query}{options}");
    told.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

fn without_value(option: &str) -> String {
    let Some((key, _)) = option.split_once('=') else { return option.to_owned() };
    let name = decode(key).unwrap_or_else(|_| "key".to_owned()).to_lowercase();
    let is_secret = SECRET.iter().any(|part| name.contains(part)) && !name.ends_with("_file");
    if is_secret { format!("{key}=…") } else { option.to_owned() }
}

/// A text of at most `max` characters. A longer one loses its middle, since its end says what to
/// do.
pub(super) fn shortened(text: &str, max: usize) -> String {
    let length = text.chars().count();
    if length <= max {
        return text.to_owned();
    }
    let start: String = text.chars().take(max / 2).collect();
    let end: String = text.chars().skip(length - (max - max / 2 - 1)).collect();
    format!("{start}…{end}")
}

/// A part of an address in a message.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", shortened(text, 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_hidden() {
        for (address, told) in [
            ("x://u:p@h/s?token=t&k=v", "x://…@h/s?token=…&k=v"),
            ("x://u@h/s", "x://…@h/s"),
            ("x://u:p/p@h/s", "x://…@h/s"),
            ("x://u:p?p@h/s", "x://…@h/s"),
            ("u:p@h:80", "…@h:80"),
            ("x:///s?k=a@b", "x:///s?k=a@b"),
            ("x:///s?token=t&k=a@b", "x:///s?token=…&k=a@b"),
            ("x://h/s?token=t&k=a@b", "x://h/s?token=…&k=a@b"),
            ("x:///s?token_file=/t&Api%4bey=1", "x:///s?token_file=/t&Api%4bey=…"),
            ("file:///etc/a@b.json", "file:///etc/a@b.json"),
            ("unix:/run/a@b.sock", "unix:/run/a@b.sock"),
            ("dns:///a:1", "dns:///a:1"),
            ("a\0b", "a\\u{0}b"),
        ] {
            assert_eq!(without_secrets(address), told);
        }
    }

    #[test]
    fn a_long_text_loses_its_middle() {
        assert_eq!(shortened("abcdefghij", 10), "abcdefghij");
        assert_eq!(shortened("abcdefghijk", 10), "abcde…hijk");
        assert_eq!(shortened(&"ä".repeat(11), 4), "ää…ä");
    }
}
