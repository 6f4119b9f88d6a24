//! Texts that nobody may see.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const HIDDEN: &str = "***";

/// A password, key or token. Only [`Secret::expose`] gives it away; every way of printing shows `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself: for a connection or a comparison, never for a log line or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// serde's own error would repeat a value of the wrong type.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| serde::de::Error::custom("expected a string"))?;
        Ok(Self(text))
    }
}

/// `line` as it may be shown: without what follows the name of a secret setting, and without the
/// password of a URL. Hides too much rather than too little, because the line may be malformed.
pub(super) fn mask_line(line: &str) -> String {
    let end = [secret_value_start(line), Some(line.len())].into_iter().flatten().min().unwrap_or(0);
    let mut shown = mask_url(&line[..end]);
    if end < line.len() {
        shown.push_str(HIDDEN);
    }
    shown
}

/// Where the value begins in `password = "…"`, `secret_key= '…'`, `LOGTIER_SERVER__TOKEN=…`.
fn secret_value_start(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    let starts = ["password", "token", "secret", "secret_key", "secret_access_key"].into_iter().flat_map(|name| {
        let lower = &lower;
        lower.match_indices(name).filter_map(move |(at, _)| {
            let after = at + name.len();
            let rest = lower[after..].trim_start_matches(['"', '\'', ' ', '\t']);
            let value = rest.strip_prefix('=')?.trim_start();
            Some(line.len() - value.len())
        })
    });
    starts.min()
}

fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let user_len = rest.find([':', '/', '@', '"', '\'']).unwrap_or(rest.len());
    let (user, rest) = rest.split_at(user_len);
    let Some(after) = rest.strip_prefix(':') else { return format!("{scheme}://{user}{rest}") };
    if let Some(at) = after.rfind('@') {
        return format!("{scheme}://{user}:{HIDDEN}{}", &after[at..]);
    }
    let port_len = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    if port_len > 0 && after[port_len..].starts_with(['/', '"', '\'']) {
        return format!("{scheme}://{user}:{after}");
    }
    format!("{scheme}://{user}:{HIDDEN}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_printing_shows_a_secret() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "*** *** ***");
        assert_eq!(serde_json::to_string(&secret).expect("JSON"), "\"***\"");
    }

    #[test]
    fn lines_lose_their_secrets() {
        let check = |line: &str, shown: &str| assert_eq!(mask_line(line), shown);
        check("password = \"hunter2\"", "password = ***");
        check(
            "hot = { url = \"mysql://u:hunter2@db/x\", password=\"hunter2\" }",
            "hot = { url = \"mysql://u:***@db/x\", password=***",
        );
        check("LOGTIER_SERVER__TOKEN=hunter2", "LOGTIER_SERVER__TOKEN=***");
        check("\"secret_access_key\" = 'hunter2", "\"secret_access_key\" = ***");
        check("token_file = \"/etc/token\"", "token_file = \"/etc/token\"");
        check("url = \"mysql://u:hun@ter2@db/x\"", "url = \"mysql://u:***@db/x\"");
        check("url = \"mysql://u:hunter2\"", "url = \"mysql://u:***");
        check("url = \"mysql://u:23#er2/\"", "url = \"mysql://u:***");
        check("url = \"mysql://db:3306/x\"", "url = \"mysql://db:3306/x\"");
        check("url = \"s3://bucket/logs\"", "url = \"s3://bucket/logs\"");
    }
}
