//! The logins that images name.
//!
//! Which of them goes to which registry is the registry client's to ask, when a registry wants one. What the engine adds:
//! an image whose logins cannot be had is not fetched without them, and logins that a registry refuses are read anew before
//! that is said to be a failure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use larder_oci::ImageName;
use larder_pull::PullError;
use larder_registry::{CredentialsError, Registry, RegistryError};

use super::{
    Engine,
    desired::{Desired, Source},
};

/// A registry, and a repository there.
pub type Repository = (String, String);

/// Where the logins are that images name; in a cluster, Secrets.
pub trait PullSecrets: Send + Sync {
    /// From now on these names go with these repositories, and no others. Says whether that is news.
    fn assign(&self, names: BTreeMap<Repository, BTreeSet<String>>) -> bool;

    /// Makes sure that all of these can be used. Says whether one of them is another than it was at the last look.
    fn read<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<bool, CredentialsError>>;

    /// Forgets what was read: it may be out of date.
    fn forget(&self, names: &[String]);
}

impl Desired {
    /// Which logins go with which repository. Images of one repository that name different ones get all of them.
    pub(super) fn pull_secrets(&self) -> BTreeMap<Repository, BTreeSet<String>> {
        let mut all: BTreeMap<Repository, BTreeSet<String>> = BTreeMap::new();
        for image in self.images.iter().filter(|image| !image.pull_secrets.is_empty()) {
            let from = match (&image.source, &image.key) {
                (Source::Artifact(name), _) => name,
                (Source::Registry, Ok(key)) => &key.name,
                (Source::File(_), _) | (_, Err(_)) => continue,
            };
            let repository = (from.registry().to_owned(), from.repository().to_owned());
            all.entry(repository).or_default().extend(image.pull_secrets.iter().cloned());
        }
        all
    }
}

impl Engine {
    /// The same with a place for the logins that images name. Without one, what they name is passed over.
    #[must_use]
    pub fn with_pull_secrets(self, secrets: Arc<dyn PullSecrets>) -> Self {
        Self { pull_secrets: Some(secrets), ..self }
    }

    /// Says which logins go with what is wanted now.
    pub(super) fn assign_logins(&self) {
        if let Some(secrets) = &self.pull_secrets
            && secrets.assign(self.desired.pull_secrets())
        {
            self.registry.forget_logins();
        }
    }
}

/// The logins of one image.
#[derive(Clone)]
pub(super) struct Logins {
    /// Absent where the image needs none.
    source: Option<Arc<dyn PullSecrets>>,
    names: Vec<String>,
    registry: Registry,
}

/// What may have failed since a registry refused a login.
pub(super) trait Refusable: From<RegistryError> {
    /// What the registry did, if it was the registry.
    fn of_registry(&self) -> Option<&RegistryError>;

    fn is_refused(&self) -> bool {
        matches!(
            self.of_registry(),
            Some(RegistryError::Unauthorized { .. } | RegistryError::LoginRefused { .. })
        )
    }
}

impl Refusable for RegistryError {
    fn of_registry(&self) -> Option<&RegistryError> {
        Some(self)
    }
}

impl Refusable for PullError {
    fn of_registry(&self) -> Option<&RegistryError> {
        if let Self::Registry(error) = self { Some(error) } else { None }
    }
}

impl Logins {
    /// Those of these names, where there is a place for logins.
    pub(super) fn new(source: Option<&Arc<dyn PullSecrets>>, registry: &Registry, names: &[String]) -> Self {
        let source = source.filter(|_| !names.is_empty()).cloned();
        Self { source, names: names.to_vec(), registry: registry.clone() }
    }

    /// Does what needs these logins, for an image of this name: once they are known to be there, and once more if they turn
    /// out to have changed when a registry refuses them.
    pub(super) async fn with<T, E, F>(&self, name: &ImageName, ask: impl Fn() -> F) -> Result<T, E>
    where
        E: Refusable,
        F: Future<Output = Result<T, E>>,
    {
        let Some(source) = &self.source else { return ask().await };
        self.prepare(&**source, name).await?;
        match ask().await {
            Err(error) if error.is_refused() => {
                source.forget(&self.names);
                if self.prepare(&**source, name).await? { ask().await } else { Err(error) }
            }
            ended => ended,
        }
    }

    /// Reads them. Says whether one has changed.
    async fn prepare(&self, source: &dyn PullSecrets, name: &ImageName) -> Result<bool, RegistryError> {
        let read = source.read(&self.names).await;
        let has_changed = read
            .map_err(|source| RegistryError::Credentials { registry: name.registry().to_owned(), source })?;
        if has_changed {
            self.registry.forget_logins();
        }
        Ok(has_changed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use larder_registry::RegistryOptions;

    use super::*;
    use crate::engine::DesiredImage;

    /// What each read is to give, the last first; and what was done.
    #[derive(Default)]
    struct Scripted {
        reads: Mutex<Vec<Result<bool, CredentialsError>>>,
        forgotten: AtomicUsize,
    }

    impl PullSecrets for Scripted {
        fn assign(&self, _: BTreeMap<Repository, BTreeSet<String>>) -> bool {
            false
        }

        fn read<'a>(&'a self, _: &'a [String]) -> BoxFuture<'a, Result<bool, CredentialsError>> {
            Box::pin(async { self.reads.lock().unwrap().pop().unwrap() })
        }

        fn forget(&self, _: &[String]) {
            self.forgotten.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn refused() -> RegistryError {
        RegistryError::LoginRefused { registry: "a.corp".to_owned(), by: "a.corp".to_owned() }
    }

    /// How it ended, how often the registry was asked, and how often the logins were forgotten.
    async fn run(
        reads: Vec<Result<bool, CredentialsError>>,
        answers: Vec<Result<u8, RegistryError>>,
    ) -> (Result<u8, String>, usize, usize) {
        let source = Arc::new(Scripted { reads: Mutex::new(reads), ..Scripted::default() });
        let registry = Registry::new(RegistryOptions::default()).unwrap();
        let logins = Logins { source: Some(source.clone()), names: vec!["regcred".to_owned()], registry };
        let (answers, asked) = (Mutex::new(answers), AtomicUsize::new(0));
        let ask = || async {
            asked.fetch_add(1, Ordering::SeqCst);
            answers.lock().unwrap().pop().unwrap()
        };
        let ended = logins.with(&"a.corp/app".parse().unwrap(), ask).await;
        let forgotten = source.forgotten.load(Ordering::SeqCst);
        (ended.map_err(|error| error.to_string()), asked.load(Ordering::SeqCst), forgotten)
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_said_before_anybody_is_asked() {
        let gone =
            CredentialsError::Unavailable { why: "Secret x/y is not there".to_owned(), is_passing: false };
        let (ended, asked, _) = run(vec![Err(gone)], vec![]).await;
        assert_eq!(ended, Err("no login for a.corp: Secret x/y is not there".to_owned()));
        assert_eq!(asked, 0);
    }

    #[tokio::test]
    async fn a_login_that_is_refused_is_read_again_and_tried_again_only_if_it_has_changed() {
        assert_eq!(run(vec![Ok(false)], vec![Ok(1)]).await, (Ok(1), 1, 0));
        let rotated = run(vec![Ok(true), Ok(false)], vec![Ok(2), Err(refused())]).await;
        assert_eq!(rotated, (Ok(2), 2, 1));
        let (ended, asked, forgotten) = run(vec![Ok(false), Ok(false)], vec![Err(refused())]).await;
        assert_eq!((ended.unwrap_err().contains("refuses the login"), asked, forgotten), (true, 1, 1));
        let (ended, asked, _) = run(vec![Ok(true), Ok(false)], vec![Err(refused()), Err(refused())]).await;
        assert_eq!((ended.is_err(), asked), (true, 2));
    }

    #[test]
    fn logins_go_with_the_repository_that_is_asked() {
        let image = |name: &str, source: Source, secrets: &[&str]| DesiredImage {
            source,
            pull_secrets: secrets.iter().map(|&name| name.to_owned()).collect(),
            ..DesiredImage::new(name, None, false)
        };
        let artifact = Source::Artifact("a.corp/archives/app:v1".parse().unwrap());
        let images = vec![
            image("a.corp/app:v1", Source::Registry, &["one"]),
            image("a.corp/app:v2", Source::Registry, &["two"]),
            image("a.corp/public", Source::Registry, &[]),
            image("b.corp/app", artifact, &["three"]),
            image("c.corp/app", Source::File("app.tar".to_owned()), &["four"]),
        ];
        let found = Desired { images, ..Desired::default() }.pull_secrets();
        let expected = [("app", &["one", "two"][..]), ("archives/app", &["three"])];
        let expected = expected.map(|(repository, names)| {
            (
                ("a.corp".to_owned(), repository.to_owned()),
                names.iter().map(|&name| name.to_owned()).collect(),
            )
        });
        assert_eq!(found, BTreeMap::from(expected));
    }
}
