//! Text as Go's libraries write it, for entries that programs in Go read.

#[cfg(feature = "consul")]
pub(crate) mod deflate;

use serde::Serialize;

/// JSON as Go's `encoding/json` writes it: without spaces, and escaped for HTML.
pub(crate) fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    // In JSON, none of these occurs outside strings.
    const ESCAPED: [(char, &str); 5] = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    if !text.contains(ESCAPED.map(|(character, _)| character)) {
        return Ok(text);
    }
    Ok(ESCAPED.iter().fold(text, |text, (character, escaped)| text.replace(*character, escaped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_with_a_meaning_in_html_are_escaped() {
        assert_eq!(json(&"a<b>&\u{2028}é\"\n").unwrap(), r#""a\u003cb\u003e\u0026\u2028é\"\n""#);
        assert_eq!(json(&"plain").unwrap(), "\"plain\"");
    }
}
