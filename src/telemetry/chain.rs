//! An error and what it came from, in one line.

use std::error::Error;

/// The texts of an error and of its causes. What a wrapper has said already is not said again: some
/// libraries print their cause within their own text.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Told {
        text: &'static str,
        #[source]
        cause: Option<Box<Told>>,
    }

    fn told(text: &'static str, cause: Option<Told>) -> Told {
        Told { text, cause: cause.map(Box::new) }
    }

    #[test]
    fn nothing_is_said_twice() {
        let error = told("open the tier", Some(told("answer: no such table", Some(told("no such table", None)))));
        assert_eq!(chain(&error), "open the tier: answer: no such table");
    }
}
