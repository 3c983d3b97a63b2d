//! Which kind of data bytes are, by their media type.

/// Which kind of data bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Their media type says JSON.
    Json,
    /// They are surely text in UTF-8.
    Text,
    Binary,
}

/// Which kind of data bytes are. Without a media type nothing is known of them: JSON is the default of the member
/// `data` alone (CloudEvents JSON format 1.0.2, section 3.1.1). In a charset other than UTF-8 they stay bytes.
pub fn kind_of_bytes(media_type: Option<&str>, bytes: &[u8]) -> Kind {
    let Some(media_type) = media_type else { return Kind::Binary };
    if !charset(media_type).is_none_or(|it| is_utf8(it, bytes)) {
        return Kind::Binary;
    }
    if is_json_type(media_type) {
        return Kind::Json;
    }
    let essence = essence(media_type);
    let is_xml = essence.ends_with("/xml") || essence.ends_with("+xml");
    let is_text = (essence.starts_with("text/") || is_xml) && std::str::from_utf8(bytes).is_ok();
    let declared = if is_xml { xml_encoding(bytes) } else { None };
    if is_text && declared.is_none_or(|it| is_utf8(it, bytes)) { Kind::Text } else { Kind::Binary }
}

/// Whether a media type says JSON: `…/json` or `…+json`.
pub fn is_json_type(media_type: &str) -> bool {
    let essence = essence(media_type);
    let subtype = essence.rsplit_once('/').map_or("", |(_, subtype)| subtype);
    let suffix = subtype.rsplit_once('+');
    subtype == "json" || suffix.is_some_and(|(before, it)| !before.is_empty() && it == "json")
}

/// A media type without its parameters, in lower case: case does not matter in it (RFC 9110, section 8.3.1).
pub fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The parameter `charset` of a media type.
fn charset(media_type: &str) -> Option<&str> {
    let mut parameters = media_type.split(';').skip(1).filter_map(|it| it.split_once('='));
    let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Some(value.trim().trim_matches('"'))
}

/// Whether bytes of this charset are UTF-8 as they are.
fn is_utf8(charset: &str, bytes: &[u8]) -> bool {
    let is = |name: &str| charset.eq_ignore_ascii_case(name);
    is("utf-8") || is("utf8") || (is("us-ascii") || is("ascii")) && bytes.is_ascii()
}

/// The encoding that a document says of itself in its first line (XML 1.0, section 4.3.3).
fn xml_encoding(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let declaration = text.trim_start_matches('\u{feff}').strip_prefix("<?xml")?;
    let (declaration, _) = declaration.split_once("?>")?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|it| matches!(it, '"' | '\''))?;
    value[1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_is_surely_known_of_them() {
        for (media_type, bytes, kind) in [
            (None, &b"{}"[..], Kind::Binary),
            (None, b"text", Kind::Binary),
            (Some("application/json"), b"{}", Kind::Json),
            (Some("application/vnd.x+JSON; charset=\"UTF-8\""), b"{}", Kind::Json),
            (Some("application/json; charset=utf-16"), b"{}", Kind::Binary),
            (Some("application/json;charset=iso-8859-1"), b"{}", Kind::Binary),
            (Some("text/plain"), "café".as_bytes(), Kind::Text),
            (Some("text/plain"), b"caf\xe9", Kind::Binary),
            (Some("text/plain; charset=us-ascii"), b"cafe", Kind::Text),
            (Some("text/plain; charset=us-ascii"), "café".as_bytes(), Kind::Binary),
            (Some("text/plain; format=flowed; Charset = ISO-8859-1"), b"cafe", Kind::Binary),
            (Some("text/plain; charset=windows-1252"), "café".as_bytes(), Kind::Binary),
            (Some("text/plain; charset=nothing-known"), b"a", Kind::Binary),
            (Some("text/xml"), b"<?xml version='1.0' encoding='UTF-8'?><a/>", Kind::Text),
            (Some("image/svg+xml"), b"<?xml version=\"1.0\"?><a/>", Kind::Text),
            (Some("text/xml"), b"<?xml version='1.0' encoding = 'ISO-8859-1'?><a/>", Kind::Binary),
            (Some("text/html"), b"<?xml version='1.0' encoding='x'?><a/>", Kind::Text),
            (Some("application/octet-stream"), b"text", Kind::Binary),
        ] {
            assert_eq!(kind_of_bytes(media_type, bytes), kind, "{media_type:?} {bytes:?}");
        }
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for (media_type, json) in [
            ("application/json", true),
            ("Application/Vnd.X+JSON; charset=utf-8", true),
            ("text/json", true),
            ("text/xml", false),
            ("application/jsonp", false),
            ("+json", false),
            ("application/+json", false),
            ("application/€json", false),
        ] {
            assert_eq!(is_json_type(media_type), json, "{media_type}");
        }
    }
}
