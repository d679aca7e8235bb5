//! Text that a terminal, a file or a log can show: what does not print is spelled out.
//!
//! Pure. Strangers write names, reasons and messages. A control character steers a terminal, a
//! bidirectional one turns a line around, a line separator begins another line, and what has no
//! width hides.

use std::borrow::Cow;
use std::fmt::Write;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Whether a character leaves ink: a letter, mark, number, punctuation or symbol that is not
/// invisible by nature; or a plain space.
#[must_use]
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return c == ' ' || c.is_ascii_graphic();
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let blank = GeneralCategoryGroup::Other.union(GeneralCategoryGroup::Separator);
    let invisible = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    !blank.contains(category) && !invisible.contains(c)
}

/// Text as a part of a line: `\n`, `\u{202e}`.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_printable, |c, escaped| {
        escaped.extend(c.escape_default());
    })
}

/// Text of several lines, each as [`visible`].
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    let stays = |c| c == '\n' || is_printable(c);
    escaped(text, stays, |c, escaped| escaped.extend(c.escape_default()))
}

/// A line that was coloured; what strangers wrote in it has no escape character any more.
#[must_use]
pub fn coloured(text: &str) -> Cow<'_, str> {
    let stays = |c| c == '\u{1b}' || is_printable(c);
    escaped(text, stays, |c, escaped| escaped.extend(c.escape_default()))
}

/// JSON, in one line or several, that means the same: what does not print stands in strings alone,
/// and is spelled `\u202e` there, above U+FFFF as a pair of surrogates.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    let stays = |c| c == '\n' || is_printable(c);
    escaped(text, stays, |c, escaped| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    })
}

fn escaped(
    text: &str,
    stays: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if text.chars().all(&stays) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if stays(c) {
            escaped.push(c);
        } else {
            escape(c, &mut escaped);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Controls (C0, DEL, C1), soft hyphen, no-break space, combining joiner, Arabic letter mark,
    /// Hangul filler, zero width, bidirectional, separators of lines, words and paragraphs,
    /// variation selector, byte order mark, annotation, private, unassigned, tag, noncharacter.
    const SILENT: &str = "\0\t\u{1b}\u{7f}\u{85}\u{9b}\u{a0}\u{ad}\u{34f}\u{61c}\u{115f}\
        \u{200b}\u{200d}\u{200e}\
        \u{2028}\u{2029}\u{202e}\u{2066}\u{2060}\u{3164}\u{e000}\
        \u{fe0f}\u{feff}\u{fff9}\u{378}\u{e0041}\u{10ffff}";

    #[test]
    fn unprintable_characters_are_escaped() {
        for c in SILENT.chars() {
            assert!(!is_printable(c), "{c:?}");
        }
        let spelled = visible(SILENT);
        assert!(spelled.chars().all(is_printable), "{spelled}");
        assert!(spelled.contains(r"\u{9b}"), "{spelled}");
        assert!(spelled.contains(r"\u{e0041}"), "{spelled}");
        assert_eq!(visible("a\u{1b}[2Jb\nä"), "a\\u{1b}[2Jb\\nä");
        assert_eq!(lines("a\n\u{202e}b\n"), "a\n\\u{202e}b\n");
        assert_eq!(coloured("\u{1b}[1m\u{9b}\n"), "\u{1b}[1m\\u{9b}\\n");
    }

    #[test]
    fn printable_text_is_unchanged() {
        let text = "größe <b> 東京 ﷽ e\u{301} 🦀 € ½ ~|{}";
        assert!(matches!(visible(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn escaped_json_is_equal_and_printable() {
        let value = serde_json::json!({SILENT: SILENT, "a": ["größe 🦀", 1, null]});
        for text in [value.to_string(), format!("{value:#}")] {
            let spelled = json(&text);
            let prints = |c| c == '\n' || is_printable(c);
            assert!(spelled.chars().all(prints), "{spelled}");
            assert!(spelled.contains(r"\u202e"), "{spelled}");
            assert!(spelled.contains(r"\udb40\udc41"), "{spelled}");
            let read: serde_json::Value = serde_json::from_str(&spelled).expect("JSON");
            assert_eq!(read, value);
        }
    }
}
