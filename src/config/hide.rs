//! Hides the passwords of URLs in output.

use url::Url;

/// Replaces a password in output.
pub(super) const HIDDEN: &str = "***";

/// Whether a part of user and password may be in the path, query or fragment: the client takes
/// everything before the first `@` as user and password.
pub(super) fn is_astray(url: &Url) -> bool {
    let behind = [Some(url.path()), url.query(), url.fragment()];
    behind.into_iter().flatten().any(|part| part.contains('@'))
}

pub(super) fn hide_password(mut url: Url) -> Url {
    if url.password().is_some() {
        // It fails only for a URL that can't have a password.
        let _ = url.set_password(Some(HIDDEN));
    }
    let secret = |(key, _): &(std::borrow::Cow<'_, str>, _)| key.contains("password");
    if url.query_pairs().any(|pair| secret(&pair)) {
        url.set_query(None);
    }
    url
}
