//! Several sources of logins, asked in turn.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Credential, Credentials, CredentialsError};

/// The login of the first source that has one. A source that fails fails the whole: to go on with another login than the
/// one that was meant would be worse.
#[derive(Debug, Clone, Default)]
pub struct FirstOf(Vec<Arc<dyn Credentials>>);

impl FirstOf {
    /// Sources, in the order in which they are asked.
    #[must_use]
    pub fn new(sources: Vec<Arc<dyn Credentials>>) -> Self {
        Self(sources)
    }
}

impl Credentials for FirstOf {
    fn find<'a>(
        &'a self,
        host: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
        Box::pin(async move {
            for source in &self.0 {
                if let Some(credential) = source.find(host, repository).await? {
                    return Ok(Some(credential));
                }
            }
            Ok(None)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Anonymous, ConfigFile};

    fn logins(host: &str, username: &str) -> Arc<dyn Credentials> {
        let text = format!(r#"{{"auths": {{"{host}": {{"username": "{username}", "password": "p"}}}}}}"#);
        Arc::new(ConfigFile::parse(Path::new("test"), text.as_bytes()).unwrap())
    }

    #[derive(Debug)]
    struct Broken;

    impl Credentials for Broken {
        fn find<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<Credential>, CredentialsError>> {
            let why = "it is gone".to_owned();
            Box::pin(async { Err(CredentialsError::Unavailable { why, is_passing: false }) })
        }
    }

    #[tokio::test]
    async fn the_first_that_has_one_is_taken_and_a_failure_is_no_reason_to_go_on() {
        let (one, two) = (logins("a.corp", "one"), logins("a.corp", "two"));
        let sources = FirstOf::new(vec![Arc::new(Anonymous), one.clone(), two, logins("b.corp", "three")]);
        for (host, expected) in [("a.corp", Some("one")), ("b.corp", Some("three")), ("c.corp", None)] {
            let found = sources.find(host, "app").await.unwrap().map(|credential| match credential {
                Credential::Password { username, .. } => username,
                other => panic!("{other:?}"),
            });
            assert_eq!(found.as_deref(), expected, "{host}");
        }
        FirstOf::new(vec![Arc::new(Broken), one]).find("a.corp", "app").await.unwrap_err();
    }
}
