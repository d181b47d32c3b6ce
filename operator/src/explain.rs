//! Errors as one line for a person.

use std::error::Error;

/// An error and its causes, each said once. Many errors repeat their cause in their own text; others keep it back.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    // The API server's own message says all. kube's text around it repeats it, in Rust's terms.
    if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no answer")]
    struct Quiet(#[source] Talkative);

    #[derive(Debug, thiserror::Error)]
    #[error("connecting: {0}")]
    struct Talkative(#[source] std::io::Error);

    #[test]
    fn causes_are_said_once() {
        let error = Quiet(Talkative(std::io::Error::other("refused")));
        assert_eq!(explain(&error), "no answer: connecting: refused");
    }

    #[test]
    fn the_api_server_speaks_for_itself() {
        let status = kube::core::Status::failure("nodes is forbidden", "Forbidden");
        assert_eq!(explain(&kube::Error::Api(status.boxed())), "nodes is forbidden");
    }
}
